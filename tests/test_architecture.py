"""The house: ARCHITECTURE.md lists every module in import order, and no module imports one that stands below it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "hepipe"
LIMIT_FILE, LIMIT_FUNCTION = 400, 50


def listed(text: str) -> list[str]:
    """The modules of the list in ARCHITECTURE.md, in order."""
    return re.findall(r"^\| `([\w/]+\.py)` \|", text, flags=re.MULTILINE)


def imports(path: Path) -> set[str]:
    """The hepipe modules that a file imports, as paths below src/hepipe."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    candidates = {
        name.removeprefix("hepipe.").replace(".", "/") + ".py" for name in found if name.startswith("hepipe.")
    }
    return {name for name in candidates if (SOURCE / name).exists()}


def upward(order: list[str], edges: dict[str, set[str]]) -> list[str]:
    """Imports of a module that is not listed above the one importing it."""
    place = {name: index for index, name in enumerate(order)}
    return [f"{a} imports {b}" for a, names in edges.items() for b in sorted(names) if place[b] >= place[a]]


ORDER = listed((ROOT / "ARCHITECTURE.md").read_text())
MODULES = sorted(str(path.relative_to(SOURCE)) for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def test_architecture_lists_exactly_the_modules_there_are() -> None:
    assert sorted(ORDER) == MODULES
    assert len(set(ORDER)) == len(ORDER)


def test_no_module_imports_upward() -> None:
    assert upward(ORDER, {name: imports(SOURCE / name) for name in MODULES}) == []


def test_an_upward_import_is_found() -> None:
    assert upward(["low.py", "high.py"], {"low.py": {"high.py"}, "high.py": {"low.py"}}) == ["low.py imports high.py"]


def test_layers_come_in_the_order_of_the_design() -> None:
    layers = [name.split("/")[0] for name in ORDER if "/" in name]
    assert list(dict.fromkeys(layers)) == ["schemes", "circuits", "protocol", "models", "training", "study", "service"]
    assert layers == sorted(layers, key=list(dict.fromkeys(layers)).index)


@pytest.mark.parametrize("name", ["service.worker", "service.client", "service.run"])
def test_the_service_starts_without_what_only_fitting_needs(name: str) -> None:
    """A worker that is replaced is waited for, and every worker keeps what it imports."""
    heavy = "[n for n in ('sklearn', 'scipy', 'pandas', 'torch', 'matplotlib') if n in sys.modules]"
    code = f"import sys, hepipe.{name}; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("name", MODULES)
def test_files_and_functions_stay_short(name: str) -> None:
    text = (SOURCE / name).read_text()
    assert len(text.splitlines()) <= LIMIT_FILE
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < LIMIT_FUNCTION, f"{name}: {node.name}"

"""The form of the committed notebooks: thin, without outputs, with the same parameters everywhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = ["SCHEMES", "POLICY", "N_QUERIES", "REPEATS", "SEED", "SECURITY_BITS", "OUT"]
FORBIDDEN_SYNTAX = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Try, ast.TryStar)
FORBIDDEN_IMPORTS = {"tenseal", "phe", "urllib", "requests", "httpx", "subprocess", "matplotlib"}
PARAMETER = re.compile(r"[A-Z_]+ = \S.*  # \S.*")

pytestmark = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> nbformat.NotebookNode:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[nbformat.NotebookNode]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def parameters_cell(path: Path) -> nbformat.NotebookNode:
    (cell,) = [cell for cell in code_cells(path) if "parameters" in cell.metadata.get("tags", [])]
    return cell


def lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


def trees(path: Path) -> list[ast.AST]:
    return [node for cell in code_cells(path) for node in ast.walk(ast.parse(cell.source))]


def test_it_is_valid_and_names_a_plain_kernel(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert set(notebook.metadata) <= {"kernelspec", "language_info"}


def test_it_is_committed_without_outputs(path: Path) -> None:
    for cell in code_cells(path):
        assert cell.outputs == []
        assert cell.execution_count is None
    for cell in read(path).cells:
        assert set(cell.metadata) <= {"tags"}, f"metadata of an editor or of a run: {dict(cell.metadata)}"


def test_it_is_short(path: Path) -> None:
    counts = [len(lines(cell.source)) for cell in code_cells(path)]
    assert len(read(path).cells) <= 25
    assert sum(counts) <= 90
    assert max(counts) <= 12


def test_it_asks_a_question_and_ends_with_references(path: Path) -> None:
    first, *_, last = read(path).cells
    assert first.cell_type == last.cell_type == "markdown"
    assert re.match(r"# .*\?$", lines(first.source)[0]), "the title is a question"
    assert re.search(r"^#+ References$", last.source, re.MULTILINE)


def test_its_parameters_are_plain_literals_with_unit_and_range(path: Path) -> None:
    source = parameters_cell(path).source
    for line in lines(source):
        assert PARAMETER.fullmatch(line), f"not `NAME = value  # unit and range`: {line}"
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(source).body}
    needed = [name for name in NAMES if not path.stem.endswith("_summary") or name in values]
    assert [name for name in values if name in NAMES] == needed, "the same names in the same order everywhere"
    assert values["SCHEMES"] == "clear,paillier,ckks"
    assert values.get("SECURITY_BITS", 128) == 128
    assert re.fullmatch(rf"results/\w+/{path.stem}", values["OUT"])
    integers = {"N_QUERIES", "REPEATS", "SEED", "SECURITY_BITS"} & set(values)
    assert all(type(values[name]) is int for name in integers)


def test_the_parameters_come_before_all_other_code(path: Path) -> None:
    assert code_cells(path)[0] == parameters_cell(path)


def test_it_defines_nothing_and_catches_nothing(path: Path) -> None:
    found = [type(node).__name__ for node in trees(path) if isinstance(node, FORBIDDEN_SYNTAX)]
    assert found == [], "this belongs in the library"


def test_it_imports_no_backend_draws_nothing_itself_and_downloads_nothing(path: Path) -> None:
    named = {alias.name for node in trees(path) if isinstance(node, ast.Import) for alias in node.names}
    named |= {node.module or "" for node in trees(path) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in named}.isdisjoint(FORBIDDEN_IMPORTS)
    assert not any(re.search(r"\bpip\b|https?://", cell.source) for cell in code_cells(path))


def test_it_names_no_place_on_a_machine(path: Path) -> None:
    assert not re.search(r"/(home|Users|tmp|root)/|[A-Z]:\\\\", path.read_text(encoding="utf-8"))

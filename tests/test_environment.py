"""pyproject.toml, requirements.lock and environment.yml name the same packages, with bounds that fit together."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from rattler import MatchSpec
from rattler.exceptions import InvalidMatchSpecError

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.13")  # what the continuous integration runs
CONDA_NAMES = {"matplotlib": "matplotlib-base", "prometheus-client": "prometheus_client", "torch": "pytorch-cpu"}
CUDA = re.compile(r"nvidia|cuda|cudnn|nccl|triton(?!client)")  # tritonclient is pure HTTP


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def declared() -> dict[str, SpecifierSet]:
    """Every package that pyproject.toml asks for, core and extras, with its bounds."""
    lists = [project()["dependencies"], *project()["optional-dependencies"].values()]
    requirements = [Requirement(line) for lines in lists for line in lines]
    bounds: dict[str, SpecifierSet] = {}
    for requirement in requirements:
        name = canonicalize_name(requirement.name)
        if name != "hepipe":
            assert bounds.setdefault(name, requirement.specifier) == requirement.specifier, f"{name}: two bounds"
    return bounds


def lock_lines() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def pins(python: str) -> dict[str, Version]:
    """What the lock pins on Linux for one version of Python."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": "x86_64",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    found: dict[str, Version] = {}
    for requirement in map(Requirement, lock_lines()):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            assert found.setdefault(requirement.name, Version(pin.version)) == Version(pin.version), requirement.name
    return found


def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def conda_specs() -> dict[str, MatchSpec]:
    specs = [MatchSpec(entry, strict=True) for entry in environment()["dependencies"] if isinstance(entry, str)]
    return {spec.name.normalized: spec for spec in specs}


def pip_entries() -> list[str]:
    (section,) = [entry["pip"] for entry in environment()["dependencies"] if isinstance(entry, dict)]
    return section


def pip_requirements() -> dict[str, SpecifierSet]:
    requirements = [Requirement(entry) for entry in pip_entries() if not entry.startswith("-")]
    return {canonicalize_name(requirement.name): requirement.specifier for requirement in requirements}


def conda_bounds(name: str) -> SpecifierSet:
    return SpecifierSet(str(conda_specs()[name].version or ""))


def test_the_extra_all_holds_every_other_extra():
    extras = project()["optional-dependencies"]
    (everything,) = [Requirement(line) for line in extras["all"]]
    assert everything.extras == set(extras) - {"all"}


def test_every_lock_line_is_one_exact_public_pin():
    for line in lock_lines():
        requirement = Requirement(line)
        assert requirement.url is None, line
        assert not re.search(r"[/\\@]|--|\+", line), f"{line}: no URL, no path, no option, no local version"
        assert [pin.operator for pin in requirement.specifier] == ["=="], line
        assert not CUDA.search(requirement.name), line


def test_the_lock_names_no_url_or_option_even_in_comments():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"://|\bindex-url\b|find-links", text)


def test_the_lock_is_sorted_and_pins_torch():
    names = [Requirement(line).name for line in lock_lines()]
    assert names == sorted(names)
    assert [line for line in lock_lines() if line.startswith("torch")] == ["torch==2.13.0"]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_declared_package_is_pinned_within_its_bounds(python):
    locked = pins(python)
    assert set(declared()) <= set(locked)
    outside = {name: str(locked[name]) for name, bounds in declared().items() if locked[name] not in bounds}
    assert outside == {}


def test_every_declared_package_is_in_the_conda_environment_with_the_same_bounds():
    by_pip, by_conda = pip_requirements(), conda_specs()
    for name, bounds in declared().items():
        conda_name = CONDA_NAMES.get(name, name)
        assert (name in by_pip) != (conda_name in by_conda), f"{name}: exactly one of conda and pip provides it"
        assert (by_pip[name] if name in by_pip else conda_bounds(conda_name)) == bounds, name


def test_the_conda_environment_holds_nothing_else():
    known = {CONDA_NAMES.get(name, name) for name in declared()} | {"python", "pip"}
    assert set(conda_specs()) <= known
    assert set(pip_requirements()) <= set(declared())
    assert [entry for entry in pip_entries() if entry.startswith("-")] == ["-e ."]
    assert environment()["channels"] == ["conda-forge", "nodefaults"]


def test_the_notice_names_the_licence_of_every_declared_package():
    listed = re.findall(r"^    ([a-z0-9][a-z0-9-]*)  *\S", (ROOT / "NOTICE").read_text(), re.MULTILINE)
    assert set(listed) == set(declared())


def test_the_python_bounds_agree():
    bounds = SpecifierSet(project()["requires-python"])
    assert conda_bounds("python") == bounds
    assert all(Version(python) in bounds for python in PYTHONS)
    assert Version(".".join(map(str, sys.version_info[:2]))) in bounds
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert tuple(workflow["jobs"]["check-and-test"]["strategy"]["matrix"]["python"]) == PYTHONS


@pytest.mark.parametrize("entry", ["numpy =>2", "nump y", "numpy >="])
def test_a_mistyped_conda_entry_is_refused(entry):
    with pytest.raises(InvalidMatchSpecError):
        MatchSpec(entry, strict=True)

"""What a record says of the code that made it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hepipe.study import measure


def git(root: Path, *words: str) -> str:
    whose = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *whose, *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def test_a_changed_file_marks_the_commit_and_what_runs_write_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, result, readme = tmp_path / "src" / "measure.py", tmp_path / "results" / "table.csv", tmp_path / "README.md"
    for path in (code, result, readme):
        path.parent.mkdir(exist_ok=True)
        path.write_text("1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    monkeypatch.setattr(measure, "__file__", str(code))
    head = git(tmp_path, "rev-parse", "--short=12", "HEAD")
    assert measure.commit() == head
    result.write_text("2\n")
    readme.write_text("2\n")
    assert measure.commit() == head
    code.write_text("2\n")
    assert measure.commit() == head + "-dirty"


def test_outside_a_checkout_there_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "__file__", str(tmp_path / "measure.py"))
    assert measure.commit() == ""

"""The README's generated parts are those that the committed results and the code give now."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest

from hepipe.errors import DataError
from hepipe.study import readme
from hepipe.study.report import read_results
from hepipe.study.support import model_table, operations, support_table, training_table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_what_update_would_write(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    copy.write_text(README, encoding="utf-8")
    assert readme.update(copy, ROOT / "results" / "full") is False


def test_the_support_table_is_read_off_the_code() -> None:
    table = support_table()
    assert list(table.index) == operations()
    assert table.loc["mul"].to_dict() == {"clear": "yes", "paillier": "by rounds", "ckks": "yes"}
    assert table.loc["rotate"].to_dict() == {"clear": "yes", "paillier": "no", "ckks": "yes"}
    assert (table.loc[["add", "sub", "mul_plain", "matmul_plain", "rerandomize"]] == "yes").all(axis=None)


def test_a_table_without_results_or_marks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="make full"):
        readme.results_part(tmp_path)
    with pytest.raises(DataError, match="marks"):
        readme.replaced("no marks here", "results", "text")


def test_content_goes_between_the_marks_and_nowhere_else() -> None:
    text = "a <!-- results:begin -->old<!-- results:end --> b"
    assert readme.replaced(text, "results", r"new \1") == "a <!-- results:begin -->\nnew \\1\n<!-- results:end --> b"


def test_markdown_has_a_line_a_row() -> None:
    assert readme.markdown(pd.DataFrame({"x": [1.0, 2.5], "y": ["a", None]})).splitlines() == [
        "| x | y |",
        "| --- | --- |",
        "| 1 | a |",
        "| 2.5 | – |",
    ]


def test_the_quick_start_runs_and_has_at_most_twenty_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    code = re.search(r"## Quick start\n\n```python\n(.*?)```", README, flags=re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].splitlines() if line.strip()]) <= 20
    found: dict[str, object] = {}
    exec(code[1].replace("y_test).table()", 'y_test, schemes=("clear", "ckks"), repeats=1).table()'), found)
    assert len(found["labels"]) == len(found["X_test"])  # type: ignore[arg-type]


def test_every_notebook_is_in_the_index() -> None:
    listed = re.findall(r"\(notebooks/([\w]+)\.ipynb\)", README)
    assert listed == sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_the_model_table_says_what_the_plans_say() -> None:
    table = model_table()
    assert table.loc["linear regression", "paillier, polynomial"] == "0 rounds: scores"
    assert table.loc["polynomial of degree 3, powers at the server", "ckks, polynomial"] == "3 levels: scores"
    asked = table.loc["network, ReLU of degree 3", ["paillier, client", "ckks, client"]]
    assert asked.str.contains("the argument of every relu").all()
    assert (table.loc["decision tree on public bins", ["paillier, client", "ckks, client"]] == "–").all()


def test_the_training_table_says_what_the_plans_say() -> None:
    table = training_table()
    assert table.loc["logistic regression, 3 steps of descent", "ckks"] == "7 levels: weights"
    assert "19 rounds" in table.loc["logistic regression, 20 steps, refreshed", "ckks"]
    assert table.loc["ridge regression of several owners", "paillier"].startswith("0 rounds: to the key holder")
    assert table.loc["the same, masked", "ckks"] == "–"


NAMES = {
    "polynomial of degree 3, powers at the client": "polynomial of degree 3, powers at the client",
    "polynomial of degree 3, powers at the server": "polynomial of degree 3, powers at the server",
    "network, square": r"[\d-]+ network, square",
    "network, cubic": r"[\d-]+ network, cubic",
    "network, ReLU of degree 3": r"[\d-]+ network, relu",
    "decision tree on public bins": "decision tree",
    "forest of 3 trees on public bins": r"forest of \d+ trees",
    "decision tree with secret thresholds of 4 bits, by bits": "decision tree, secret thresholds",
    "decision tree with secret thresholds of 4 bits, by sign": "decision tree, secret thresholds",
    "k-means with 3 clusters": "k-means",
    "k-means with 3 clusters, distances": "k-means, distances",
}
"""How the notebooks' models of a kind are called, where it is not the kind itself."""


def test_every_marked_way_was_run_on_real_data() -> None:
    results = read_results(ROOT / "results" / "full")
    results = results[~results["synthetic"].astype(bool)]
    table = model_table()
    for kind, column in ((kind, column) for kind in table.index for column in table if table.loc[kind, column] != "–"):
        scheme, policy = column.split(", ")
        rows = results[(results["scheme"] == scheme) & (results["policy"] == policy)]
        assert rows["model"].str.fullmatch(NAMES.get(kind, kind)).any(), f"{kind}: no result under {column}"
        assert (rows["security bits"] == 128).all()

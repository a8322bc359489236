"""The commands: a worker's process, rows of a file predicted through a folder, and leftovers cleaned."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from mailbox.test_predict import clear
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner, Result

import hepipe.__main__ as cli
from hepipe.models.bundle import Bundle, Settings, save
from hepipe.service.mailbox_letters import JOBS
from hepipe.service.mailbox_store import Store
from served_models import FRAME, made


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.mark.secure
def test_rows_are_predicted_through_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEPIPE_PASSPHRASE", "twelve characters and more")
    (tmp_path / "models").mkdir()
    save(tmp_path / "models" / "linear.zip", Bundle(made("linear"), "linear", settings=Settings(samples=4)))
    url = f"file://{tmp_path / 'box'}"
    words = [sys.executable, "-m", "hepipe", "work", url, "--models", "models"]
    process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.PIPE, stderr=(tmp_path / "log").open("wb"))
    try:
        line = process.stdout.readline().decode()  # type: ignore[union-attr]
        assert line == f"working on {url}\n", (tmp_path / "log").read_text()
        rows = FRAME.head(5)  # more than one request holds
        rows.to_csv(tmp_path / "in.csv", index=False)
        ask = ("predict", tmp_path / "in.csv", "--url", url, "--keys", tmp_path / "keys", "--scheme")
        for scheme in ("paillier", "ckks"):
            result = call(*ask, scheme)
            assert result.exit_code == 0, result.output
            found = pd.read_csv(io.StringIO(result.stdout))["prediction"].to_numpy()
            assert np.abs(found - made("linear").head(clear("linear", rows))).max() < 2.0**-18
        assert all(not Store(url).list(f"{JOBS}/{model}") for model in Store(url).list(JOBS))
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_leftovers_are_cleaned_when_they_are_old(tmp_path: Path) -> None:
    url = f"file://{tmp_path}"
    Store(url).put(f"{JOBS}/{'a' * 64}/{'b' * 32}.reply", b"nobody came back")
    assert call("mailbox", "clean", url).output == "0 objects deleted\n"
    assert call("mailbox", "clean", url, "--older-than", "0").output == "1 objects deleted\n"


def test_a_mailbox_needs_none_of_the_servers_packages_and_s3_says_what_it_needs() -> None:
    """fastapi, uvicorn, httpx2, websockets and prometheus-client come with the extra ``service`` only."""
    names = ("fastapi", "uvicorn", "httpx2", "websockets", "prometheus_client", "s3fs")
    code = f"""
import sys; sys.modules.update(dict.fromkeys({names!r}))
from hepipe.service.mailbox_worker import MailboxWorker
print("imported")
MailboxWorker("s3://bucket/box", None)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "imported\n"
    assert "Unsupported" in run.stderr
    assert "pip install 'hepipe[s3]'" in run.stderr


def test_what_cannot_be_a_mailbox_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("age\n1\n")
    for words, says in (
        (("predict", tmp_path / "in.csv", "--url", "ftp://box"), "exclusive creates"),
        (("predict", tmp_path / "in.csv", "--url", f"file://{tmp_path}"), "has the models []"),
        (("predict", tmp_path / "in.csv", "--url", f"file://{tmp_path}", "--authority", "x"), "no token"),
        (("work", f"file://{tmp_path / 'in.csv'}", "--models", tmp_path), "check the address"),
        (("work", f"file://{tmp_path}", "--models", tmp_path), "hepipe export MODEL"),
    ):
        result = call(*words)
        assert result.exit_code == 1
        assert says in result.stderr

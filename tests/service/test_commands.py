"""The commands: a token, keys that are reused, and rows of a file predicted on a server."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression
from typer.testing import CliRunner, Result

import hepipe
import hepipe.__main__ as cli
from hepipe.errors import DataError, KeyMismatch
from hepipe.models.bundle import Bundle, Settings, save
from hepipe.protocol.parties import Client
from hepipe.service.client import RemoteServer
from hepipe.service.keyring import KeyRing
from hepipe.service.tenants import Tenants
from hepipe.study.plan import plan
from hepipe.study.splits import split
from served_models import FRAME, made

PASSPHRASE = "twelve characters and more"


def call(*words: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(word) for word in words])


@pytest.fixture
def passphrase(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEPIPE_PASSPHRASE", PASSPHRASE)


def test_a_token_is_shown_once_and_opens(tmp_path: Path) -> None:
    result = call("token", "alice", "--tokens", tmp_path / "t", "--operator")
    assert result.exit_code == 0
    assert Tenants.load(tmp_path / "t").authenticate(f"Bearer {result.output.strip()}").operator
    again = call("token", "alice", "--tokens", tmp_path / "t")
    assert again.exit_code == 1
    assert "taken" in again.stderr


def test_serve_refuses_what_others_could_reach(tmp_path: Path) -> None:
    result = call("serve", tmp_path, "--host", "0.0.0.0")
    assert result.exit_code == 1
    assert "--tls-cert" in result.stderr
    empty = call("serve", tmp_path)
    assert empty.exit_code == 1
    assert "hepipe export MODEL" in empty.stderr


def test_help_names_the_commands_and_their_options() -> None:
    for command, word in (("serve", "--tokens"), ("predict", "--url"), ("token", "--operator")):
        result = call(command, "--help")
        assert result.exit_code == 0
        assert word in result.output
    for command in ("new", "list", "delete"):
        assert call("keys", command, "--help").exit_code == 0


# --- keys -------------------------------------------------------------------------------------------------------------


def small(scheme: str, precision_bits: float = 8.0) -> Any:
    return plan(made("linear"), scheme, 3, precision_bits=precision_bits, security_bits=0)


def test_keys_are_reused_until_new_ones_are_made(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    assert not ring.has(small("paillier").parameters)
    first = ring.client(small("paillier"), PASSPHRASE)
    assert ring.client(small("paillier"), PASSPHRASE).public().key_id == first.public().key_id
    newer = ring.new(small("paillier"), PASSPHRASE)
    assert ring.client(small("paillier"), PASSPHRASE).public().key_id == newer.public().key_id
    other = ring.client(small("paillier", 12.0), PASSPHRASE)  # other parameters, so another key
    ids = [bundle.key_id for _, bundle in ring.list()]
    assert ids == [client.public().key_id for client in (first, newer, other)]
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path, _ in ring.list())
    with pytest.raises(KeyMismatch, match="passphrase"):
        ring.client(small("paillier"), "another passphrase")
    listed = call("keys", "list", "--keys", tmp_path / "keys")
    assert [line.split()[0] for line in listed.output.splitlines()] == ids
    assert "insecure" in listed.output
    assert call("keys", "delete", ids[0][:10], "--keys", tmp_path / "keys").exit_code == 0
    assert [bundle.key_id for _, bundle in ring.list()] == ids[1:]
    for wrong in (ids[0], "zz"):
        with pytest.raises(DataError, match="0 keys"):
            ring.delete(wrong)
    assert call("keys", "delete", "", "--keys", tmp_path / "keys").exit_code == 1
    assert len(ring.list()) == 2


# --- predict ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """``hepipe serve`` itself, with the salary model of the first earlier system at the secure size."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "models").mkdir()
    data = hepipe.load("salary")
    parts = split(data)
    estimator = LinearRegression().fit(parts.X_train, parts.y_train)
    model = hepipe.from_sklearn(estimator, data.schema)
    save(folder / "models" / "salary.zip", Bundle(model, "salary", settings=Settings(samples=4)))
    words = [sys.executable, "-m", "hepipe", "serve", "models", "--port", "0", "--workers", "1"]
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, stderr=(folder / "log").open("wb"))
    line = process.stdout.readline().decode()  # type: ignore[union-attr]
    assert line.startswith("serving at http://127.0.0.1:"), (folder / "log").read_text()
    yield line.split()[-1], folder, estimator, data
    process.terminate()
    process.wait(60)


@pytest.mark.secure
@pytest.mark.parametrize("scheme", ["paillier", "ckks"])
def test_the_employee_of_the_earlier_system_gets_the_salary_that_its_training_gives(
    served: Any, scheme: str, tmp_path: Path, passphrase: None
) -> None:
    """It forgot the intercept and said 771.08; its own coefficients and intercept say 1740.29."""
    url, folder, estimator, data = served
    employee = pd.DataFrame([[24, 4, 6, 1]], columns=data.X.columns)
    clear = float(estimator.predict(employee)[0])
    assert data.synthetic or round(clear, 2) == 1740.29
    rows = pd.concat([employee, data.X.iloc[:8]])  # more than one request holds
    rows.to_csv(tmp_path / "in.csv", index=False)
    keys = folder / f"keys-{scheme}"
    ask = ("predict", tmp_path / "in.csv", "--url", url, "--model", "salary", "--scheme", scheme, "--keys", keys)
    first, again = call(*ask), call(*ask, "--out", tmp_path / "out.csv")
    assert (first.exit_code, again.exit_code) == (0, 0), first.output + again.output
    assert "you learn: scores; the server learns nothing" in first.stderr
    for found in (pd.read_csv(io.StringIO(first.stdout)), pd.read_csv(tmp_path / "out.csv")):
        assert np.abs(found["prediction"] - estimator.predict(rows)).max() < 2.0**-19
        assert round(found["prediction"][0], 2) == round(clear, 2)
    assert len(list(keys.iterdir())) == 1
    log = (folder / "log").read_text()
    assert log.count("PUT /v2/hepipe/keys/{key_id} 201") == {"paillier": 1, "ckks": 2}[scheme]


@pytest.mark.secure
def test_predict_refuses_rows_before_a_key_is_made(served: Any, tmp_path: Path, passphrase: None) -> None:
    url = served[0]
    header = "age,healthy_eating,active_lifestyle,Gender\n"
    for text, says in (("a,b\n1,2\n", "missing column"), (header + "24,4,60,1\n", "60.0"), ("", "cannot be read")):
        (tmp_path / "in.csv").write_text(text)
        result = call("predict", tmp_path / "in.csv", "--url", url, "--keys", tmp_path / "keys")
        assert result.exit_code == 1
        assert says in result.stderr
    assert not (tmp_path / "keys").exists()


@pytest.mark.secure
def test_new_keys_are_made_for_a_model_used_and_deleted_here_and_there(
    served: Any, tmp_path: Path, passphrase: None
) -> None:
    url, folder, _, data = served
    result = call("keys", "new", "--url", url, "--scheme", "ckks", "--keys", tmp_path)
    assert result.exit_code == 0, result.output
    remote = RemoteServer(url)
    client = remote.client("ckks", KeyRing(tmp_path), PASSPHRASE)
    assert client.public().key_id in result.output
    assert isinstance(client, Client)
    assert len(remote.predict(client, data.X.iloc[:1])) == 1
    key_id, kept = client.public().key_id, folder / "state" / "keys"
    assert list(kept.rglob(f"{key_id}-*"))
    assert call("keys", "delete", key_id[:12], "--url", "http://127.0.0.1:1", "--keys", tmp_path).exit_code == 1
    assert len(KeyRing(tmp_path).list()) == 1, "a server that is not there forgets nothing"
    assert call("keys", "delete", key_id[:12], "--url", url, "--keys", tmp_path).exit_code == 0
    assert not list(kept.rglob(f"{key_id}-*"))
    assert KeyRing(tmp_path).list() == []


def test_a_short_passphrase_is_refused(running: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEPIPE_PASSPHRASE", "short")
    monkeypatch.setenv("HEPIPE_TOKEN", running.tokens["alice"])
    FRAME.iloc[:1].to_csv(tmp_path / "in.csv", index=False)
    insecure = call("predict", tmp_path / "in.csv", "--url", running.url, "--model", "linear", "--keys", tmp_path / "k")
    assert insecure.exit_code == 1
    assert "made for tests" in insecure.stderr

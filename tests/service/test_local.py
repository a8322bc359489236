"""A server for trials answers like any other and is gone with its owner, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hepipe.errors import PeerLost
from hepipe.models.bundle import Bundle, Settings
from hepipe.models.logistic import clear_scores
from hepipe.service.local import LocalServer
from served_models import FRAME, made
from service.conftest import SAMPLES, TESTS, wait_for

X = FRAME.iloc[:SAMPLES]
SMALL = Settings(("ckks",), samples=SAMPLES, precision_bits=8.0, security_bits=0)
OWNER = """
import time
from hepipe.service.local import LocalServer
from service.test_local import bundle
server = LocalServer(bundle())
print(server.process.pid, server.folder, flush=True)
time.sleep(600)
"""


def bundle(settings: Settings = SMALL) -> Bundle:
    return Bundle(made("linear"), "linear", settings=settings)


def group_is_gone(leader: int) -> bool:
    """Whether the server and its workers are no more: a killed process that nobody waits for is a zombie."""
    for entry in Path("/proc").iterdir():
        try:
            state, _, group = (entry / "stat").read_text().rpartition(")")[2].split()[:3]
        except (OSError, ValueError):
            continue
        if int(group) == leader and state != "Z":
            return False
    return True


def test_it_answers_and_leaves_nothing_behind() -> None:
    with LocalServer(bundle()) as server:
        remote = server.remote("linear")
        client = remote.client("ckks")
        scores = client.decrypt(remote.evaluate(client.encrypt(X)))
        assert np.abs(scores - clear_scores(made("linear"), X)).max() <= remote.plan("ckks").error_bound
        assert os.getpgid(server.process.pid) == server.process.pid != os.getpgrp(), "an interrupt would reach it"
        assert not group_is_gone(server.process.pid)
    assert group_is_gone(server.process.pid)
    assert not server.folder.exists()
    server.stop()  # once more does no harm


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_it_ends_with_its_owner(number: signal.Signals) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    )
    assert owner.stdout is not None
    leader, _, folder = owner.stdout.readline().strip().partition(" ")
    assert Path(folder, "models").is_dir()
    owner.send_signal(number)
    owner.wait(60)
    owner.stdout.close()
    wait_for(lambda: group_is_gone(int(leader)) and not Path(folder).exists(), 60)


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(PeerLost, match="no scheme named 'rsa'"):
        LocalServer(bundle(Settings(("rsa",), samples=1, security_bits=0)))

"""Processes that die, run out of memory or of free workers, and clocks that jump."""

from __future__ import annotations

import os
import resource
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from faults.catalogue import fault
from faults.changes import Harm, body_start
from faults.scene import SCHEMES, Ending, Party, Scene
from relay import Cut
from service.conftest import wait_for
from service.test_lifecycle import conversation

AGAIN = 8
DAY_S = 86_400


def busiest(scene: Scene, since: dict[int, int], ns: int = 300_000) -> int:
    """The worker that has computed most since then, once it has computed ``ns``."""

    def found() -> int:
        now = computed(scene)
        worked = {pid: now[pid] - since.get(pid, 0) for pid in now}
        pid = max(worked, key=worked.__getitem__, default=0)
        return pid if worked.get(pid, 0) > ns else 0

    return int(wait_for(found))


def computed(scene: Scene) -> dict[int, int]:
    """Nanoseconds on a processor, of every worker."""
    times = {}
    for pid in scene.running.workers():
        with suppress(OSError):
            times[pid] = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    return times


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def recovered(party: Party, ending: Ending) -> Ending:
    """The ending, with the time from here until the same client has right scores."""
    start = time.monotonic()
    after = party.ask(retries=AGAIN)
    assert after.how == "right"
    return Ending(ending.how, ending.seconds, time.monotonic() - start)


@fault("SIGKILL worker mid-evaluation", "right", "worker-lost", "PeerLost")
def worker_killed(scene: Scene, number: int) -> Iterator[Ending]:
    """The worker that computes is killed, for a request and between two rounds."""
    party, waiting = scene.party("linear", SCHEMES[number % 2]), scene.party("powers", "paillier")
    server, since = party.reached(), computed(scene)
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(party.ask, server)
        kill(busiest(scene, since))
        yield recovered(party, asked.result())
    since = computed(scene)
    link = waiting.link(lambda round_: kill(busiest(scene, since)) if round_ == 2 else None)
    yield recovered(waiting, waiting.ask(link=link))


@fault("SIGKILL server mid-response", "right", "PeerLost", restarts=True)
def server_killed(scene: Scene, number: int) -> Iterator[Ending]:
    """When half of the answer has passed; without another attempt, and with attempts while it starts again."""

    def end(harm: Harm, index: int, message: bytes) -> bytes:
        if index:
            return message
        harm.done = True
        scene.running.stop(signal.SIGKILL)
        raise Cut(message[: (body_start(message) + len(message)) // 2])

    party, harm = scene.party("linear", SCHEMES[number % 2]), Harm(end, connections=1)
    with scene.relay(down=harm) as relay:
        yield party.ask(relay=relay)
    assert harm.done
    scene.running.start()
    yield party.ask()


@fault("restart between rounds", "right", "PeerLost", "busy", restarts=True)
def restarted(scene: Scene, number: int) -> Iterator[Ending]:
    """Killed and started again after the first round; or asked to stop, when it finishes the query first."""
    party = scene.party(*[("powers", "paillier"), ("deep", "ckks")][number // 2 % 2])
    done: list[int] = []

    def restart(round_: int) -> None:
        if not done:
            scene.restart()
        done.append(round_)

    if number % 2 == 0:
        yield party.ask(link=party.link(restart), retries=AGAIN)
        assert done
        return
    process = scene.running.process
    yield party.ask(link=party.link(lambda round_: process.send_signal(signal.SIGTERM) if round_ == 1 else None))
    scene.restart(signal.SIGTERM)


@fault("clock jump of a day", "right")
def clock_jump(scene: Scene, number: int) -> Iterator[Ending]:
    """The wall clock of the server's process, between two rounds and between two requests."""
    party, rounds = scene.party("linear", SCHEMES[number % 2]), scene.party("powers", "paillier")
    try:
        for jump in (DAY_S, -DAY_S):
            yield rounds.ask(link=rounds.link(lambda round_, jump=jump: _set(scene.clock, jump)))
            today = time.strftime("%a, %d %b %Y", time.gmtime())
            with scene.running.http() as http:  # the server writes its date anew once a second
                wait_for(lambda http=http, today=today: http.get("/v2").headers["date"][:16] != today)
            yield party.ask()
    finally:
        _set(scene.clock, 0)
    yield party.ask()


def _set(clock: Path, seconds: int) -> None:
    """At once: the server never reads half a number."""
    partial = clock.with_suffix(".new")
    partial.write_text(str(seconds))
    partial.replace(clock)


@fault("pool empty", "right")
def pool_empty(scene: Scene, number: int) -> Iterator[Ending]:
    """Both workers for rounds wait for clients that say nothing; and a key for which no randomness was made ahead."""
    rounds, party = scene.party("powers", "paillier"), Party(scene, "alice", "linear", "paillier")
    with (
        conversation(scene.running, rounds.client, secrets.token_hex(8)),
        conversation(scene.running, rounds.client, secrets.token_hex(8)),
    ):
        yield rounds.ask(retries=2)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(party.ask, party.reached()) for _ in range(8)]
        yield from [each.result() for each in asked]
    party.server().unregister(party.client)


@fault("memory limit hit", "right", "worker-lost")
def memory_limit(scene: Scene, number: int) -> Iterator[Ending]:
    """No byte more for any worker, and keys that none has seen."""
    party = Party(scene, "alice", "linear", SCHEMES[number % 2])
    server, workers = party.reached(), scene.running.workers()
    try:
        for pid in workers:
            _limit(pid, int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize())
        yield recovered(party, party.ask(server))
    finally:
        for pid in workers:
            _limit(pid, resource.RLIM_INFINITY)
    party.server().unregister(party.client)


def _limit(pid: int, size: int) -> None:
    with suppress(ProcessLookupError):
        resource.prlimit(pid, resource.RLIMIT_AS, (size, resource.RLIM_INFINITY))

"""A real `hepipe serve` under load from 32 clients on the same machine: rates, latencies, CPU, memory, and a page.

The clients are threads of this process; server and workers are processes of their own. Requests are encrypted before
any clock starts and stand each at its own place of a session, so that none is answered from a stored reply.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import http.client
import itertools
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# One thread a process; read by the libraries when they are imported.
os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

import hepipe
from hepipe.models.logistic import clear_scores
from hepipe.service.client import RemoteServer
from hepipe.service.inference import LENGTH_HEADER, Binding, pack_request, unpack_response
from hepipe.service.tenants import add_tenant
from hepipe.study.measure import commit, machine
from hepipe.study.named_models import named_model
from hepipe.study.serving import MIXED, Goal, Regime, figure_load, load_page, load_table

MODEL, EVERY = "chd-logistic", 10
"""Of the answers, one in so many is decrypted."""
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Size:
    """How many clients, ciphertexts of each, and requests in each regime."""

    clients: int = 32
    frames: int = 8
    counted: int = 1000
    burst: int = 200
    bursts: int = 3
    pools: int = 800
    ckks: int = 2000
    soak: int = 10_000
    idle_s: float = 120


QUICK = Size(2, 3, 8, 8, 1, 16, 20, 60, idle_s=2)


class Served:
    """The server's process, its workers, and what the system and its metrics say of them."""

    def __init__(self, folder: Path, clients: int) -> None:
        models, tokens = folder / "models", folder / "tokens.json"
        models.mkdir()
        hepipe_command = [sys.executable, "-m", "hepipe"]
        subprocess.run(
            [*hepipe_command, "export", MODEL, str(models / "chd.zip")], check=True, stdout=subprocess.DEVNULL
        )
        self.tokens = [add_tenant(tokens, f"client-{number}") for number in range(clients)]
        self.operator = add_tenant(tokens, "operator", operator=True)
        words = ["serve", str(models), "--state", str(folder / "state"), "--port", "0", "--tokens", str(tokens)]
        self.log = (folder / "log").open("wb")
        self.process = subprocess.Popen([*hepipe_command, *words], stdout=subprocess.PIPE, stderr=self.log)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    def workers(self) -> list[int]:
        """Its child processes that evaluate."""
        children = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        found = [int(pid) for each in children for pid in each.read_text().split()]
        return [pid for pid in found if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far of each party, and of the whole machine."""
        return {
            "server": _cpu(self.process.pid),
            "workers": sum(map(_cpu, self.workers())),
            "clients": _cpu(os.getpid()),
            "machine": _busy(),
        }

    def memory_mib(self) -> float:
        """Resident in server and workers."""
        pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in [self.process.pid, *self.workers()])
        return sum(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def counters(self) -> dict[str, float]:
        """Blinding factors made ahead and late, and requests answered from a stored reply."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {self.operator}"})
        found = {"ahead": 0.0, "late": 0.0, "replays": 0.0}
        for family in text_string_to_metric_families(connection.getresponse().read().decode()):
            for sample in family.samples:
                name = {"hepipe_blindings_total": sample.labels.get("made"), "hepipe_replays_total": "replays"}
                if name.get(sample.name):
                    found[str(name[sample.name])] = sample.value
        return found

    def rest(self, seconds: float) -> None:
        """Until the workers have filled their pools and take no CPU for a second, or until ``seconds`` are over."""
        end, before = time.monotonic() + seconds, -1.0
        while (now := sum(map(_cpu, self.workers()))) > before and time.monotonic() < end:
            before = now
            time.sleep(1)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def _busy() -> float:
    user, nice, system, _, _, irq, soft, *_ = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
    return (user + nice + system + irq + soft) / _TICK


@dataclass
class Outcome:
    """What the clients of a regime saw."""

    latencies_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    kept: list[tuple[Caller, int, bytes]] = field(default_factory=list)


class Caller:
    """One client under one scheme: its keys, registered, and encrypted rows."""

    def __init__(self, served: Served, token: str, scheme: str, rows: Any, scores: np.ndarray) -> None:
        self._port, self._token = served.port, token
        remote = RemoteServer(served.url, "chd", token=token)
        self._client, self._digest = remote.client(scheme), remote.plan(scheme).digest
        remote.close()
        self._key_id, self.scores = self._client.public().key_id, scores
        self._frames = [self._client.pack(self._client.encrypt(rows[i : i + 1])) for i in range(len(rows))]
        self._sha256 = [hashlib.sha256(frame).hexdigest() for frame in self._frames]
        self._session, self._seq = secrets.token_hex(16), 0
        self._http = http.client.HTTPConnection("127.0.0.1", served.port)

    def ask(self, outcome: Outcome, keep: bool) -> None:
        """One request."""
        self._seq += 1
        row = self._seq % len(self._frames)
        body, length = pack_request(self._frames[row], Binding("", self._session, self._seq))
        headers = {"Authorization": f"Bearer {self._token}", LENGTH_HEADER: str(length)}
        start = time.perf_counter()
        self._http.request("POST", "/v2/models/chd/infer", body, headers)
        answer = self._http.getresponse()
        reply = answer.read()
        outcome.latencies_ms.append(1e3 * (time.perf_counter() - start))
        if answer.status != 200:
            outcome.errors.append(reply.decode())
            return
        frame, fields = unpack_response(reply, answer.headers[LENGTH_HEADER])
        bound = {
            "key_id": self._key_id, "session": self._session, "seq": self._seq, "model_digest": self._digest,
            "request_sha256": self._sha256[row], "response_sha256": hashlib.sha256(frame).hexdigest(),
        }  # fmt: skip
        if fields["parameters"] != bound:
            outcome.errors.append(f"bound to another request: {fields['parameters']}")
        if keep:
            outcome.kept.append((self, row, frame))

    def reconnect(self) -> None:
        """A connection that idled long was closed by the server."""
        self._http.close()

    def error(self, row: int, frame: bytes) -> float:
        """The distance of a decrypted score from that in the clear."""
        return float(abs(self._client.decrypt(self._client.unpack(frame))[0, 0] - self.scores[row]))


def run(clients: Sequence[Sequence[Caller]], count: int, done: Callable[[int], None] = lambda n: None) -> Outcome:
    """``count`` requests; each client in a thread of its own, its callers in turn."""
    outcome, tickets, lock = Outcome(), itertools.count(), threading.Lock()

    def client(callers: Sequence[Caller]) -> None:
        for caller in itertools.cycle(callers):
            with lock:
                ticket = next(tickets)
            if ticket >= count:
                return
            done(ticket)
            try:
                caller.ask(outcome, ticket % EVERY == 0)
            except (OSError, http.client.HTTPException, hepipe.errors.HepipeError) as error:
                outcome.errors.append(repr(error))
                return

    threads = [threading.Thread(target=client, args=(callers,)) for callers in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcome


def regime(name: str, scheme: str, served: Served, clients: Sequence[Sequence[Caller]], count: int) -> Regime:
    """One regime measured."""
    for caller in itertools.chain.from_iterable(clients):
        caller.reconnect()
    reached, memory = [0], []
    counters, cpu, start = served.counters(), served.cpu_s(), time.perf_counter()
    with _sampled(lambda: memory.append((reached[0], served.memory_mib()))):
        outcome = run(clients, count, lambda ticket: reached.append(ticket) or reached.pop(0))
    seconds = time.perf_counter() - start
    spent = {party: after - cpu[party] for party, after in served.cpu_s().items()}
    whole = spent.pop("machine")
    made = {name: after - counters[name] for name, after in served.counters().items()}
    errors = [caller.error(row, frame) for caller, row, frame in outcome.kept]
    found = Regime(
        name, scheme, outcome.latencies_ms, seconds, len(outcome.errors), len(errors),
        max(errors, default=float("nan")),
        spent | {"others": max(whole - sum(spent.values()), 0.0)}, int(made["ahead"]), int(made["late"]),
        [*memory, (count, served.memory_mib())],
    )  # fmt: skip
    print(
        f"{name:<28} {scheme:<9} {len(found.latencies_ms):>6} requests {found.rate:7.1f}/s, p50 "
        f"{found.percentile(50):.0f} ms, p99 {found.percentile(99):.0f} ms, {found.errors} errors, "
        f"{found.ahead} of {found.ahead + found.late} blinded ahead"
    )
    for error in outcome.errors[:3]:
        print("   ", error)
    return found


@contextmanager
def _sampled(sample: Callable[[], None]) -> Iterator[None]:
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.5):
            sample()

    thread = threading.Thread(target=watch)
    sample()
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def callers(served: Served, scheme: str, size: Size, data: Any, scores: np.ndarray) -> list[list[Caller]]:
    """A caller for each client, with other rows each."""
    found = []
    for number, token in enumerate(served.tokens):
        rows = slice(number * size.frames, (number + 1) * size.frames)
        found.append([Caller(served, token, scheme, data.X[rows], scores[rows])])
    return found


def measure(served: Served, size: Size, data: Any, scores: np.ndarray) -> list[Regime]:
    """All regimes, in the order in which none has what the one before left it, but the pools."""
    start = time.perf_counter()
    paillier, ckks = (callers(served, scheme, size, data, scores) for scheme in ("paillier", "ckks"))
    print(f"keys and requests made in {time.perf_counter() - start:.0f} s")
    run(ckks, 4 * size.clients)  # both workers make their evaluators
    run(paillier, 4 * size.clients)
    found = [regime("Paillier, counted", "paillier", served, paillier, size.counted)]
    served.rest(size.idle_s)
    found += [
        regime(f"Paillier, burst {number + 1} from pools", "paillier", served, paillier, size.burst)
        for number in range(size.bursts)
    ]
    served.rest(size.idle_s)
    found.append(regime("Paillier, from pools", "paillier", served, paillier, size.pools))
    found.append(regime("CKKS", "ckks", served, ckks, size.ckks))
    both = [[*one, *other] for one, other in zip(paillier, ckks, strict=True)]
    return [*found, regime("soak", MIXED, served, both, size.soak)]


def goals(regimes: Sequence[Regime]) -> list[Goal]:
    """What issue and papers promise of these regimes."""
    by = {each.name: each for each in regimes}
    bursts = [each for each in regimes if "burst" in each.name]
    pools, counted, ckks, soak = (by[name] for name in ("Paillier, from pools", "Paillier, counted", "CKKS", "soak"))
    return [
        Goal("Paillier online, predictions a second", 40, pools.rate, least=True),
        Goal("Paillier with everything counted, predictions a second", 40, counted.rate, least=True),
        Goal("CKKS, predictions a second", 60, ckks.rate, least=True),
        Goal("Paillier online, p99 ms", 500, pools.percentile(99), least=False),
        Goal("CKKS, p99 ms", 1000, ckks.percentile(99), least=False),
        Goal("bursts, blinding factors drawn late", 0, sum(each.late for each in bursts), least=False),
        Goal("soak, growth of memory after warm-up, %", 5, 100 * soak.growth, least=False),
        Goal("errors in all regimes", 0, sum(each.errors for each in regimes), least=False),
    ]  # fmt: skip


def alone(data: Any) -> tuple[float, float]:
    """CPU ms of a prediction from a filled pool and of one blinding factor, in this process."""
    model = named_model(MODEL)
    client = hepipe.Client(hepipe.plan(model, "paillier", 64))
    server = hepipe.Server(model, client.public())
    request, count = client.pack(client.encrypt(data.X[:1])), 20
    marks = [time.process_time()]
    server.fill(count)
    marks.append(time.process_time())
    for _ in range(count):
        server.pack(server.evaluate(server.unpack(request)))
    marks.append(time.process_time())
    return 1e3 * (marks[2] - marks[1]) / count, 1e3 * (marks[1] - marks[0]) / count


def write(out: Path, record: dict[str, Any], regimes: Sequence[Regime]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    table, kept = load_table(regimes, record["machine"]["cores"]), goals(regimes)
    memory = {each.name: each.memory for each in regimes}
    rows = json.loads(table.to_json(orient="records"))
    promised = [vars(goal) | {"met": goal.met} for goal in kept]
    text = json.dumps(record | {"goals": promised, "regimes": rows, "memory": memory}, indent=1)
    (out / "load.json").write_text(text + "\n")
    table.to_csv(out / "table.csv", index=False)
    (out / "load.png").write_bytes(figure_load(regimes).png())
    (out / "README.md").write_text(load_page(record, table, kept))
    for goal in kept:
        print(f"{'met ' if goal.met else 'NOT met '} {goal.what}: {goal.measured:.4g}, goal {goal.goal:g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few clients and requests, for tests")
    parser.add_argument("--out", type=Path, default=Path("results/full/load"))
    given = parser.parse_args()
    size, data, model = QUICK if given.quick else Size(), hepipe.load("chd"), named_model(MODEL)
    online_ms, power_ms = alone(data)
    with tempfile.TemporaryDirectory() as folder:
        served = Served(Path(folder), size.clients)
        try:
            regimes = measure(served, size, data, clear_scores(model, data.X)[:, 0])
            replays = int(served.counters()["replays"])
        finally:
            served.stop()
    record = {
        "command": "make load" if not given.quick else "benchmarks/load.py --quick",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": commit(), "machine": machine(), "clients": size.clients, "columns": data.X.shape[1],
        "data": f"{data.source}{' (synthetic)' if data.synthetic else ''}, sha256 {data.sha256[:12]}",
        "replays": replays, "online_ms": online_ms, "power_ms": power_ms,
    }  # fmt: skip
    write(given.out, record, regimes)


if __name__ == "__main__":
    main()

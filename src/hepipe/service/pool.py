"""Worker processes: started by spawn, one job at a time each, killed when late, replaced when gone.

Of the workers that are free, a job gets the one that has most ready for its key.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from hepipe.errors import HepipeError, PeerLost
from hepipe.protocol.pipe import ROUNDS, Channel
from hepipe.schemes.frames import Kind, kind_of
from hepipe.service import worker
from hepipe.service.evaluators import Name
from hepipe.service.problems import Refused, worker_error

T = TypeVar("T")
Conversation = Callable[[Channel], Generator[bytes, bytes, T | HepipeError]]
"""What is said to a worker, in steps that run in a thread: yields a round for the client, is sent the answer."""
Ask = Callable[[bytes], Awaitable[bytes]]
_SPAWN = multiprocessing.get_context("spawn")
_MARGIN_S = 5.0
_NOTED = 4096
"""Keys of which the server remembers what a worker has ready for them; more than a worker keeps."""


async def no_rounds(frame: bytes) -> bytes:
    """For conversations without a client."""
    raise PeerLost("a worker asks for a round where there is no client to answer")


@dataclass(frozen=True)
class Evaluated:
    """A result, and where its blinding factors came from.

    ready  how many the worker had left for this key
    ahead  were made ahead for this evaluation, late: while it waited
    """

    frame: bytes
    ready: int
    ahead: int
    late: int


class WorkerProcess:
    """One process and the server's end of its pipe."""

    def __init__(self, round_s: float, allow_insecure: bool) -> None:
        ours, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=worker.run, args=(theirs, round_s, allow_insecure), daemon=True)
        self.process.start()
        theirs.close()
        self.channel = Channel(ours, worker.IDLE_S)
        self._ready: OrderedDict[Name, int] = OrderedDict()

    def note(self, name: Name, ready: int) -> None:
        """Remember that it has an evaluator of this name, with so many blinding factors."""
        self._ready[name] = ready
        self._ready.move_to_end(name)
        while len(self._ready) > _NOTED:
            self._ready.popitem(last=False)

    def ready(self, name: Name | None) -> int:
        """What it had for this name when last used; -1 without an evaluator. It may have dropped or filled it since."""
        return -1 if name is None else self._ready.get(name, -1)

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self.process.is_alive()

    def kill(self) -> None:
        """End it at once; whoever waits for it gets PeerLost."""
        self.process.kill()
        self.channel.abort()
        self.process.join()


class Pool:
    """At most ``size`` workers. A job that fails with its worker fails alone: the next one gets a new process."""

    def __init__(self, size: int, round_s: float, allow_insecure: bool) -> None:
        self._size, self._round_s, self._allow_insecure = size, round_s + _MARGIN_S, allow_insecure
        self._free = asyncio.Semaphore(size)
        self._idle: list[WorkerProcess] = []
        self._busy: set[WorkerProcess] = set()
        self._all: set[WorkerProcess] = set()
        self._threads = ThreadPoolExecutor(size, "hepipe-worker")
        self._lock = threading.Lock()
        self._closed = False
        self.started = 0

    async def start(self, seconds: float) -> None:
        """Have one worker ready, so that the first request does not wait for it."""
        await self.run(_without_rounds(_greet), seconds)

    async def run(
        self, conversation: Conversation[T], seconds: float, ask: Ask = no_rounds, name: Name | None = None
    ) -> T:
        """What ``conversation`` returns, with a worker of its own for as long as it lasts; an error of it is raised.

        ``name`` is the evaluator that it will want: of the free workers, the one with most ready for it is taken.
        Refused (503) after ``seconds``, waiting for a worker included, or if the worker is gone. Then, and whenever a
        conversation does not come to its end, the worker is killed.
        """
        try:
            async with asyncio.timeout(seconds), self._worker(name) as one:
                result = await self._driven(conversation(one.channel), one, ask)
                if name is not None and isinstance(result, Evaluated):
                    one.note(name, result.ready)
        except TimeoutError as error:
            raise Refused("deadline", f"not done within {seconds:g} s: ask again, or with fewer rows", 1) from error
        except PeerLost as error:
            raise Refused.of(error) from error
        if isinstance(result, HepipeError):
            raise result
        return cast(T, result)

    async def _driven(self, steps: Generator[bytes, bytes, T | HepipeError], one: WorkerProcess, ask: Ask) -> Any:
        step = await self._in_thread(partial(_step, steps, None), one)
        while step.round is not None:
            answer = await self._watched(ask(step.round), one)
            step = await self._in_thread(partial(_step, steps, answer), one)
        return step.result

    async def _in_thread(self, step: Callable[[], T], one: WorkerProcess) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._threads, step)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            self._end(one)  # wakes the thread, whose error nobody wants
            future.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            await asyncio.wait([future], timeout=_MARGIN_S)
            raise

    async def _watched(self, answer: Awaitable[bytes], one: WorkerProcess) -> bytes:
        """The client's answer; PeerLost as soon as the worker that waits for it is gone."""
        loop, gone, sentinel = asyncio.get_running_loop(), asyncio.Event(), one.process.sentinel
        tasks = [asyncio.ensure_future(answer), asyncio.ensure_future(gone.wait())]
        loop.add_reader(sentinel, gone.set)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not tasks[0].done():
                raise PeerLost("the worker ended while it waited for a round")
            return cast(bytes, tasks[0].result())
        finally:
            loop.remove_reader(sentinel)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @asynccontextmanager
    async def _worker(self, name: Name | None) -> AsyncIterator[WorkerProcess]:
        async with self._free:
            # Among equals the one that has been idle longest: it had most time to fill its pools.
            one = max(self._idle, key=lambda each: each.ready(name), default=None)
            if one is not None:
                self._idle.remove(one)
            if one is not None and not one.alive:
                self._end(one)
                one = None
            one = one or await self._fresh()
            self._busy.add(one)
            try:
                yield one
            except BaseException:
                self._end(one)
                raise
            finally:
                self._busy.discard(one)
                if one.alive:
                    self._idle.append(one)

    def _end(self, one: WorkerProcess) -> None:
        one.kill()
        with self._lock:
            self._all.discard(one)

    async def _fresh(self) -> WorkerProcess:
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._new)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            future.add_done_callback(self._keep)
            raise

    def _keep(self, made: asyncio.Future[WorkerProcess]) -> None:
        """A worker that came too late for one request is there for the next."""
        if made.exception() is None:
            self._idle.append(made.result())

    def _new(self) -> WorkerProcess:
        """A worker that has started: a deadline that passes meanwhile does not end it, or none would ever be there."""
        one = WorkerProcess(self._round_s, self._allow_insecure)
        with self._lock:
            self.started += 1
            self._all.add(one)
            closed = self._closed
        if closed:  # while this one was starting
            one.kill()
        try:
            _greet(one.channel)
        except HepipeError:
            self._end(one)
            raise
        return one

    def close(self) -> None:
        """End all workers, also one that is being started. They ignore SIGTERM, so a server's exit waits for this."""
        with self._lock:
            self._closed, workers = True, list(self._all)
        for one in workers:
            one.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(frozen=True)
class _Step:
    """How far a conversation came: to a round, or to its end."""

    round: bytes | None = None
    result: Any = None


def _step(steps: Generator[bytes, bytes, Any], answer: bytes | None) -> _Step:
    try:
        return _Step(next(steps) if answer is None else steps.send(answer))
    except StopIteration as end:
        return _Step(result=end.value)


def _without_rounds(talk: Callable[[Channel], T | HepipeError]) -> Conversation[T]:
    def steps(channel: Channel) -> Generator[bytes, bytes, T | HepipeError]:
        yield from ()
        return talk(channel)

    return steps


def _greet(channel: Channel) -> bytes:
    channel.send(b'{"task": "greet"}')
    return channel.receive()


def check_key(data: bytes) -> Conversation[dict[str, Any]]:
    """The conversation that checks an upload: its key_id, or the worker's error."""

    def talk(channel: Channel) -> dict[str, Any] | HepipeError:
        channel.send(b'{"task": "check"}')
        channel.send(data)
        fields: dict[str, Any] = json.loads(channel.receive())
        return worker_error(fields["error"], fields["detail"]) if "error" in fields else fields

    return _without_rounds(talk)


def evaluate(job: dict[str, Any], bundle: bytes, frame: bytes) -> Conversation[Evaluated]:
    """The conversation that evaluates: the result, or the worker's error."""

    def talk(channel: Channel) -> Generator[bytes, bytes, Evaluated | HepipeError]:
        stock = {"ready": 0, "ahead": 0, "late": 0}
        channel.send(json.dumps(job | {"task": "evaluate"}).encode())
        channel.send(frame)
        while kind_of(message := channel.receive()) != Kind.TENSOR:
            if message == worker.NEED_MODEL:
                channel.send(bundle)
            elif kind_of(message) in ROUNDS:
                channel.send((yield message))
            else:
                fields = json.loads(message)
                if "error" in fields:
                    return worker_error(fields["error"], fields["detail"])
                stock = {name: int(fields[name]) for name in stock}
        return Evaluated(message, **stock)

    return talk

"""Worker processes: started by spawn, one job at a time each, killed when late, replaced when gone."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from hepipe.errors import HepipeError, PeerLost
from hepipe.protocol.pipe import ROUNDS, Channel
from hepipe.schemes.frames import Kind, kind_of
from hepipe.service import worker
from hepipe.service.problems import Refused, worker_error

T = TypeVar("T")
_SPAWN = multiprocessing.get_context("spawn")
_MARGIN_S = 5.0


class WorkerProcess:
    """One process and the server's end of its pipe."""

    def __init__(self, round_s: float, allow_insecure: bool) -> None:
        ours, theirs = _SPAWN.Pipe()
        self.process = _SPAWN.Process(target=worker.run, args=(theirs, round_s, allow_insecure), daemon=True)
        self.process.start()
        theirs.close()
        self.channel = Channel(ours, worker.IDLE_S)

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
        self._threads = ThreadPoolExecutor(size, "hepipe-worker")
        self._lock = threading.Lock()
        self.started = 0

    async def start(self, seconds: float) -> None:
        """Have one worker ready, so that the first request does not wait for it."""
        await self.run(_greet, seconds)

    async def run(self, conversation: Callable[[Channel], T | HepipeError], seconds: float) -> T:
        """What ``conversation`` returns, with a worker of its own for as long as it lasts; an error of it is raised.

        It runs in a thread. Refused (503) after ``seconds``, waiting for a worker included, or if the worker is gone.
        Then, and whenever a conversation does not come to its end, the worker is killed.
        """
        try:
            async with asyncio.timeout(seconds), self._worker() as one:
                result = await self._in_thread(conversation, one)
        except TimeoutError as error:
            raise Refused("deadline", f"not done within {seconds:g} s: ask again, or with fewer rows", 1) from error
        except PeerLost as error:
            raise Refused.of(error) from error
        if isinstance(result, HepipeError):
            raise result
        return result

    async def _in_thread(self, conversation: Callable[[Channel], T], one: WorkerProcess) -> T:
        future = asyncio.get_running_loop().run_in_executor(self._threads, conversation, one.channel)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            one.kill()  # wakes the thread
            await asyncio.wait([future], timeout=_MARGIN_S)
            raise

    @asynccontextmanager
    async def _worker(self) -> AsyncIterator[WorkerProcess]:
        async with self._free:
            one = self._idle.pop() if self._idle else None
            if one is None or not one.alive:
                one = await asyncio.get_running_loop().run_in_executor(self._threads, self._new)
            self._busy.add(one)
            try:
                yield one
            except BaseException:
                one.kill()
                raise
            finally:
                self._busy.discard(one)
                if one.alive:
                    self._idle.append(one)

    def _new(self) -> WorkerProcess:
        with self._lock:
            self.started += 1
        return WorkerProcess(self._round_s, self._allow_insecure)

    def close(self) -> None:
        """End all workers."""
        for one in [*self._idle, *self._busy]:
            one.kill()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _greet(channel: Channel) -> bytes:
    channel.send(b'{"task": "greet"}')
    return channel.receive()


def check_key(data: bytes) -> Callable[[Channel], dict[str, Any] | HepipeError]:
    """The conversation that checks an upload: its key_id, scheme and parameters, or the worker's error."""

    def talk(channel: Channel) -> dict[str, Any] | HepipeError:
        channel.send(b'{"task": "check"}')
        channel.send(data)
        fields: dict[str, Any] = json.loads(channel.receive())
        return worker_error(fields["error"], fields["detail"]) if "error" in fields else fields

    return talk


def evaluate(
    job: dict[str, Any], bundle: bytes, frame: bytes, ask: Callable[[bytes], bytes]
) -> Callable[[Channel], bytes | HepipeError]:
    """The conversation that evaluates: the frame of the result, or the worker's error.

    ask  takes a round to the client and returns the answer
    """

    def talk(channel: Channel) -> bytes | HepipeError:
        channel.send(json.dumps(job | {"task": "evaluate"}).encode())
        channel.send(frame)
        while kind_of(message := channel.receive()) != Kind.TENSOR:
            if message == worker.NEED_MODEL:
                channel.send(bundle)
            elif kind_of(message) in ROUNDS:
                channel.send(ask(message))
            else:
                fields = json.loads(message)
                return worker_error(fields["error"], fields["detail"])
        return message

    return talk

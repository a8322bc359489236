"""Workers in this process's hands: late ones are killed, dead ones replaced, and nobody waits for them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from hepipe.errors import MalformedFrame, PeerLost
from hepipe.protocol.pipe import Channel
from hepipe.service import worker
from hepipe.service.pool import Pool, check_key
from hepipe.service.problems import Refused


def with_pool(use: Callable[[Pool], Coroutine[Any, Any, None]], size: int = 1) -> None:
    async def inside() -> None:
        pool = Pool(size, 5.0, True)
        try:
            await pool.start(120)
            await use(pool)
            late = asyncio.create_task(pool.run(asking, 600, never))
            await asyncio.sleep(0)  # it may be starting a process
        finally:
            pool.close()
            late.cancel()
            pool._threads.shutdown(wait=True)
            assert multiprocessing.active_children() == []  # one left would keep its parent from ending

    asyncio.run(inside())


def deaf(channel: Any) -> Generator[bytes, bytes, bytes]:
    """Waits for a worker that was told nothing."""
    yield from ()
    return channel.receive()


def asking(channel: Any) -> Generator[bytes, bytes, bytes]:
    """A round, then its answer."""
    return (yield b"round")


async def never(frame: bytes) -> bytes:
    await asyncio.sleep(600)
    return b""


def test_late_dead_and_lost_workers_cost_one_job_each() -> None:
    async def use(pool: Pool) -> None:
        assert pool.started == 1
        with pytest.raises(Refused) as late:
            await pool.run(deaf, 0.3)
        assert late.value.kind == "deadline"
        with pytest.raises(MalformedFrame):  # a worker's own error is no reason to end it
            await pool.run(check_key(b"no key"), 120)
        assert pool.started == 2
        assert pool._idle[0].alive
        os.kill(pool._idle[0].process.pid or 0, signal.SIGKILL)
        pool._idle[0].process.join()
        with pytest.raises(MalformedFrame):
            await pool.run(check_key(b"no key"), 120)
        assert pool.started == 3

        pool._idle.pop().kill()
        with pytest.raises(Refused):  # not even the start of a process fits into this deadline
            await pool.run(asking, 0.001, never)
        while not pool._idle:
            await asyncio.sleep(0.02)
        assert pool.started == 4  # the process is there for the next one

        async def killed(frame: bytes) -> bytes:
            (one,) = pool._busy
            os.kill(one.process.pid or 0, signal.SIGKILL)
            return await never(frame)

        with pytest.raises(Refused) as lost:
            await pool.run(asking, 120, killed)
        assert lost.value.kind == "worker-lost"
        assert (pool._idle, pool._busy) == ([], set())

    with_pool(use)


def test_a_caller_that_is_gone_frees_its_worker_and_a_second_one_waits_its_turn() -> None:
    async def use(pool: Pool) -> None:
        waits = asyncio.create_task(pool.run(asking, 600, never))
        await asyncio.sleep(0.05)
        with pytest.raises(Refused) as late:
            await pool.run(asking, 0.2, never)
        assert late.value.kind == "deadline"
        assert len(pool._busy) == 1  # the one that runs was left alone
        waits.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert pool._busy == set()

        async def reply(frame: bytes) -> bytes:
            return frame + b" answered"

        assert await pool.run(asking, 120, reply) == b"round answered"
        with pytest.raises(Refused):
            await pool.run(asking, 120)  # a round where nobody answers

    with_pool(use)


def unable_to_end(connection: Any) -> None:
    """A worker in a process whose interpreter waits for something that will not come, as without memory it may."""
    threading.Thread(target=threading.Event().wait).start()
    worker.run(connection, 5.0, True)


def test_a_worker_with_an_error_of_none_of_ours_is_gone_at_once() -> None:
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=unable_to_end, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    channel = Channel(ours, 120)
    channel.send(b"no JSON")
    with pytest.raises(PeerLost):
        channel.receive()
    process.join(30)
    try:
        assert not process.is_alive()
    finally:
        process.kill()


def whose(channel: Any) -> Generator[bytes, bytes, Any]:
    """The channel of the worker that got the job."""
    yield from ()
    return channel


def test_of_the_free_workers_a_job_gets_the_one_with_most_ready_for_its_key() -> None:
    a, b, unknown = ("model", "key a"), ("model", "key b"), ("model", "key c")

    async def use(pool: Pool) -> None:
        asked = asyncio.Event()

        async def held(frame: bytes) -> bytes:
            await asked.wait()
            return frame

        both = [asyncio.create_task(pool.run(asking, 120, held)) for _ in range(2)]
        while len(pool._busy) < 2:
            await asyncio.sleep(0.02)
        asked.set()
        await asyncio.gather(*both)
        first, last = pool._idle
        first.note(a, 3)
        last.note(a, 1)
        last.note(b, 0)
        assert await pool.run(whose, 120, name=a) is first.channel
        assert await pool.run(whose, 120, name=b) is last.channel
        assert await pool.run(whose, 120, name=unknown) is first.channel  # among equals the one idle longest
        first.note(a, 0)
        assert await pool.run(whose, 120, name=a) is last.channel

        waits = asyncio.create_task(pool.run(asking, 120, never, name=a))
        while not pool._busy:
            await asyncio.sleep(0.02)
        assert await pool.run(whose, 120, name=b) is first.channel  # the better one is busy: a free one is better
        waits.cancel()
        assert (await asyncio.gather(waits, return_exceptions=True)) != [None]
        for _ in range(2):  # whatever is noted of it, a dead one gets no job
            for one in pool._idle:
                one.note(a, 9)
                os.kill(one.process.pid or 0, signal.SIGKILL)
                one.process.join()
            assert isinstance(await pool.run(whose, 120, name=a), Channel)

    with_pool(use, size=2)


def test_a_server_remembers_the_latest_keys_of_a_worker_only() -> None:
    async def use(pool: Pool) -> None:
        (one,) = pool._idle
        for number in range(5000):
            one.note(("model", str(number)), number)
        assert (one.ready(("model", "4999")), one.ready(("model", "0")), one.ready(None)) == (4999, -1, -1)

    with_pool(use)

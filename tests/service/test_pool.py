"""Workers in this process's hands: late ones are killed, dead ones replaced, and nobody waits for them."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import pytest

from hepipe.errors import MalformedFrame
from hepipe.service.pool import Pool, check_key
from hepipe.service.problems import Refused


def with_pool(use: Callable[[Pool], Coroutine[Any, Any, None]]) -> None:
    async def inside() -> None:
        pool = Pool(1, 5.0, True)
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

"""Workers are kept at their number, and stopped without being cut off."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gateway import worker_pool
from gateway.embedded.spawn import command_of
from gateway.worker_pool import WorkerFailedError, WorkerPool
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FAKE = Path(__file__).parents[1] / "support" / "fake_worker.py"


def pool_of(count: int, kind: str = "good", shutdown_deadline_s: float = 5) -> WorkerPool:
    command = (sys.executable, "-S", str(FAKE), kind)
    return WorkerPool(count, shutdown_deadline_s=shutdown_deadline_s, command=command)


@contextlib.asynccontextmanager
async def kept(pool: WorkerPool) -> AsyncIterator[None]:
    keeper = asyncio.create_task(pool.keep())
    try:
        yield
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])
        await pool.stop()


async def started(pool: WorkerPool) -> None:
    await pool.spawn()
    await pool.run({"gateway": {"workers": 2}, "pepper": "00"})


async def test_all_workers_are_ready_when_run_returns_and_gone_after_stop() -> None:
    pool = pool_of(2)
    await started(pool)
    pids = pool.pids
    assert len(set(pids)) == 2
    await pool.stop()
    assert [command_of(pid) for pid in pids] == ["", ""]
    assert [worker.process.returncode for worker in pool.workers if worker.process] == [0, 0]


async def test_a_killed_worker_is_replaced_and_the_others_stay() -> None:
    pool = pool_of(2)
    changes: list[list[int]] = []
    pool.on_change(lambda: changes.append(pool.pids))
    await started(pool)
    async with kept(pool):
        doomed, other = pool.pids
        os.kill(doomed, signal.SIGKILL)
        await eventually(lambda: len(pool.pids) == 2 and doomed not in pool.pids)
        assert other in pool.pids
        assert [worker.restarts for worker in pool.workers] == [1, 0]
        assert changes[-1] == pool.pids


async def test_a_worker_that_keeps_dying_is_tried_again_with_growing_pauses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def noted(delay_s: float) -> None:
        pauses.append(delay_s)
        await sleep(0)

    pool = pool_of(1)
    await started(pool)
    pool._command = (sys.executable, "-S", str(FAKE), "broken")
    monkeypatch.setattr(worker_pool.asyncio, "sleep", noted)
    async with kept(pool):
        os.kill(pool.pids[0], signal.SIGKILL)
        async with asyncio.timeout(20):
            while len(pauses) < 7:
                await sleep(0.01)
        monkeypatch.undo()
    assert pauses[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]


async def test_a_worker_that_can_not_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of(2)
    await started(pool)
    start, failures = pool._start, iter((errno.EAGAIN, errno.ENOMEM))

    async def failing() -> asyncio.subprocess.Process:
        if failure := next(failures, None):
            raise OSError(failure, os.strerror(failure))
        return await start()

    monkeypatch.setattr(pool, "_start", failing)
    async with kept(pool):
        doomed, other = pool.pids
        os.kill(doomed, signal.SIGKILL)
        await eventually(lambda: len(pool.pids) == 2 and doomed not in pool.pids)
        assert other in pool.pids
        assert pool.workers[0].restarts == 3
        assert caplog.text.count("worker 0 could not be replaced") == 2


async def test_a_worker_whose_output_is_no_line_is_killed_and_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_pool, "LINE_BYTES_MAX", 1_024)
    pool = pool_of(1)
    await started(pool)
    good = pool._command
    endless = "import sys; sys.stdout.write('x' * 4096); sys.stdout.flush(); sys.stdin.read()"
    pool._command = (sys.executable, "-S", "-c", endless)
    async with kept(pool):
        doomed = pool.pids[0]
        os.kill(doomed, signal.SIGKILL)
        await eventually(lambda: pool.workers[0].restarts >= 2)
        pool._command = good
        await eventually(lambda: pool.pids and doomed not in pool.pids)


async def test_workers_are_replaced_though_nobody_can_be_told() -> None:
    pool = pool_of(1)
    await started(pool)

    def full_disk() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    pool.on_change(full_disk)
    async with kept(pool):
        [doomed] = pool.pids
        os.kill(doomed, signal.SIGKILL)
        await eventually(lambda: pool.pids and doomed not in pool.pids)
        assert pool.workers[0].restarts == 1


async def test_a_worker_that_fails_at_the_start_is_one_clear_line() -> None:
    pool = pool_of(1, "broken")
    await pool.spawn()
    with pytest.raises(WorkerFailedError, match="worker 0 does not start: it ended with status 3"):
        await pool.run({})
    await pool.stop()


async def test_a_worker_that_never_gets_ready_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_pool, "READY_DEADLINE_S", 0.2)
    pool = pool_of(1, "silent")
    await pool.spawn()
    with pytest.raises(WorkerFailedError, match="is not ready after"):
        await pool.run({})
    await pool.stop()


async def test_a_worker_that_ignores_its_deadline_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker_pool, "STOP_GRACE_S", 0)
    pool = pool_of(1, "deaf", shutdown_deadline_s=0.2)
    await started(pool)
    await pool.stop()
    assert [worker.process.returncode for worker in pool.workers if worker.process] == [-9]


async def test_workers_see_the_end_of_their_input_when_we_die() -> None:
    script = (
        "import asyncio, sys\n"
        "from gateway.worker_pool import WorkerPool\n"
        "async def main():\n"
        "    pool = WorkerPool(1, shutdown_deadline_s=1, command=(sys.executable, *sys.argv[1:]))\n"
        "    await pool.spawn(); await pool.run({})\n"
        "    print(*pool.pids, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    supervisor = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(FAKE), "good", stdout=asyncio.subprocess.PIPE
    )
    assert supervisor.stdout is not None
    pid = int(await supervisor.stdout.readline())
    supervisor.kill()
    await supervisor.wait()
    await eventually(lambda: not command_of(pid))

"""The worker processes of one node: started, replaced when they die, stopped without losing a call.

A worker is `python -m gateway.worker`. It reads one line of JSON (its settings) from standard
input, writes `{"event": "ready", "pid": ...}` to standard output once it accepts connections, and
takes the end of its standard input as the news that we died. SIGTERM makes it finish its calls,
settle, flush and exit 0. All workers listen on the same port; the kernel spreads connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WORKER_COMMAND = (sys.executable, "-m", "gateway.worker")
READY_DEADLINE_S = 30.0
RESTART_DELAY_MIN_S = 0.1
RESTART_DELAY_MAX_S = 5.0
HEALTHY_AFTER_S = 10.0  # a worker that lived so long starts its successor's delay anew
# What a worker may take to stop, beyond its own deadline for running calls. It keeps to these.
CUT_CALLS_S = 3.0  # the calls that it cut then settle
FLUSH_DEADLINE_S = 5.0  # each: Redis is told what it missed, and Postgres
CLOSE_S = 2.0  # connections close, the process ends
STOP_GRACE_S = CUT_CALLS_S + 2 * FLUSH_DEADLINE_S + CLOSE_S
LINE_BYTES_MAX = 1 << 20

log = logging.getLogger("tollkeeper.workers")


class WorkerFailedError(Exception):
    """A worker ended before it was ready; the reason is one line for a person."""


@dataclass(slots=True)
class Worker:
    """One place in the pool: the process that fills it now."""

    index: int
    process: asyncio.subprocess.Process | None = None
    ready: bool = False
    restarts: int = 0

    @property
    def pid(self) -> int | None:
        """The process id, None while nobody fills the place."""
        return self.process.pid if self.process else None


class WorkerPool:
    """N workers, kept at N until `stop`.

    `spawn` starts the processes, which then load their code while servers still start; `run` gives
    them their settings and waits until all are ready; `keep` replaces those that die.
    """

    def __init__(
        self,
        count: int,
        *,
        shutdown_deadline_s: float,
        command: Sequence[str] = WORKER_COMMAND,
    ) -> None:
        self._workers = [Worker(index) for index in range(count)]
        self._shutdown_deadline_s = shutdown_deadline_s
        self._command = command
        self._changed: Callable[[], None] | None = None
        self._settings: dict[str, Any] = {}

    @property
    def workers(self) -> Sequence[Worker]:
        """The places of the pool, in order."""
        return self._workers

    @property
    def pids(self) -> list[int]:
        """The process ids of the workers that are ready."""
        return [worker.process.pid for worker in self._workers if worker.process and worker.ready]

    def on_change(self, changed: Callable[[], None] | None) -> None:
        """Calls back whenever a worker has come or gone."""
        self._changed = changed

    async def spawn(self) -> None:
        """Starts the processes without settings; they serve nothing yet."""
        for worker in self._workers:
            worker.process = await self._start()

    async def run(self, settings: dict[str, Any]) -> None:
        """Gives every worker its settings and waits until all accept connections.

        Raises: WorkerFailedError when one does not.
        """
        self._settings = settings
        await asyncio.gather(*map(self._prepare, self._workers))

    async def keep(self) -> None:
        """Replaces workers that end, for ever."""
        async with asyncio.TaskGroup() as group:
            for worker in self._workers:
                group.create_task(self._keep_one(worker))

    async def stop(self) -> None:
        """Lets running calls end, then the processes; kills only what ignores its own deadline."""
        processes = [worker.process for worker in self._workers if worker.process]
        for process in processes:
            _signal(process, signal.SIGTERM)
        await asyncio.gather(*map(self._wait_or_kill, processes))

    async def _keep_one(self, worker: Worker) -> None:
        loop = asyncio.get_running_loop()
        delay_s = RESTART_DELAY_MIN_S
        while True:
            started = loop.time()
            if worker.process is not None:
                status = await self._drain(worker.process)
                worker.process, worker.ready = None, False
                self._tell_change()
                log.warning(
                    "worker %d ended with status %s: starting another", worker.index, status
                )
            if loop.time() - started > HEALTHY_AFTER_S:
                delay_s = RESTART_DELAY_MIN_S
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RESTART_DELAY_MAX_S)
            worker.restarts += 1
            try:
                worker.process = await self._start()
                await self._prepare(worker)
            except WorkerFailedError as error:
                log.warning("%s", error)
            except Exception:
                # No memory, no process to be had, output that is no line: it may pass.
                log.exception("worker %d could not be replaced: trying again", worker.index)
                if worker.process is not None:
                    _signal(worker.process, signal.SIGKILL)

    async def _start(self) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            start_new_session=True,  # Ctrl-C in a terminal is for us; we tell them in our order
        )

    async def _prepare(self, worker: Worker) -> None:
        process = worker.process
        if process is None or process.stdin is None or process.stdout is None:
            raise WorkerFailedError(f"worker {worker.index} was not started")
        settings = json.dumps({**self._settings, "index": worker.index})
        with contextlib.suppress(ConnectionError):
            process.stdin.write(settings.encode() + b"\n")
            await process.stdin.drain()
        try:
            async with asyncio.timeout(READY_DEADLINE_S):
                event = await _next_event(process.stdout)
        except TimeoutError:
            _signal(process, signal.SIGKILL)
            raise WorkerFailedError(
                f"worker {worker.index} is not ready after {READY_DEADLINE_S:.0f} s"
            ) from None
        if event.get("event") != "ready":
            status = await process.wait()
            reason = event.get("message") or f"it ended with status {status}, see its log above"
            raise WorkerFailedError(f"worker {worker.index} does not start: {reason}")
        worker.ready = True
        self._tell_change()

    def _tell_change(self) -> None:
        if self._changed is not None:
            try:
                self._changed()
            except Exception:
                # Such as a full disk. The workers do not depend on being known of.
                log.exception("the workers that run now could not be made known")

    async def _drain(self, process: asyncio.subprocess.Process) -> int:
        """Waits for the end, reading whatever it still prints so that it never blocks on us."""
        if process.stdout is not None:
            while await process.stdout.read(LINE_BYTES_MAX):
                pass
        return await process.wait()

    async def _wait_or_kill(self, process: asyncio.subprocess.Process) -> None:
        try:
            async with asyncio.timeout(self._shutdown_deadline_s + STOP_GRACE_S):
                await self._drain(process)
        except TimeoutError:
            log.warning("worker process %d did not stop in time: killed", process.pid)
            _signal(process, signal.SIGKILL)
            await process.wait()


async def _next_event(stream: asyncio.StreamReader) -> dict[str, Any]:
    """The next line that is a JSON object; {} at the end of the output."""
    while line := await stream.readline():
        with contextlib.suppress(ValueError):
            event = json.loads(line)
            if isinstance(event, dict):
                return event
    return {}


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)

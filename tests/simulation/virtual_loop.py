"""An event loop without I/O, whose clock is a number: what the product's coroutines run on here.

The real components run unchanged. They await futures that the simulation completes, one atomic step
at a time, and timers that fire when the simulation moves the clock; between two steps everything
that can run has run (`drain`). So a schedule is a sequence of the simulation's choices, and nothing
else.

Every callback belongs to a `Process`, found in its context: a dead process' callbacks are dropped,
as a killed process' are, without a chance to clean up; a paused one's wait.
"""

from __future__ import annotations

import asyncio
import heapq
import traceback
from collections import deque
from contextvars import ContextVar, copy_context
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from contextvars import Context

T = TypeVar("T")

# Callbacks that one step may set off; more is a loop that spins without ever waiting.
CALLBACKS_MAX = 200_000


class Process:
    """Something that can die, stop for a while, and have a wrong clock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.paused = False
        self.clock_offset_ms = 0
        self.waiting: list[asyncio.Handle] = []  # while paused
        self.tasks: list[asyncio.Task[Any]] = []  # kept for ever: collecting them would run code

    @property
    def runs(self) -> bool:
        return self.alive and not self.paused

    def __repr__(self) -> str:
        return self.name


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class Spinning(Exception):  # noqa: N818 -- named for what is the case
    """Callbacks without end, none of which waits for anything."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """`drain` runs all that is ready; `advance_to` moves the clock and makes timers ready."""

    def __init__(self, start_us: int) -> None:
        self.now_us = start_us
        self._start_us = start_us
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._made = 0
        self.problems: list[str] = []

    # What coroutines and futures ask of a loop.

    def time(self) -> float:
        """Seconds since the simulation began, plus 1000: never 0, and exact enough for 1 µs."""
        return 1000 + (self.now_us - self._start_us) / 1_000_000

    def call_soon(
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heapq.heappush(self._timers, (when, self._made, handle))
        return handle

    def call_later(
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            process.tasks.append(task)
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.problems.append(f"{context.get('message')}: {error!r}")

    # What the simulation does with it.

    def spawn(self, process: Process, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start a coroutine of a process; it runs at the next `drain`."""
        context = copy_context()
        context.run(PROCESS.set, process)
        task = self.create_task(coro, context=context)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            lines = traceback.format_exception(error)
            self.problems.append(f"{error!r}\n{''.join(lines[-6:])}")

    def call_in(self, process: Process, callback: Callable[..., object], *args: Any) -> None:
        """Have a process called, as its own event loop would."""
        context = copy_context()
        context.run(PROCESS.set, process)
        self.call_soon(callback, *args, context=context)

    def resume(self, process: Process) -> None:
        """Let a paused process go on with what it missed."""
        process.paused = False
        self._ready.extend(process.waiting)
        process.waiting.clear()

    def drain(self) -> None:
        """Run until everybody waits. Raises: Spinning when somebody never does."""
        before = asyncio.events._get_running_loop()
        asyncio.events._set_running_loop(self)
        try:
            for _ in range(CALLBACKS_MAX):
                if not self._ready:
                    return
                handle = self._ready.popleft()
                if handle._cancelled:  # type: ignore[attr-defined]
                    continue
                process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
                if process is not None and not process.alive:
                    continue
                if process is not None and process.paused:
                    process.waiting.append(handle)
                    continue
                handle._run()
            raise Spinning(f"after {CALLBACKS_MAX} callbacks: {self._ready[0]}")
        finally:
            asyncio.events._set_running_loop(before)

    def next_timer_us(self) -> int | None:
        """When the next timer is due, if there is any that somebody alive waits for."""
        timers = self._timers
        while timers:
            when, _, handle = timers[0]
            process = handle._context.get(PROCESS)  # type: ignore[attr-defined]
            if handle.cancelled() or (process is not None and not process.alive):
                heapq.heappop(timers)
            else:
                return self._start_us + int((when - 1000) * 1_000_000) + 1
        return None

    def advance_to(self, now_us: int) -> None:
        """Move the clock; what is due by then becomes ready, in the order in which it is due."""
        self.now_us = max(now_us, self.now_us)
        now = self.time()
        timers = self._timers
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self._ready.append(handle)

    def close(self) -> None:
        """Forget everything. Tasks that wait for ever are not worth a word."""
        self._ready.clear()
        self._timers.clear()


def forget(process: Process) -> None:
    """Keep a process' unfinished tasks from complaining when they are collected."""
    for task in process.tasks:
        task._log_destroy_pending = False  # type: ignore[attr-defined]

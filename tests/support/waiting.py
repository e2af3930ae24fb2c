"""Waiting for something that another process does, without guessing how long it takes."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

DEADLINE_S = 20.0
INTERVAL_S = 0.02


async def eventually(
    check: Callable[[], T | Awaitable[T]],
    *,
    unless: tuple[type[Exception], ...] = (),
    deadline_s: float = DEADLINE_S,
) -> T:
    """The first true answer of `check`; exceptions named in `unless` count as "not yet".

    Raises: TimeoutError at the deadline, caused by the last such exception.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    last: Exception | None = None
    while loop.time() < deadline:
        try:
            answer = check()
            if inspect.isawaitable(answer):
                answer = await answer
        except unless as error:
            last = error
        else:
            if answer:
                return answer  # type: ignore[return-value]
        await asyncio.sleep(INTERVAL_S)
    raise TimeoutError("it did not happen in time") from last

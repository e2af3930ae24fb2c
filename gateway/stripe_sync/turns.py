"""Turns at customers' objects within a process, before Postgres is asked for its lock.

Whoever has a turn holds a connection of its own while Stripe is asked, and others wait: without a
bound, a slow Stripe and many requests would leave nobody else a connection. Who waits for the same
name waits here, without one.

There are three kinds. Whoever changes something at Stripe for somebody (`asking`) may take a turn
at a customer's objects meanwhile (`working`), and then one at what is sold (`taking_over`), never
the other way round: so nobody waits in a ring.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from gateway.ledger import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# As many as there are events worked on at a time.
WORKING_MAX = 8
ASKING_MAX = 4
TAKING_OVER_MAX = 4
# As long as Postgres is waited for.
WAIT_S = 10.0


class Turns:
    """Of each name one at a time, and of all names so many."""

    def __init__(self, at_once: int, *, wait_s: float = WAIT_S) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._wait_s = wait_s
        self._locks: WeakValueDictionary[tuple[object, ...], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def turn(self, *name: object) -> AsyncIterator[None]:
        """Keep others of the name waiting while it lasts.

        Raises: LedgerUnavailable when it takes too long until it is one's turn.
        """
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(self._wait_s):
                    await stack.enter_async_context(lock)
                    await stack.enter_async_context(self._places)
            except TimeoutError:
                raise LedgerUnavailable("too much is being done for customers at once") from None
            yield


class AllTurns:
    """Of one process."""

    def __init__(self) -> None:
        self.working = Turns(WORKING_MAX)
        self.asking = Turns(ASKING_MAX)
        self.taking_over = Turns(TAKING_OVER_MAX)

"""How every job runs: one round after the other, for ever, whatever a round fails with."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from gateway.counters import CountersUnavailable
from gateway.ledger import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PAGE_ROWS_MAX = 500
# A page takes milliseconds; what is left over is the next round's.
PAGES_MAX = 200

log = logging.getLogger("tollkeeper.jobs")


async def repeat(name: str, work: Callable[[], Awaitable[object]], interval_s: float) -> NoReturn:
    """Do a round, pause, do the next, until cancelled. Rounds are idempotent and may fail."""
    while True:
        try:
            await work()
        except (CountersUnavailable, LedgerUnavailable) as error:
            log.warning("%s: this round failed, the next is in %s s: %s", name, interval_s, error)
        except Exception:
            log.exception("%s: this round failed, the next is in %s s", name, interval_s)
        await asyncio.sleep(interval_s)


async def by_pages(work: Callable[[int], Awaitable[int]]) -> int:
    """Do page after page of so many rows until one is not full; answers how many rows in all.

    `work` takes how many rows a page has at most, and answers how many it had.
    """
    rows = 0
    for _ in range(PAGES_MAX):
        page = await work(PAGE_ROWS_MAX)
        rows += page
        if page < PAGE_ROWS_MAX:
            break
    return rows

"""Calls that run without a hold while Redis is away, where a route says so.

`when_redis_is_down = { allow = "5" }` lets an account of a known, active key use so many credits
per worker and outage. What such a call owes becomes a late settlement with the flag `trusted`, and
is charged when Redis is back, as far as the account's credits go then; that is the risk which the
route's owner takes. Limits and caps are not looked at. A call counts with its ceiling while it
runs, and with what it owes once it has ended.

An outage is over for an account when Redis has answered for OVER_AFTER_S on end and no trusted call
runs any more: a Redis that comes and goes does not begin a new outage, with a new allowance, each
time.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from gateway.clock import now_ms
from gateway.counters import CountersUnavailable
from gateway.proxy.hold import End, Hold, bill
from policies.decision import Admitted
from policies.settlement import TRUSTED

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from gateway.proxy.authenticate import Principal
    from gateway.proxy.hold import Receipt
    from gateway.proxy.late import LateSettler
    from gateway.proxy.offers import Offer
    from policies.catalog import Ending
    from policies.meters.reading import Reading
    from policies.terms import Terms

ACCOUNTS_MAX = 10_000
# Calls on trust whose settlements nobody has taken yet.
LATE_MAX = 100_000
PROBE_S = 1.0
OVER_AFTER_S = 10.0


class Trust:
    """Admits and settles calls on trust. `run` notices when an outage is over."""

    def __init__(self, late: LateSettler, ping: Callable[[], Awaitable[object]]) -> None:
        """`ping` asks Redis anything. Raises: CountersUnavailable."""
        self._late = late
        self._ping = ping
        self._used: dict[int, int] = {}  # microcredits by account
        self._running: set[str] = set()
        self._some = asyncio.Event()

    def admit(
        self, principal: Principal, offer: Offer, terms: Terms, call_id: str, session: str
    ) -> Hold | None:
        """A call without a hold, or None if it can't be trusted."""
        account_id, now = principal.account_id, now_ms()
        used = self._used.get(account_id, 0) + terms.ceiling
        if (
            used > offer.route.trust_microcredits
            or now >= principal.usable_until_ms
            or len(self._late) >= LATE_MAX
            or (account_id not in self._used and len(self._used) >= ACCOUNTS_MAX)
        ):
            return None
        self._used[account_id] = used
        self._running.add(call_id)
        self._some.set()
        admitted = Admitted(call_id, 0, 0, 0, "", now, 0, 0)
        return Hold(call_id, principal, offer, admitted, session, terms)

    async def settle(self, hold: Hold, ending: Ending, status: int, reading: Reading) -> Receipt:
        """Keep what the call owes, until Redis is back."""
        owed, flags, metered, steps = bill(hold, ending, reading)
        flags = f"{flags},{TRUSTED}" if flags else TRUSTED
        self._ended(hold, owed)
        end = End(ending, status, metered, flags, owed, now_ms(), steps)
        return await self._late.settle(hold, end, redis=False)

    async def void(self, hold: Hold) -> None:
        """The call was never sent on."""
        self._ended(hold, 0)

    async def run(self) -> None:
        """Forget what was used once an outage is over, until cancelled."""
        while True:
            await self._some.wait()
            well_s = 0.0
            while well_s < OVER_AFTER_S or self._running:
                await asyncio.sleep(PROBE_S)
                try:
                    await self._ping()
                    well_s += PROBE_S
                except CountersUnavailable:
                    well_s = 0.0
            self._used.clear()
            self._some.clear()

    def _ended(self, hold: Hold, owed: int) -> None:
        if hold.call_id in self._running:
            self._running.discard(hold.call_id)
            self._used[hold.principal.account_id] += owed - hold.held


class _Nothing:
    """Awaited, does nothing."""

    def __await__(self) -> Generator[Any, Any, None]:
        yield from ()


_NOTHING = _Nothing()


def no_mark(_call: object) -> Awaitable[None]:
    """What stands for the mark of a call that is sent on: there is no hold to be marked."""
    return _NOTHING

"""Works on Stripe's events, looks after their queue, and finds what never came.

Any number of nodes do this at a time: an event is taken by one of them, a turn of reconciling is
claimed by one, and what two do twice does no harm.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.clock import now_ms
from gateway.jobs.rounds import by_pages, repeat
from gateway.ledger import LedgerUnavailable
from gateway.stripe_sync.errors import NeedsMendingError, NotSetUpError, StripeTroubleError
from gateway.stripe_sync.reconcile import Reconciler
from policies.spans import DAY_MS, HOUR_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from typing import Any

    from gateway.ledger import Ledger
    from gateway.ledger.queue import EventQueue
    from gateway.stripe_sync.events import Handler
    from gateway.stripe_sync.reconcile import Report
    from gateway.stripe_sync.sync import Billing

# When a node stops, work under way has so long to be finished; then it is cut off, and done again.
STOP_TIMEOUT_S = 10.0
RESTART_PAUSE_S = 1.0
SWEEP_INTERVAL_S = 30.0
TRIM_INTERVAL_S = 600.0
# Stripe lists events for 30 days; these are ours to look things up in.
EVENTS_KEPT_MS = 90 * DAY_MS
QUEUE_LOG_KEPT_MS = 7 * DAY_MS
TURN_LOOK_INTERVAL_S = 60.0
TURN_EVERY_MS = HOUR_MS
# Events come into Stripe's list somewhat later than they were made, and clocks differ.
OVERLAP_MS = HOUR_MS
EVENTS_CURSOR, PAYMENTS_CURSOR = "events", "payments"

log = logging.getLogger("tollkeeper.jobs")


class Queue(Protocol):
    """Where jobs are: `EventQueue`."""

    async def run(
        self, work: Callable[[str, int], Coroutine[Any, Any, int | None]], stop: asyncio.Event
    ) -> None:
        """Work on jobs until `stop` is set, and finish those under way."""

    async def sweep(self) -> int:
        """Make jobs for events that wait and have none; answers how many."""

    async def trim_log(self, older_than_ms: int, limit: int) -> int:
        """Delete some of what the queue noted so long ago; answers how many rows."""


class Inbox(Protocol):
    """Where events are: `Ledger`."""

    async def trim_stripe_events(self, older_than_ms: int, limit: int) -> int:
        """Delete some events that are over and so old; answers how many."""


class StripeEvents:
    """Works on events as they come."""

    def __init__(
        self,
        queue: Queue,
        work: Callable[[str, int], Coroutine[Any, Any, int | None]],
        *,
        stop_timeout_s: float = STOP_TIMEOUT_S,
    ) -> None:
        self._queue = queue
        self._work = work
        self._stop_timeout_s = stop_timeout_s

    async def run(self) -> NoReturn:
        """Work until cancelled, and then finish what is under way, if it does not take long."""
        stop = asyncio.Event()
        while True:
            working = asyncio.create_task(self._queue.run(self._work, stop))
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                stop.set()
                await asyncio.wait({working}, timeout=self._stop_timeout_s)
                working.cancel()
                await asyncio.wait({working})
                raise
            except LedgerUnavailable as error:
                log.warning("Stripe's events wait until Postgres answers: %s", error)
            except Exception:
                log.exception("working on Stripe's events failed")
            await asyncio.sleep(RESTART_PAUSE_S)


class StripeQueueCare:
    """Finds events that lost their job."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("stripe events", self.sweep, SWEEP_INTERVAL_S)

    async def sweep(self) -> int:
        """One look; answers how many events had lost their job."""
        swept = await self._queue.sweep()
        if swept:
            log.warning("%d events of Stripe's had lost their job and have one again", swept)
        return swept


class OldStripeEvents:
    """Keeps no event, and nothing that the queue notes, for longer than it is of use."""

    def __init__(
        self,
        queue: Queue,
        inbox: Inbox,
        *,
        events_kept_ms: int = EVENTS_KEPT_MS,
        log_kept_ms: int = QUEUE_LOG_KEPT_MS,
    ) -> None:
        self._queue = queue
        self._inbox = inbox
        self._events_kept_ms = events_kept_ms
        self._log_kept_ms = log_kept_ms

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("old stripe events", self.trim, TRIM_INTERVAL_S)

    async def trim(self) -> int:
        """One round; answers how many rows went."""
        events = await by_pages(
            lambda limit: self._inbox.trim_stripe_events(self._events_kept_ms, limit)
        )
        return events + await by_pages(lambda limit: self._queue.trim_log(self._log_kept_ms, limit))


class StripeReconciliation:
    """Reconciles each platform with its Stripe every hour: events; and once a day payments."""

    def __init__(
        self,
        billing: Billing,
        queue: EventQueue,
        handlers: Mapping[str, Handler],
        *,
        every_ms: int = TURN_EVERY_MS,
    ) -> None:
        self._billing = billing
        self._ledger: Ledger = billing.ledger
        self._queue = queue
        self._handlers = handlers
        self._every_ms = every_ms

    async def run(self) -> NoReturn:
        """Take turns until cancelled."""
        await repeat("stripe reconciliation", self.reconcile, TURN_LOOK_INTERVAL_S)

    async def reconcile(self) -> int:
        """Reconcile every platform whose turn it is; answers how many. One's failure is its own.

        Raises: LedgerUnavailable, CountersUnavailable.
        """
        turns = 0
        while (platform_id := await self._ledger.claim_stripe_turn(self._every_ms)) is not None:
            turns += 1
            try:
                report = await self._turn(platform_id)
            except (StripeTroubleError, NotSetUpError, NeedsMendingError) as error:
                log.warning("platform %d can't be reconciled with Stripe: %s", platform_id, error)
                continue
            if report.events_added or report.payments_mended or report.problems:
                log.warning(
                    "platform %d: Stripe had %d events and %d payments that we had not; %d "
                    "payments can't be booked",
                    *(platform_id, report.events_added, report.payments_mended),
                    len(report.problems),
                )
        return turns

    async def _turn(self, platform_id: int) -> Report:
        sync = await self._billing.sync(platform_id)
        mode = platform_id, sync.livemode
        began_ms = now_ms()
        events_ms = await self._ledger.stripe_cursor(*mode, EVENTS_CURSOR) or 0
        payments_ms = await self._ledger.stripe_cursor(*mode, PAYMENTS_CURSOR) or 0
        with_payments = began_ms - payments_ms >= DAY_MS
        report = await Reconciler(sync, self._queue, self._handlers).reconcile(
            stages=("events", "invoices", "packs") if with_payments else ("events",),
            events_since_ms=events_ms - OVERLAP_MS,
        )
        await self._ledger.move_stripe_cursor(*mode, EVENTS_CURSOR, began_ms)
        if with_payments:
            await self._ledger.move_stripe_cursor(*mode, PAYMENTS_CURSOR, began_ms)
        return report

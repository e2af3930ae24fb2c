"""Working on events: each until it is done, or parked for a person.

    what a try ends with                            what becomes of the event
    ----------------------------------------------  ----------------------------------------------
    the handler returned                            done; with a note, where Stripe has not (any
                                                    more) what the event is about
    nobody handles its type; it is of another mode  ignored
    than the platform's key is by now
    trouble: Stripe, Postgres or Redis did not      waits, tried as TROUBLE says: for days
    answer, or the handler took too long
    no key: the platform's is not there, or Stripe  waits, tried as WITHOUT_KEY says: for days,
    does not take it any more                       and seldom
    a refusal: anything else, such as something     waits, tried as REFUSAL says: for an hour and a
    that a person has to mend                       half; then parked, with an error in the log

Handlers bring the books to what Stripe says at that moment, so an event may be worked on twice, by
two nodes at a time, and in any order. A process may die between any two steps:

    after                       what is left                  who goes on
    --------------------------  ----------------------------  ------------------------------------
    the event was committed     a job in the queue            any node
    a node took the job         a job whose heartbeat stops   another node, HEARTBEAT_S later
    the handler's transaction   the same                      the same; it finds nothing to do
    the event was marked        the same                      the same; the job is over
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from gateway.counters import CountersUnavailable
from gateway.ledger import LedgerUnavailable
from gateway.ledger.inbox import EventKey
from gateway.operations.errors import NotToldError
from gateway.operations.withdraw import NotTakenError
from gateway.stripe_sync.errors import (
    KeysMissingError,
    NeedsMendingError,
    NotSetUpError,
    StripeKeyError,
    StripeTroubleError,
    StripeUnavailableError,
)
from gateway.stripe_sync.events import HANDLERS, Hint

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.ledger import Ledger
    from gateway.ledger.inbox import WaitingEvent
    from gateway.ledger.queue import EventQueue
    from gateway.stripe_sync.events import Handler
    from gateway.stripe_sync.sync import Billing

# Of one try: many requests of Stripe's, each with its own limit, and waiting for a customer's lock.
TRY_TIMEOUT_S = 120.0

log = logging.getLogger("tollkeeper.stripe")


class Patience(NamedTuple):
    """How often to try, and how long to wait in between: twice as long each time, to a limit."""

    tries: int
    first_ms: int
    longest_ms: int

    def delay_ms(self, failed: int) -> int | None:
        """How long to wait after so many tries failed; None: it was the last one."""
        if failed >= self.tries:
            return None
        return min(self.first_ms << min(failed - 1, 30), self.longest_ms)


# Ten tries within an hour and a half: what a person mends meanwhile needs no replay.
REFUSAL = Patience(tries=10, first_ms=10_000, longest_ms=3_600_000)
# About three days, as long as Stripe would send an event again.
TROUBLE = Patience(tries=900, first_ms=5_000, longest_ms=300_000)
# About three days as well, but in the end once an hour: none of the platform's events can be worked
# on, and other platforms' find room meanwhile.
WITHOUT_KEY = Patience(tries=82, first_ms=10_000, longest_ms=3_600_000)
TROUBLES = (
    StripeUnavailableError,
    LedgerUnavailable,
    CountersUnavailable,
    NotTakenError,
    NotToldError,
    TimeoutError,
)
# Said of an event that is done: drafts are deleted, and whoever asks about one looks in vain.
GONE = "Stripe has no such object (any more), so nothing followed from this."
KEYLESS = (KeysMissingError, StripeKeyError)
# What says by itself what is wrong; the rest are mistakes of ours.
TOLD = (*TROUBLES, StripeTroubleError, NeedsMendingError, NotSetUpError)


class Processor:
    """Works on one event at a time, however often it is asked to."""

    def __init__(
        self,
        billing: Billing,
        *,
        handlers: Mapping[str, Handler] = HANDLERS,
        refusal: Patience = REFUSAL,
        trouble: Patience = TROUBLE,
        without_key: Patience = WITHOUT_KEY,
        timeout_s: float = TRY_TIMEOUT_S,
    ) -> None:
        self._billing = billing
        self._ledger: Ledger = billing.ledger
        self._handlers = handlers
        self._refusal = refusal
        self._trouble = trouble
        self._without_key = without_key
        self._timeout_s = timeout_s

    async def work(self, text: str, tried: int) -> int | None:
        """One try of the job with this text; in how many ms the next is due, None: none is.

        `tried` is how often the job was tried before, whatever it failed with.
        """
        key = EventKey.of(text)
        try:
            event = await self._ledger.waiting_stripe_event(key)
            if event is None:
                return None
            failure = await self._try(key, event)
            if failure is None:
                return None
            return await self._failed(key, event, tried, failure)
        except LedgerUnavailable as error:
            log.warning("event %s: Postgres could not be told how it went: %s", text, error)
            return self._trouble.delay_ms(tried + 1) or self._trouble.longest_ms

    async def _try(self, key: EventKey, event: WaitingEvent) -> Exception | None:
        handler = self._handlers.get(event.type)
        if handler is None:
            await self._ledger.mark_stripe_event(key, "ignored", event.attempts)
            return None
        missing: list[str] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                sync = await self._billing.sync(key.platform_id)
                if sync.livemode != key.livemode:
                    told = "The platform's key is of the other mode by now."
                    await self._ledger.mark_stripe_event(key, "ignored", event.attempts, told)
                    return None
                await handler(sync.noting(missing), hint_of(event))
        except Exception as failure:  # noqa: BLE001 - whatever it is, the event waits or is parked
            return failure
        note = ""
        if any(f"'{event.object_id}'" in text for text in missing):
            note = GONE
            log.info("event %s (%s): Stripe has no %s", key.text, event.type, event.object_id)
        await self._ledger.mark_stripe_event(key, "done", event.attempts, note)
        return None

    async def _failed(
        self, key: EventKey, event: WaitingEvent, tried: int, failure: Exception
    ) -> int | None:
        """Note what went wrong; when the next try is due, None: it is parked."""
        problem = problem_text(failure)
        if isinstance(failure, TROUBLES):
            attempts = event.attempts
            delay_ms = self._trouble.delay_ms(tried + 1)
        elif isinstance(failure, KEYLESS):
            attempts = event.attempts
            delay_ms = self._without_key.delay_ms(tried + 1)
        else:
            attempts = event.attempts + 1
            delay_ms = self._refusal.delay_ms(attempts)
        parked = delay_ms is None
        status = "parked" if parked else "waiting"
        await self._ledger.mark_stripe_event(key, status, attempts, problem)
        about = f"{event.type} {event.object_id}"
        if not isinstance(failure, TOLD):
            log.error("event %s (%s) met a mistake of ours", key.text, about, exc_info=failure)
        if parked:
            log.error(
                'event %s (%s) is parked, replay it when this is mended: "%s"',
                *(key.text, about, problem),
            )
        else:
            log.warning("event %s (%s) is tried again: %s", key.text, about, problem)
        return delay_ms


def hint_of(event: WaitingEvent) -> Hint:
    """What an event says, for its handler."""
    data = event.payload.get("data")
    about = data.get("object") if isinstance(data, dict) else None
    return Hint(
        event.type,
        event.object_id,
        event.created_ms,
        about if isinstance(about, dict) else {},
    )


async def replay(ledger: Ledger, queue: EventQueue, platform_id: int, event_id: str) -> bool:
    """Have an event of the platform's worked on once more; False: it has none of this id."""
    found = await ledger.stripe_event(platform_id, event_id)
    if found is None:
        return False
    row, _ = found
    return await queue.replay(row.key)


def problem_text(failure: Exception) -> str:
    """For people: of a mistake of ours nothing but its name, for its text may be about anything."""
    if isinstance(failure, TimeoutError):
        return "It took too long."
    if isinstance(failure, NotSetUpError):
        return "The platform has no Stripe any more."
    if isinstance(failure, KeysMissingError):
        return failure.told
    if isinstance(failure, TOLD):
        return str(failure)
    return f"A mistake of ours ({type(failure).__name__}): see the log."

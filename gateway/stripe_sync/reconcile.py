"""Finding what no event told us: Stripe gave up on sending it, or we lost it.

    stage      what is looked at                    what is done
    ---------  -----------------------------------  ----------------------------------------------
    events     all that Stripe has kept (30 days)   those that never came are kept, and worked on
    invoices   those that are paid                  where the books don't say so, they are worked on
    packs      Checkout sessions that are paid      the same

Twice does what once does: an event is kept once, and a payment that is booked is not looked at. A
reconciliation may end anywhere, and says where the next one can go on.
"""

from __future__ import annotations

import logging
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.clock import now_ms
from gateway.stripe_sync.client import PAGE_MAX
from gateway.stripe_sync.events import HANDLERS, Hint
from gateway.stripe_sync.processing import TROUBLES, problem_text
from gateway.stripe_sync.webhooks import NotBelievedError, snapshot, written
from policies.billing import SESSION_PAID
from policies.spans import DAY_MS, SECOND_MS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    import stripe
    from stripe._v1_services import V1Services

    from gateway.ledger.queue import EventQueue
    from gateway.stripe_sync.events import Handler
    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]

# For how long Stripe keeps events, and what else is looked at unless somebody says otherwise.
EVENTS_DAYS_MAX = 30
PAYMENTS_DAYS = 35
PAYMENTS_DAYS_MAX = 400
PROBLEMS_MAX = 100

log = logging.getLogger("tollkeeper.stripe")


class Place(NamedTuple):
    """Where a reconciliation goes on: in this stage, behind this object ("": at its beginning)."""

    stage: str
    after: str = ""


class Unmended(NamedTuple):
    """A payment that can't be booked, and why."""

    object_id: str
    problem: str


@dataclass(slots=True)
class Report:
    """What a reconciliation did. `next`: it ended early, and this is where to go on."""

    events_seen: int = 0
    events_added: int = 0
    payments_seen: int = 0
    payments_mended: int = 0
    problems: list[Unmended] = field(default_factory=list)
    next: Place | None = None


class Stage(NamedTuple):
    """Objects of one kind, newest first, and what is done with some of them."""

    name: str
    ask: Callable[[V1Services, Any], Awaitable[stripe.StripeObject]]
    params: Mapping[str, object]
    work: Callable[[Reconciler, list[Document]], Awaitable[None]]
    days_max: int = PAYMENTS_DAYS_MAX


class Payment(NamedTuple):
    """Something that was paid, by its key in the books, and who works on such things."""

    business_key: str
    type: str
    document: Document


class Reconciler:
    """Compares one platform's Stripe with what is here."""

    def __init__(
        self, sync: Sync, queue: EventQueue, handlers: Mapping[str, Handler] = HANDLERS
    ) -> None:
        self._sync = sync
        self._queue = queue
        self._handlers = handlers
        self._report = Report()

    async def reconcile(
        self,
        days: int = PAYMENTS_DAYS,
        *,
        stages: tuple[str, ...] = ("events", "invoices", "packs"),
        events_since_ms: int = 0,
        start: Place | None = None,
        enough: Callable[[], bool] = lambda: False,
    ) -> Report:
        """Look at what was made in the last `days`, from `start` on, until it is `enough`.

        Of events, at those since `events_since_ms` only. Raises: StripeUnavailableError,
        LedgerUnavailable, CountersUnavailable; what was found until then is done.
        """
        wanted = [stage for stage in STAGES if stage.name in stages]
        if start is not None:
            names = [stage.name for stage in wanted]
            wanted = wanted[names.index(start.stage) :]
        for stage in wanted:
            since_ms = now_ms() - min(days, stage.days_max) * DAY_MS
            if stage.name == "events":
                since_ms = max(since_ms, events_since_ms)
            after = start.after if start is not None and start.stage == stage.name else ""
            async with aclosing(self._chunks(stage, since_ms // SECOND_MS, after)) as chunks:
                async for chunk in chunks:
                    await stage.work(self, chunk)
                    if enough():
                        self._report.next = Place(stage.name, chunk[-1]["id"])
                        return self._report
        return self._report

    async def _chunks(
        self, stage: Stage, since_s: int, after: str
    ) -> AsyncGenerator[list[Document], None]:
        params: dict[str, Any] = {**stage.params, "created": {"gte": since_s}}
        if after:
            params["starting_after"] = after
        chunk = []
        async for document in self._sync.api.pages(stage.ask, **params):
            chunk.append(document)
            if len(chunk) == PAGE_MAX:
                yield chunk
                chunk = []
        if chunk:
            yield chunk

    async def keep_events(self, documents: list[Document]) -> None:
        """Keep those that somebody has a use for and that never came."""
        self._report.events_seen += len(documents)
        sync = self._sync
        used = {each["id"]: each for each in documents if each["type"] in self._handlers}
        known = await sync.ledger.known_stripe_events(*sync.mode, list(used))
        new = []
        for event_id in used.keys() - known:
            document = used[event_id]
            try:
                arrived = snapshot(document, written(document), self._handlers, "reconcile")
            except NotBelievedError:
                log.error("event %s of Stripe's list can't be read", event_id)  # noqa: TRY400 - the text says it all
                continue
            new.append(arrived.event)
        if new:
            kept = await self._queue.receive(*sync.mode, new)
            self._report.events_added += len(kept)

    async def book_invoices(self, documents: list[Document]) -> None:
        """Work on paid invoices that the books don't have as paid."""
        await self._book(
            [Payment(f"invoice:{each['id']}", "invoice.paid", each) for each in documents]
        )

    async def book_packs(self, documents: list[Document]) -> None:
        """The same of Checkout sessions; those of subscriptions are paid by their invoices."""
        await self._book(
            [
                Payment(f"checkout:{each['id']}", "checkout.session.completed", each)
                for each in documents
                if each["mode"] == "payment" and each["payment_status"] in SESSION_PAID
            ]
        )

    async def _book(self, payments: list[Payment]) -> None:
        self._report.payments_seen += len(payments)
        missing = await self._unbooked([one.business_key for one in payments])
        if not missing:
            return
        for payment in payments:
            handler = self._handlers.get(payment.type)
            if payment.business_key in missing and handler is not None:
                await self._handle(handler, payment)
        left = await self._unbooked(sorted(missing))
        self._report.payments_mended += len(missing) - len(left)

    async def _unbooked(self, keys: list[str]) -> set[str]:
        sync = self._sync
        return await sync.ledger.unbooked_payments(*sync.mode, keys)

    async def _handle(self, handler: Handler, payment: Payment) -> None:
        document = payment.document
        hint = Hint(payment.type, document["id"], document["created"] * SECOND_MS, document)
        try:
            await handler(self._sync, hint)
        except TROUBLES:
            raise
        except Exception as failure:
            log.exception("payment %s can't be booked", payment.business_key)
            if len(self._report.problems) < PROBLEMS_MAX:
                self._report.problems.append(Unmended(document["id"], problem_text(failure)))


STAGES = (
    Stage(
        "events",
        lambda v1, params: v1.events.list_async(params),
        {},
        Reconciler.keep_events,
        EVENTS_DAYS_MAX,
    ),
    Stage(
        "invoices",
        lambda v1, params: v1.invoices.list_async(params),
        {"status": "paid"},
        Reconciler.book_invoices,
    ),
    Stage(
        "packs",
        lambda v1, params: v1.checkout.sessions.list_async(params),
        {"status": "complete"},
        Reconciler.book_packs,
    ),
)

"""What can be done with Stripe's events: looking, replaying, and finding what never came."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from gateway.control.api.cursors import read_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import or_never
from gateway.control.api.problems import invalid_field, not_found
from gateway.control.api.roles import EDITORS, VIEWERS
from gateway.control.stripe_events.models import (
    ReconcileWish,
    Reconciliation,
    StripeEvent,
    StripeEventDetail,
    StripeEventQuery,
    StripeEvents,
    Unmended,
)
from gateway.ledger.inbox import FIRST_PLACE, StripeEventFilter, StripeEventPlace
from gateway.stripe_sync.processing import replay
from gateway.stripe_sync.reconcile import STAGES, Place, Reconciler

if TYPE_CHECKING:
    from typing import Literal

    from gateway.control.api.ask import Ask
    from gateway.control.stripe_events.models import Status
    from gateway.ledger.inbox import StripeEventRow

PATH = "/v1/stripe/events"
ONE = f"{PATH}/{{event}}"
# Whoever asks waits for the answer; what is left over is asked for again.
RECONCILE_S = 20.0


async def read_list(ask: Ask, query: StripeEventQuery) -> StripeEvents:
    """Newest first."""
    place = read_cursor(query.cursor, int, str)
    page = await ask.ledger.stripe_event_page(
        ask.platform_id,
        StripeEventFilter(query.status, query.type, query.object_id),
        after=FIRST_PLACE if place is None else StripeEventPlace(int(place[0]), str(place[1])),
        limit=query.limit,
    )
    return StripeEvents(
        data=[document(row) for row in page.rows],
        next_cursor=None if page.after is None else write_cursor(*page.after),
    )


async def read(ask: Ask) -> StripeEventDetail:
    """One, with what Stripe sent."""
    found = await ask.ledger.stripe_event(ask.platform_id, ask.path["event"])
    if found is None:
        raise not_found("event")
    row, payload = found
    return StripeEventDetail(**dict(document(row)), payload=dict(payload))


async def replay_one(ask: Ask) -> StripeEvent:
    """Work on it once more, whatever became of it."""
    event_id = ask.path["event"]
    services = ask.services
    if not await replay(ask.ledger, services.events, ask.platform_id, event_id):
        raise not_found("event")
    return await _short(ask, event_id)


async def reconcile(ask: Ask, body: ReconcileWish) -> Reconciliation:
    """Find events and payments that never came here."""
    start = _place(body.cursor)
    sync = await ask.services.billing.sync(ask.platform_id)
    loop = asyncio.get_running_loop()
    until_s = loop.time() + RECONCILE_S
    report = await Reconciler(sync, ask.services.events).reconcile(
        body.days, start=start, enough=lambda: loop.time() >= until_s
    )
    return Reconciliation(
        events_seen=report.events_seen,
        events_added=report.events_added,
        payments_seen=report.payments_seen,
        payments_mended=report.payments_mended,
        problems=[Unmended(**one._asdict()) for one in report.problems],
        next_cursor=None if report.next is None else write_cursor(*report.next),
    )


def document(row: StripeEventRow) -> StripeEvent:
    """The event's document."""
    return StripeEvent(
        id=row.event_id,
        type=row.type,
        object_id=row.object_id or None,
        livemode=row.livemode,
        shape=cast('Literal["snapshot", "thin"]', row.shape),
        source=cast('Literal["webhook", "reconcile"]', row.source),
        status=cast("Status", row.status),
        attempts=row.attempts,
        problem=row.problem or None,
        created_at=row.created_ms,
        received_at=row.received_us // 1_000,
        done_at=or_never(row.done_ms),
    )


async def _short(ask: Ask, event_id: str) -> StripeEvent:
    found = await ask.ledger.stripe_event(ask.platform_id, event_id)
    if found is None:
        raise not_found("event")
    return document(found[0])


def _place(cursor: str | None) -> Place | None:
    place = read_cursor(cursor, str, str)
    if place is None:
        return None
    stage, after = map(str, place)
    if stage not in {one.name for one in STAGES}:
        raise invalid_field("cursor", "This is no cursor of a reconciliation.")
    return Place(stage, after)


ENDPOINTS = (
    Endpoint(
        "GET", PATH, "List what Stripe said", VIEWERS, read_list,
        query=StripeEventQuery, answers=StripeEvents, exports=True, tag="stripe",
    ),
    Endpoint(
        "GET", ONE, "Read an event of Stripe's", VIEWERS, read,
        answers=StripeEventDetail, tag="stripe",
    ),
    Endpoint(
        "POST", f"{ONE}/replay", "Work on an event once more", EDITORS, replay_one,
        answers=StripeEvent, tag="stripe",
        description="It does no harm: the books are brought to what Stripe says at that moment.",
    ),
    Endpoint(
        "POST", "/v1/stripe/reconcile", "Find what Stripe has and we have not", EDITORS, reconcile,
        body=ReconcileWish, answers=Reconciliation, tag="stripe",
        description="Events that never came are kept and worked on; payments that are not booked "
        "are worked on at once. Every node does this by itself each hour; twice changes nothing.",
    ),
)  # fmt: skip

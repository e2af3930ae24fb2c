"""Changing a subscription: another plan or quantity, its end, and taking either back.

    asked for               done at Stripe                                      takes effect
    dearer by the month,    items, prorated, billed, and paid first             at once
      or more of the same
    anything else           a schedule of two phases                            with the next period
    what it is already      a schedule, or a change not paid yet, is dropped    at once
    cancel                  a schedule is dropped; cancel_at_period_end         at the period's end

Each is decided by the subscription as it is at Stripe then, so that a repetition finds it done and
says so. Changes of one customer's take turns. Who dies between two steps leaves at worst a schedule
that changes nothing, or one that is dropped already: asking again goes on from there.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gateway.clock import now_ms
from gateway.operations.errors import ConflictError
from gateway.operations.subscribed import OVER, current
from gateway.stripe_sync.choosing import plan_offer
from gateway.stripe_sync.customers import id_of
from gateway.stripe_sync.errors import NeedsMendingError, StripeTroubleError
from gateway.stripe_sync.events import HANDLERS, Hint
from gateway.stripe_sync.sold import months_of_price
from gateway.stripe_sync.subscriptions import ends_s, see_to_subscription
from policies.billing import ENTITLING
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.ledger.rows import AccountRow
    from gateway.ledger.stripe_products import StripePrice
    from gateway.ledger.subscriptions import SubscriptionRow
    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]
    Result = Literal["done", "needs_payment", "scheduled", "unchanged"]

log = logging.getLogger("tollkeeper.stripe")

PAID = "paid"


class Wanted(NamedTuple):
    """What a subscription is to become; None leaves as it is. `once` names the request."""

    once: str
    plan_slug: str | None = None
    months: int | None = None
    quantity: int | None = None


class Outcome(NamedTuple):
    """What came of it. `effective_ms` 0: when it is paid, at `payment_url`."""

    result: Result
    effective_ms: int
    payment_url: str | None = None


class Target(NamedTuple):
    """A price and how often."""

    price: StripePrice
    quantity: int


class Live(NamedTuple):
    """A subscription as it is at Stripe, with its latest invoice and schedule, and our item."""

    document: Document
    item: Document

    @property
    def subscription_id(self) -> str:
        """Its id."""
        return str(self.document["id"])

    @property
    def price_id(self) -> str:
        """The price that is paid for it at present."""
        return str(self.item["price"]["id"])

    @property
    def quantity(self) -> int:
        """How often."""
        return int(self.item.get("quantity") or 1)

    @property
    def period_end_s(self) -> int:
        """When the period that is paid for ends."""
        return int(self.item["current_period_end"])

    @property
    def ends_s(self) -> int | None:
        """When it ends, if somebody has cancelled it."""
        return ends_s(self.document, self.item)

    @property
    def schedule(self) -> Document | None:
        """What will change it."""
        schedule = self.document["schedule"]
        return schedule if isinstance(schedule, dict) else None

    def is_for(self, target: Target) -> bool:
        """Whether it is what is wanted."""
        return (self.price_id, self.quantity) == (target.price.price_id, target.quantity)

    def waits_for(self, target: Target) -> bool:
        """Whether this change was made, and is not paid yet."""
        pending = self.document["pending_update"] or {}
        return any(_same(item, target) for item in pending.get("subscription_items") or ())

    def will_be(self, target: Target) -> bool:
        """Whether its schedule makes it so at the period's end."""
        later = [
            phase
            for phase in (self.schedule or {}).get("phases", ())
            if phase["start_date"] >= self.period_end_s
        ]
        return bool(later) and any(_same(item, target) for item in later[0]["items"])


async def change(sync: Sync, account: AccountRow, wanted: Wanted) -> Outcome:
    """Another plan, interval or quantity.

    Raises: ConflictError as things are; DocumentError for an unknown plan; StripeTroubleError.
    """
    async with _turn(sync, account) as (row, live):
        _check_goes_on(row, live)
        target = await _target(sync, row, live, wanted)
        if live.is_for(target):
            return await _stay(sync, live)
        if live.waits_for(target):
            return _waiting(live)
        if live.will_be(target):
            return Outcome("scheduled", live.period_end_s * SECOND_MS)
        if live.ends_s is not None:
            raise ConflictError(
                "subscription_ending",
                "the subscription is cancelled: resume it before you change it",
            )
        if is_upgrade(live, target):
            return await _upgrade(sync, live, target, wanted.once)
        return await _downgrade(sync, live, target)


async def undo_change(sync: Sync, account: AccountRow) -> Outcome:
    """Drop a change that has not taken effect: scheduled, or not paid yet.

    Raises: ConflictError without a subscription; StripeTroubleError.
    """
    async with _turn(sync, account) as (_, live):
        return await _stay(sync, live)


async def cancel(sync: Sync, account: AccountRow) -> int:
    """End it with the period that is paid for; when that is. A scheduled change is dropped.

    Raises: ConflictError without a subscription; StripeTroubleError.
    """
    async with _turn(sync, account) as (_, live):
        if live.ends_s is not None:
            return live.ends_s * SECOND_MS
        await _release(sync, live)
        done = await sync.api.ask(
            lambda v1: v1.subscriptions.update_async(
                live.subscription_id, {"cancel_at_period_end": True}
            )
        )
        await _follow(sync, live)
        return int(done["cancel_at"] or live.period_end_s) * SECOND_MS


async def resume(sync: Sync, account: AccountRow) -> None:
    """Let it go on after all; again does no harm.

    Raises: ConflictError without a subscription that goes on; StripeTroubleError.
    """
    async with _turn(sync, account) as (_, live):
        if live.ends_s is None:
            return
        await _release(sync, live)  # else Stripe has the schedule's word on its end
        if live.document["cancel_at_period_end"]:
            await sync.api.ask(
                lambda v1: v1.subscriptions.update_async(
                    live.subscription_id, {"cancel_at_period_end": False}
                )
            )
        else:
            await sync.api.ask(
                lambda v1: v1.subscriptions.update_async(live.subscription_id, {"cancel_at": ""})
            )
        await _follow(sync, live)


def is_upgrade(live: Live, target: Target) -> bool:
    """Dearer by the month, or more of the same."""
    now = (live.item["price"]["unit_amount"] or 0) * live.quantity
    then = (target.price.unit_amount or 0) * target.quantity
    now_months, then_months = _months(live), target.price.months or 1
    if then * now_months != now * then_months:
        return bool(then * now_months > now * then_months)
    return target.price.price_id == live.price_id and target.quantity > live.quantity


@asynccontextmanager
async def _turn(sync: Sync, account: AccountRow) -> AsyncIterator[tuple[SubscriptionRow, Live]]:
    """The account's subscription, for this caller alone to change."""
    customer_id = await sync.ledger.customer_of_account(sync.mode, account.account_id)
    async with sync.asking_locked(f"changes of {customer_id}"):
        row = await _find(sync, account, customer_id)
        yield row, await _look(sync, row)


async def _find(sync: Sync, account: AccountRow, customer_id: str | None) -> SubscriptionRow:
    """The one that serves; else the newest that is not over.

    One that the books have not heard of yet is looked for at Stripe.
    """
    row = await _newest(sync, account)
    if row is None and customer_id is not None:
        async for one in sync.api.pages(
            lambda v1, params: v1.subscriptions.list_async(params), customer=customer_id
        ):
            await see_to_subscription(sync, one["id"])
        row = await _newest(sync, account)
    if row is None:
        raise ConflictError("no_subscription", "the account has no subscription: subscribe first")
    return row


async def _newest(sync: Sync, account: AccountRow) -> SubscriptionRow | None:
    rows = await sync.ledger.subscriptions(account.account_id, livemode=sync.livemode)
    return current(rows)


async def _look(sync: Sync, row: SubscriptionRow) -> Live:
    """Raises: ConflictError when it has ended meanwhile."""
    document = await sync.api.ask(
        lambda v1: v1.subscriptions.retrieve_async(
            row.facts.stripe_id, {"expand": ["latest_invoice", "schedule"]}
        )
    )
    if document["status"] in OVER:
        await see_to_subscription(sync, document["id"])
        raise ConflictError("no_subscription", "the subscription has ended: subscribe again")
    items = document["items"]["data"]
    item = next((one for one in items if one["id"] == row.facts.item_id), items[0])
    return Live(document, item)


def _check_goes_on(row: SubscriptionRow, live: Live) -> None:
    status = live.document["status"]
    if status not in ENTITLING or status == "past_due" or not row.serves:
        raise ConflictError(
            "payment_overdue",
            f"the subscription is {status}, and can be changed when it is paid for: pay the open "
            "invoice in Stripe's portal",
        )


async def _target(sync: Sync, row: SubscriptionRow, live: Live, wanted: Wanted) -> Target:
    """Its own price where neither plan nor interval is to be another: that may be an older one."""
    quantity = wanted.quantity or live.quantity
    months = wanted.months or _months(live)
    slug = wanted.plan_slug or row.facts.plan_slug
    if slug is None:
        raise ConflictError("no_plan", "the subscription is for no plan that is known here")
    currency = live.item["price"]["currency"]
    if (slug, months) == (row.facts.plan_slug, _months(live)):
        known = await sync.ledger.stripe_price(*sync.mode, live.price_id)
        if known is not None:
            return Target(known, quantity)
    offer = await plan_offer(sync, slug, months, currency=currency)
    return Target(offer.price, quantity)


async def _stay(sync: Sync, live: Live) -> Outcome:
    """As it is now, from now on: nothing that was to come of it comes."""
    waits = live.document["pending_update"] is not None
    if live.schedule is None and not waits:
        return Outcome("unchanged", now_ms())
    await _release(sync, live)
    if waits:
        await _void_change(sync, live)
    await _follow(sync, live)
    return Outcome("done", now_ms())


async def _upgrade(sync: Sync, live: Live, target: Target, once: str) -> Outcome:
    """Billed at once for the rest of the period; it is another plan when that is paid."""
    await _release(sync, live)
    if live.document["pending_update"] is not None:
        await _void_change(sync, live)
    done = await sync.api.ask(
        lambda v1: v1.subscriptions.update_async(
            live.subscription_id,
            {
                "items": [
                    {
                        "id": live.item["id"],
                        "price": target.price.price_id,
                        "quantity": target.quantity,
                    }
                ],
                "proration_behavior": "always_invoice",
                "payment_behavior": "pending_if_incomplete",
                "expand": ["latest_invoice", "schedule"],
            },
            {"idempotency_key": f"tollkeeper-change-{live.subscription_id}-{once}"},
        )
    )
    after = Live(done, live.item)
    await _follow(sync, after)
    if done["pending_update"] is not None:
        return _waiting(after)
    return Outcome("done", now_ms())


def _waiting(live: Live) -> Outcome:
    invoice = live.document["latest_invoice"]
    return Outcome("needs_payment", 0, (invoice or {}).get("hosted_invoice_url"))


async def _downgrade(sync: Sync, live: Live, target: Target) -> Outcome:
    """What is paid for stays until its end. A schedule that is there gets other phases."""
    if live.document["pending_update"] is not None:
        await _void_change(sync, live)
    schedule = live.schedule
    if schedule is None or schedule["status"] != "active":
        schedule = await sync.api.ask(
            lambda v1: v1.subscription_schedules.create_async(
                {"from_subscription": live.subscription_id}
            )
        )
    schedule_id = schedule["id"]
    params: Document = {
        "phases": phases_until(live, schedule, target),
        "end_behavior": "release",
        "proration_behavior": "none",
    }
    await sync.api.ask(
        lambda v1: v1.subscription_schedules.update_async(
            schedule_id,
            params,  # type: ignore[arg-type] # put together above
        )
    )
    await _follow(sync, live)
    return Outcome("scheduled", live.period_end_s * SECOND_MS)


def phases_until(live: Live, schedule: Document, target: Target) -> list[Document]:
    """The phase that runs, until the period's end; then a period of what is wanted.

    After that the schedule lets go of it, and it goes on so. Coupons and other items stay.
    """
    start_s = schedule["current_phase"]["start_date"]
    running = next(phase for phase in schedule["phases"] if phase["start_date"] == start_s)
    discounts = [_kept_discount(one) for one in running["discounts"] or ()]
    items = [_kept_item(item) for item in running["items"]]
    now: Document = {
        "items": items,
        "discounts": discounts,
        "start_date": start_s,
        "end_date": live.period_end_s,
        "proration_behavior": "none",
    }
    if running["trial_end"]:
        now["trial_end"] = running["trial_end"]
    wanted = {"price": target.price.price_id, "quantity": target.quantity}
    then: Document = {
        "items": [wanted if item["price"] == live.price_id else item for item in items],
        "discounts": discounts,
        "duration": _duration(target.price.months or 1),
        "proration_behavior": "none",
    }
    return [now, then]


def _kept_item(item: Document) -> Document:
    kept: Document = {"price": id_of(item["price"])}
    if item.get("quantity") is not None:
        kept["quantity"] = item["quantity"]
    return kept


def _kept_discount(discount: Document) -> Document:
    for kind in ("discount", "promotion_code", "coupon"):
        if (found := id_of(discount.get(kind))) is not None:
            return {kind: found}
    return {}


def _duration(months: int) -> Document:
    if months % 12:
        return {"interval": "month", "interval_count": months}
    return {"interval": "year", "interval_count": months // 12}


async def _release(sync: Sync, live: Live) -> None:
    """Drop its schedule, if there is one: it stays as it is."""
    schedule = live.schedule
    if schedule is not None and schedule["status"] in {"active", "not_started"}:
        await sync.api.ask(lambda v1: v1.subscription_schedules.release_async(schedule["id"]))


async def _void_change(sync: Sync, live: Live) -> None:
    """Drop a change that is not paid, with the invoice that it waits for."""
    invoice = live.document["latest_invoice"]
    if isinstance(invoice, dict) and invoice["status"] == "open":
        await sync.api.ask(lambda v1: v1.invoices.void_invoice_async(invoice["id"]))


async def _follow(sync: Sync, live: Live) -> None:
    """Let the books follow at once. If that fails its events come anyway, and will be worked on."""
    invoice = live.document["latest_invoice"]
    try:
        await see_to_subscription(sync, live.subscription_id)
        handler = HANDLERS.get("invoice.paid")
        if handler is not None and isinstance(invoice, dict) and invoice["status"] == PAID:
            await handler(sync, Hint("invoice.paid", invoice["id"], 0))
    except (StripeTroubleError, NeedsMendingError) as trouble:
        log.warning("%s is changed; the books follow later: %s", live.subscription_id, trouble)


def _same(item: Document, target: Target) -> bool:
    place = id_of(item["price"]), item.get("quantity") or 1
    return place == (target.price.price_id, target.quantity)


def _months(live: Live) -> int:
    return months_of_price(live.item["price"]) or 1

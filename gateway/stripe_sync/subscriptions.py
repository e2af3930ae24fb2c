"""Subscriptions: written down as they are, and what follows for their account.

Which one serves, the account's plan and period, and what it loses for want of payment are decided
anew whenever one of them changes (`decide`), from all that the books have of them and from the
time. docs/money.md has the tables.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from gateway.ledger.billing import Notice, note_event
from gateway.ledger.serving import lock_account
from gateway.ledger.subscriptions import (
    SubscriptionFacts,
    find_subscription,
    save_subscription,
)
from gateway.ledger.untold import note_untold
from gateway.stripe_sync.customers import account_of, customer_of, id_of
from gateway.stripe_sync.deciding import decide
from gateway.stripe_sync.errors import NeedsMendingError, StripeMissingError
from gateway.stripe_sync.moments import ms_of
from gateway.stripe_sync.sold import Priced, months_of_price, usable, wares_of
from gateway.stripe_sync.superseded import cancel_superseded
from gateway.stripe_sync.unpaid import unpaid_of
from policies.billing import ENTITLING, price_problem
from policies.catalog import Plan
from policies.money import Coupon, discount_minor
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.ledger.database import Session
    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sold import Wares
    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]

TRIAL_WILL_END = "customer.subscription.trial_will_end"
# Coupons that go on for longer than one invoice lower what a subscription brings in.
LASTING = ("forever", "repeating")


async def sync_subscription(sync: Sync, hint: Hint) -> None:
    """A subscription was made, has changed, or is gone; or its trial ends soon."""
    await see_to_subscription(sync, hint.object_id, hint)


async def sync_schedule(sync: Sync, hint: Hint) -> None:
    """What a subscription is to become has changed, or is to be nothing else any more."""
    document = hint.object
    if "subscription" not in document:
        try:
            document = await sync.api.ask(
                lambda v1: v1.subscription_schedules.retrieve_async(hint.object_id)
            )
        except StripeMissingError:
            return
    subscription_id = id_of(document["subscription"]) or document.get("released_subscription")
    if subscription_id is not None:
        await see_to_subscription(sync, subscription_id)


async def see_to_subscription(sync: Sync, subscription_id: str, hint: Hint | None = None) -> None:
    """Write a subscription down as it is now, with all that follows; tell Redis.

    Raises: NeedsMendingError when nobody knows whose it is, or what it is for.
    """
    customer_id = None
    if hint is not None:
        customer_id = await customer_of(hint, lambda: fetch_subscription(sync, subscription_id))
    else:
        customer_id = id_of((await fetch_subscription(sync, subscription_id))["customer"])
    if customer_id is None:
        return
    async with sync.customer_locked(customer_id) as session:
        try:
            document = await fetch_subscription(sync, subscription_id)
        except StripeMissingError:
            return
        account_id = await write_subscription(sync, session, document)
        if account_id is None:
            return
        if hint is not None and hint.type == TRIAL_WILL_END:
            await _tell_of_trial(sync, session, account_id, document)
        await decide(sync, session, account_id)
        await note_untold(session, account_id)
    await sync.tell(account_id)
    await cancel_superseded(sync, account_id)


async def fetch_subscription(sync: Sync, subscription_id: str) -> Document:
    """A subscription as it is now, with its coupons and its schedule."""
    return await sync.api.ask(
        lambda v1: v1.subscriptions.retrieve_async(
            subscription_id, {"expand": ["discounts.source.coupon", "schedule"]}
        )
    )


async def write_subscription(
    sync: Sync, session: Session, document: Document, *, sessions: Sequence[Document] = ()
) -> int | None:
    """Write a subscription into the books; its account, whose row is locked from then on.

    None: it has nothing of this platform's, and never had. `sessions` may say whose it is.

    Raises: NeedsMendingError when nobody knows whose it is, or its plan is not known yet.
    """
    known = await find_subscription(session, sync.mode, document["id"])
    items = document["items"]["data"]
    wares = await wares_of(sync, session, map(_priced, items))
    item = next((one for one in items if _plan(wares, one) is not None), None)
    if item is None and known is None:
        return None
    account_id = known["account_id"] if known else None
    if account_id is None:
        account_id = await account_of(
            sync, session, id_of(document["customer"]), others=[document, *sessions]
        )
    if account_id is None:
        raise NeedsMendingError(
            f"nobody knows whose the subscription {document['id']} is: give its customer the "
            "metadata tollkeeper_account and tollkeeper_platform"
        )
    if item is not None and document["status"] in ENTITLING:
        _check(wares, item)
    facts = await _facts(sync, session, document, item or items[0], wares)
    await lock_account(session, account_id)
    return await save_subscription(session, sync.mode, account_id, facts)


def ends_s(document: Mapping[str, Any], item: Mapping[str, Any]) -> int | None:
    """When a subscription ends, if somebody has cancelled it; `item` is what it pays for."""
    at = document["cancel_at"]
    if at is None and document["cancel_at_period_end"]:
        at = item["current_period_end"]
    return None if at is None else int(at)


def plan_period(document: Mapping[str, Any], item_id: str | None) -> tuple[int, int] | None:
    """The period of a subscription's item, in ms."""
    for item in document["items"]["data"]:
        if item["id"] == item_id:
            return item["current_period_start"] * SECOND_MS, item["current_period_end"] * SECOND_MS
    return None


def _priced(item: Mapping[str, Any]) -> Priced:
    return Priced(id_of(item["price"]["product"]), item["price"]["id"])


def _plan(wares: Wares, item: Mapping[str, Any]) -> str | None:
    sold = wares.sold(_priced(item))
    return sold.slug if sold is not None and sold.kind == "plan" else None


def _check(wares: Wares, item: Mapping[str, Any]) -> None:
    """Raises: NeedsMendingError for a plan or a price that nothing can be served by."""
    priced = _priced(item)
    sold = wares.sold(priced)
    if sold is None:
        return
    if sold.what is None:
        usable(sold, priced.product_id)
    if isinstance(sold.what, Plan):
        problem = price_problem(sold.what, months_of_price(item["price"]))
        if problem is not None:
            raise NeedsMendingError(f"the price {priced.price_id}: {problem}")


async def _facts(
    sync: Sync, session: Session, document: Document, item: Mapping[str, Any], wares: Wares
) -> SubscriptionFacts:
    price, quantity = item["price"], item.get("quantity") or 0
    unpaid = await unpaid_of(sync, document)
    facts = SubscriptionFacts(
        stripe_id=document["id"],
        customer_id=str(id_of(document["customer"])),
        status=document["status"],
        plan_slug=_plan(wares, item),
        product_id=id_of(price["product"]),
        price_id=price["id"],
        item_id=item["id"],
        quantity=quantity,
        currency=price["currency"],
        unit_amount=price["unit_amount"],
        months=months_of_price(price),
        discount_minor=_discount(document, price, quantity),
        period_start_ms=ms_of(item["current_period_start"]),
        period_end_ms=ms_of(item["current_period_end"]),
        trial_end_ms=ms_of(document["trial_end"]),
        cancel_ms=ms_of(ends_s(document, item)),
        canceled_ms=ms_of(document["canceled_at"]),
        started_ms=document["start_date"] * SECOND_MS,
        ended_ms=ms_of(document["ended_at"]),
        collection_paused=document["pause_collection"] is not None,
        unpaid_invoice_id=unpaid.invoice_id if unpaid else None,
        unpaid_since_ms=unpaid.since_ms if unpaid else None,
        failures=unpaid.failures if unpaid else 0,
    )
    return facts._replace(**await _next(sync, session, document, facts))


async def _next(
    sync: Sync, session: Session, document: Document, facts: SubscriptionFacts
) -> dict[str, Any]:
    """What a schedule changes it to, where that is another price or quantity."""
    schedule = document["schedule"]
    if not isinstance(schedule, dict):
        return {"schedule_id": schedule}
    known: dict[str, Any] = {"schedule_id": schedule["id"]}
    current = schedule.get("current_phase") or {}
    later = [
        phase
        for phase in schedule["phases"]
        if phase["start_date"] >= (current.get("end_date") or 0) and phase["items"]
    ]
    if schedule["status"] != "active" or not current or not later:
        return known
    phase = later[0]
    item = phase["items"][0]
    price_id, quantity = id_of(item["price"]), item.get("quantity", 1)
    if (price_id, quantity) == (facts.price_id, facts.quantity):
        return known
    price = await sync.api.ask(lambda v1: v1.prices.retrieve_async(str(price_id)))
    priced = Priced(id_of(price["product"]), price_id)
    wares = await wares_of(sync, session, [priced])
    sold = wares.sold(priced)
    return known | {
        "next_plan_slug": sold.slug if sold and sold.kind == "plan" else None,
        "next_price_id": price_id,
        "next_quantity": quantity,
        "next_months": months_of_price(price),
        "next_unit_amount": price["unit_amount"],
        "next_ms": phase["start_date"] * SECOND_MS,
    }


def _discount(document: Document, price: Document, quantity: int) -> int:
    """What lasting coupons take off of an invoice for a period."""
    coupons = []
    for discount in document["discounts"]:
        coupon = discount.get("source", {}).get("coupon") if isinstance(discount, dict) else None
        if not isinstance(coupon, dict) or coupon["duration"] not in LASTING:
            continue
        if coupon["percent_off"]:
            coupons.append(Coupon(basis_points=int(Decimal(str(coupon["percent_off"])) * 100)))
        elif coupon["currency"] == price["currency"]:
            coupons.append(Coupon(amount_minor=coupon["amount_off"] or 0))
    return discount_minor((price["unit_amount"] or 0) * quantity, coupons)


async def _tell_of_trial(sync: Sync, session: Session, account_id: int, document: Document) -> None:
    """Once per trial, and only while it goes on."""
    if document["status"] != "trialing":
        return
    subscription_id, end_ms = document["id"], document["trial_end"] * SECOND_MS
    detail = {"subscription": subscription_id, "trial_end_ms": end_ms}
    notice = Notice("trial_will_end", (subscription_id, end_ms), detail)
    await note_event(session, sync.mode, account_id, notice)

"""What can be done with subscriptions, and with packs: bought at Stripe's pages, changed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import or_never
from gateway.control.api.problems import invalid_field, too_many
from gateway.control.api.roles import ADMINS, EDITORS, MEMBERS, VIEWERS
from gateway.control.subscription.documents import subscription_document
from gateway.control.subscription.models import (
    Cancelled,
    Changed,
    Checkout,
    NewPack,
    NewSubscription,
    Portal,
    PortalRequest,
    Subscription,
    SubscriptionChange,
)
from gateway.operations.subscribed import subscribed_of
from gateway.stripe_sync import changes, checkout, portal
from gateway.stripe_sync.choosing import MONTHS_OF
from policies.billing_options import DunningRules

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.control.subscription.models import Purchase
    from gateway.stripe_sync.sync import Sync

OWN = "/v1/me"
ONE = "/v1/accounts/{account_id}"


async def read(ask: Ask) -> Subscription:
    """What the account has. By the books alone: Stripe need not be there."""
    account = await ask.account()
    # Accounts may not read the platform's settings; what is needed of them is no secret.
    settings = await ask.services.ledger.stripe_settings(ask.platform_id)
    livemode = True if settings is None else settings.livemode
    rules = DunningRules() if settings is None else settings.table.options.dunning
    found = await subscribed_of(ask.ledger, ask.counters, account, livemode=livemode, rules=rules)
    return subscription_document(found, livemode=livemode)


async def subscribe(ask: Ask, body: NewSubscription) -> Checkout:
    """A page where somebody can pay for it."""
    order = _order(ask, body, body.plan, MONTHS_OF[body.interval])
    return _page(await checkout.subscribe(await _sync(ask), await ask.account(), order))


async def buy_pack(ask: Ask, body: NewPack) -> Checkout:
    """The same for a pack."""
    order = _order(ask, body, body.pack)
    return _page(await checkout.buy_pack(await _sync(ask), await ask.account(), order))


async def open_portal(ask: Ask, body: PortalRequest) -> Portal:
    """A link into Stripe's portal."""
    url = await portal.open_portal(await _sync(ask), await ask.account(), body.return_url)
    return Portal(url=url)


async def change(ask: Ask, body: SubscriptionChange) -> Changed:
    """Another plan, interval or quantity."""
    if body == SubscriptionChange():
        raise invalid_field("", "Say what is to be different: plan, interval or quantity.")
    wanted = changes.Wanted(
        once=ask.change_id,
        plan_slug=body.plan,
        months=None if body.interval is None else MONTHS_OF[body.interval],
        quantity=body.quantity,
    )
    return await _changed(ask, await changes.change(await _sync(ask), await ask.account(), wanted))


async def undo_change(ask: Ask) -> Changed:
    """Leave it as it is."""
    return await _changed(ask, await changes.undo_change(await _sync(ask), await ask.account()))


async def cancel(ask: Ask) -> Cancelled:
    """Let it end."""
    until_ms = await changes.cancel(await _sync(ask), await ask.account())
    return Cancelled(effective_until=until_ms, subscription=await read(ask))


async def resume(ask: Ask) -> Subscription:
    """Let it go on after all."""
    await changes.resume(await _sync(ask), await ask.account())
    return await read(ask)


def _order(ask: Ask, body: Purchase, slug: str, months: int = 0) -> checkout.Order:
    """So many a minute: each is a session at Stripe, and some objects. Raises: Problem (429)."""
    if wait_ms := ask.services.checkouts.take(ask.caller.actor):
        raise too_many(wait_ms, "Too many checkouts at once.")
    return checkout.Order(
        slug=slug,
        quantity=body.quantity,
        once=ask.change_id,
        months=months,
        currency=body.currency,
        success_url=body.success_url,
        cancel_url=body.cancel_url,
        email=body.email,
    )


async def _sync(ask: Ask) -> Sync:
    """Raises: NotSetUpError, which is a problem of its own."""
    await ask.account()  # somebody else's is not there, with Stripe or without
    return await ask.services.billing.sync(ask.platform_id)


async def _changed(ask: Ask, outcome: changes.Outcome) -> Changed:
    return Changed(
        result=outcome.result,
        effective_at=or_never(outcome.effective_ms),
        payment_url=outcome.payment_url,
        subscription=await read(ask),
    )


def _page(made: checkout.Checkout) -> Checkout:
    return Checkout(url=made.url, session_id=made.session_id, expires_at=made.expires_ms)


_CHECKOUT = (
    "Answers a page of Stripe's, good for a day. What is paid there is the account's when Stripe "
    "says so, a moment later. `409 stripe_not_set_up` where the platform has no Stripe."
)
_CHANGE = (
    "Dearer by the month, or more of the same: at once, billed for the rest of the period, and "
    "paid first. Anything else: with the next period. What it is already drops what was to come of "
    "it. Asked again, it is not done again."
)
_CANCEL = "With the period that is paid for. A scheduled change is dropped."

ENDPOINTS = (
    Endpoint(
        "POST", "/v1/subscribe", "Subscribe to a plan", MEMBERS, subscribe,
        body=NewSubscription, answers=Checkout, creates=True, tag="subscription",
        description=_CHECKOUT,
    ),
    Endpoint(
        "POST", f"{OWN}/packs", "Buy a pack", MEMBERS, buy_pack,
        body=NewPack, answers=Checkout, creates=True, tag="subscription", description=_CHECKOUT,
    ),
    Endpoint(
        "POST", f"{OWN}/portal", "Open Stripe's portal", ADMINS, open_portal,
        body=PortalRequest, answers=Portal, creates=True, tag="subscription",
    ),
    Endpoint(
        "GET", f"{OWN}/subscription", "What I am subscribed to", MEMBERS, read,
        answers=Subscription, tag="subscription",
    ),
    Endpoint(
        "POST", f"{OWN}/subscription/cancel", "End my subscription", ADMINS, cancel,
        answers=Cancelled, creates=True, tag="subscription", description=_CANCEL,
    ),
    Endpoint(
        "POST", f"{OWN}/subscription/resume", "Let my subscription go on", ADMINS, resume,
        answers=Subscription, creates=True, tag="subscription",
    ),
    Endpoint(
        "POST", f"{OWN}/subscription/change", "Change my subscription", ADMINS, change,
        body=SubscriptionChange, answers=Changed, creates=True, tag="subscription",
        description=_CHANGE,
    ),
    Endpoint(
        "POST", f"{OWN}/subscription/change/undo", "Drop a change to come", ADMINS, undo_change,
        answers=Changed, creates=True, tag="subscription",
    ),
    Endpoint(
        "POST", f"{ONE}/subscribe", "Have an account subscribe to a plan", EDITORS, subscribe,
        body=NewSubscription, answers=Checkout, creates=True, tag="subscription",
        description=_CHECKOUT,
    ),
    Endpoint(
        "POST", f"{ONE}/packs", "Have an account buy a pack", EDITORS, buy_pack,
        body=NewPack, answers=Checkout, creates=True, tag="subscription", description=_CHECKOUT,
    ),
    Endpoint(
        "POST", f"{ONE}/portal", "Open Stripe's portal for an account", EDITORS, open_portal,
        body=PortalRequest, answers=Portal, creates=True, tag="subscription",
    ),
    Endpoint(
        "GET", f"{ONE}/subscription", "What an account is subscribed to", VIEWERS, read,
        answers=Subscription, tag="subscription",
    ),
    Endpoint(
        "POST", f"{ONE}/subscription/cancel", "End an account's subscription", EDITORS, cancel,
        answers=Cancelled, creates=True, tag="subscription", description=_CANCEL,
    ),
    Endpoint(
        "POST", f"{ONE}/subscription/resume", "Let an account's subscription go on", EDITORS,
        resume, answers=Subscription, creates=True, tag="subscription",
    ),
    Endpoint(
        "POST", f"{ONE}/subscription/change", "Change an account's subscription", EDITORS, change,
        body=SubscriptionChange, answers=Changed, creates=True, tag="subscription",
        description=_CHANGE,
    ),
    Endpoint(
        "POST", f"{ONE}/subscription/change/undo", "Drop an account's change to come", EDITORS,
        undo_change, answers=Changed, creates=True, tag="subscription",
    ),
)  # fmt: skip

"""Stripe's hosted page for subscriptions and packs: a session of it, for one account to pay.

The page's payer need not be who asked. So that what is paid there is the account's in any order of
events, its name is on the session, and on the subscription or payment that comes of it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from gateway.config import Problem
from gateway.ledger.stripe_products import PLAN_KIND
from gateway.operations.errors import ConflictError, DocumentError
from gateway.stripe_sync.buyers import as_customer
from gateway.stripe_sync.choosing import pack_offer, plan_offer
from gateway.stripe_sync.customers import PLATFORM_KEY, account_metadata, id_of
from gateway.stripe_sync.errors import StripeRefusedError
from policies.billing import ENTITLING
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from gateway.ledger.rows import AccountRow
    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]

log = logging.getLogger("tollkeeper.stripe")

URL_CHARACTERS_MAX = 2_000
SUBSCRIPTION = "subscription"
# Of subscriptions that nobody ever paid for: they are no first one.
NEVER_BEGUN = ("incomplete", "incomplete_expired")


class Order(NamedTuple):
    """What is to be bought, how, and where the payer goes afterwards.

    `months` are a plan's; `once` names the request, and is the same when that is repeated. None
    of the URLs: what the platform's settings say.
    """

    slug: str
    quantity: int
    once: str
    months: int = 0
    currency: str | None = None
    success_url: str | None = None
    cancel_url: str | None = None
    email: str | None = None


class Checkout(NamedTuple):
    """A page that waits for a payer until a moment."""

    url: str
    session_id: str
    expires_ms: int


async def subscribe(sync: Sync, account: AccountRow, order: Order) -> Checkout:
    """A page for a subscription to a plan; with the plan's trial, if it is the account's first.

    Of an account's pages only the last can be paid: else each of them could begin a trial.

    Raises: ConflictError when the account has a subscription, or the plan is not sold so;
    DocumentError for a wrong field; StripeTroubleError.
    """
    _check_standing(account)
    success_url, cancel_url = _urls(sync, order)
    offer = await plan_offer(sync, order.slug, order.months, currency=order.currency)

    async def work(customer_id: str) -> Document:
        past = await _subscriptions(sync, customer_id)
        _refuse_second(past)
        data: Document = {"metadata": account_metadata(sync, account.account_id)}
        known = await sync.ledger.subscriptions(account.account_id, livemode=sync.livemode)
        statuses = [one["status"] for one in past] + [row.facts.status for row in known]
        if offer.plan.trial_days and all(status in NEVER_BEGUN for status in statuses):
            data["trial_period_days"] = offer.plan.trial_days
        made = await _create(
            sync,
            account,
            order,
            {
                **_common(sync, account, customer_id, success_url, cancel_url),
                "mode": SUBSCRIPTION,
                "line_items": [{"price": offer.price.price_id, "quantity": order.quantity}],
                "subscription_data": data,
            },
        )
        await _close_others(sync, customer_id, made["id"])
        return made

    return _checkout(await as_customer(sync, account, order.email, work))


async def buy_pack(sync: Sync, account: AccountRow, order: Order) -> Checkout:
    """A page for a pack, in any number.

    Raises: as `subscribe`, but whoever has a subscription may buy packs.
    """
    _check_standing(account)
    success_url, cancel_url = _urls(sync, order)
    price = await pack_offer(sync, order.slug, currency=order.currency)

    async def work(customer_id: str) -> Document:
        return await _create(
            sync,
            account,
            order,
            {
                **_common(sync, account, customer_id, success_url, cancel_url),
                "mode": "payment",
                "line_items": [{"price": price.price_id, "quantity": order.quantity}],
                "payment_intent_data": {"metadata": account_metadata(sync, account.account_id)},
            },
        )

    return _checkout(await as_customer(sync, account, order.email, work))


def check_url(field: str, url: str) -> None:
    """Raises: DocumentError for what no browser should be sent to."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        fits = False
    if not fits or len(url) > URL_CHARACTERS_MAX or not url.isprintable() or " " in url:
        raise DocumentError([Problem(field, "This is no http or https URL.")])


def _check_standing(account: AccountRow) -> None:
    if account.status != "active":
        raise ConflictError("account_suspended", "the account is suspended by the platform")


def _urls(sync: Sync, order: Order) -> tuple[str, str | None]:
    """Where the payer goes. Raises: DocumentError when nobody has said so."""
    options = sync.options
    for field, url in (("success_url", order.success_url), ("cancel_url", order.cancel_url)):
        if url is not None:
            check_url(field, url)
    success_url = order.success_url or options.success_url
    if success_url is None:
        told = "Say where the payer goes: the platform's settings have no success_url."
        raise DocumentError([Problem("success_url", told)])
    return success_url, order.cancel_url or options.cancel_url


def _common(
    sync: Sync, account: AccountRow, customer_id: str, success_url: str, cancel_url: str | None
) -> Document:
    params: Document = {
        "customer": customer_id,
        "client_reference_id": str(account.account_id),
        "metadata": account_metadata(sync, account.account_id),
        "success_url": success_url,
        "allow_promotion_codes": sync.options.promotion_codes,
    }
    if cancel_url is not None:
        params["cancel_url"] = cancel_url
    if sync.options.automatic_tax:
        # Tax needs an address, which a customer that we have made gets on the page.
        params["automatic_tax"] = {"enabled": True}
        params["customer_update"] = {"address": "auto"}
    return params


async def _create(sync: Sync, account: AccountRow, order: Order, params: Document) -> Document:
    key = f"tollkeeper-checkout-{account.account_id}-{order.once}-{params['customer']}"
    return await sync.api.ask(
        lambda v1: v1.checkout.sessions.create_async(
            params,  # type: ignore[arg-type] # put together above
            {"idempotency_key": key},
        )
    )


async def _close_others(sync: Sync, customer_id: str, session_id: str) -> None:
    """Let nobody pay on earlier pages for subscriptions of ours."""
    async for other in sync.api.pages(
        lambda v1, params: v1.checkout.sessions.list_async(params),
        customer=customer_id,
        status="open",
    ):
        ours = (other["metadata"] or {}).get(PLATFORM_KEY) == sync.settings.slug
        if ours and other["mode"] == SUBSCRIPTION and other["id"] != session_id:
            await _close(sync, other["id"])


async def _close(sync: Sync, session_id: str) -> None:
    try:
        await sync.api.ask(lambda v1: v1.checkout.sessions.expire_async(session_id))
    except StripeRefusedError as error:
        log.warning("the page %s could not be closed: %s", session_id, error)


def _checkout(session: Document) -> Checkout:
    return Checkout(session["url"], session["id"], session["expires_at"] * SECOND_MS)


async def _subscriptions(sync: Sync, customer_id: str) -> list[Document]:
    """Every subscription to a plan of ours that a customer ever had, as Stripe has them now."""
    products = await sync.ledger.stripe_products(*sync.mode, kind=PLAN_KIND)
    ours = {product.product_id for product in products}
    return [
        one
        async for one in sync.api.pages(
            lambda v1, params: v1.subscriptions.list_async(params),
            customer=customer_id,
            status="all",
        )
        if any(id_of(item["price"]["product"]) in ours for item in one["items"]["data"])
    ]


def _refuse_second(past: list[Document]) -> None:
    """Raises: ConflictError when one of them goes on: then that is to be changed."""
    if any(one["status"] in ENTITLING for one in past):
        raise ConflictError(
            "already_subscribed",
            "the account has a subscription: change it instead of buying another",
        )

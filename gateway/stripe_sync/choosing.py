"""What somebody buys: from the name of a plan or pack to the price that Stripe sells it at."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.config import Problem
from gateway.ledger.stripe_products import PACK_KIND, PLAN_KIND
from gateway.operations.errors import ConflictError, DocumentError
from gateway.stripe_sync.metadata import TAG

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.ledger.stripe_products import StripePrice
    from gateway.stripe_sync.sync import Sync
    from policies.catalog import Plan

MONTHS_OF = {"month": 1, "year": 12}


class PlanOffer(NamedTuple):
    """A plan at a price."""

    plan: Plan
    price: StripePrice


async def plan_offer(
    sync: Sync, slug: str, months: int, *, currency: str | None = None
) -> PlanOffer:
    """A plan at its price for so many months; without a currency there may be one of one only.

    Raises: DocumentError for an unknown plan; ConflictError for one that is not sold so.
    """
    stored = await sync.ledger.plan(sync.platform_id, slug)
    if stored is None:
        raise DocumentError([Problem("plan", f'There is no plan "{slug}".')])
    if stored.plan.gives_nothing:  # who has it already keeps it
        raise ConflictError(
            "not_for_sale",
            f'the plan "{slug}" is not sold: it gives no credits, and no overage = "bill"',
        )
    prices = await _prices(sync, PLAN_KIND, slug, has_price=bool(stored.plan.prices))
    fitting = [price for price in prices if price.months == months]
    if not fitting:
        spans = sorted({price.months for price in prices if price.months is not None})
        known = ", ".join(map(span_text, spans)) or "nothing that recurs"
        raise ConflictError(
            "no_price",
            f'the plan "{slug}" has no price for {span_text(months)} at Stripe, but for: {known}',
        )
    return PlanOffer(stored.plan, _in_currency(f'the plan "{slug}"', fitting, currency))


async def pack_offer(sync: Sync, slug: str, *, currency: str | None = None) -> StripePrice:
    """The price that a pack is sold at.

    Raises: DocumentError for an unknown pack; ConflictError for one that is not sold.
    """
    stored = await sync.ledger.pack(sync.platform_id, slug)
    if stored is None:
        raise DocumentError([Problem("pack", f'There is no pack "{slug}".')])
    if not stored.active:
        raise ConflictError("not_for_sale", f'the pack "{slug}" is not sold any more')
    found = await _prices(sync, PACK_KIND, slug, has_price=bool(stored.pack.prices))
    prices = [price for price in found if price.months is None]
    if not prices:
        raise ConflictError(
            "no_price", f'the pack "{slug}" has no price at Stripe that is paid once'
        )
    return _in_currency(f'the pack "{slug}"', prices, currency)


def span_text(months: int) -> str:
    """How long a price is for, for people."""
    years, rest = divmod(months, 12)
    if rest:
        return "a month" if months == 1 else f"{months} months"
    return "a year" if years == 1 else f"{years} years"


async def _prices(sync: Sync, kind: str, slug: str, *, has_price: bool) -> list[StripePrice]:
    """What it is sold at. `has_price`: it has one here, which a push takes to Stripe.

    Raises: ConflictError when Stripe has no product of it, or one that somebody must mend first.
    """
    products = await sync.ledger.stripe_products(*sync.mode, kind=kind, slug=slug)
    sold = [product for product in products if product.is_sold]
    if sold:
        return [price for product in sold for price in product.prices if price.is_sold]
    parked = next((one for one in products if one.active and one.problem), None)
    if parked is not None:
        raise ConflictError(
            "product_parked",
            f'the {kind} "{slug}" can\'t be bought until its product {parked.product_id} is '
            f"mended: {parked.problem}",
        )
    signup = await sync.ledger.signup_terms(sync.platform_id) if kind == PLAN_KIND else None
    if signup is not None and signup.plan_slug == slug:
        why = "accounts without a subscription have it, and to cancel one leads to it"
    elif products:
        why = f"its product {products[0].product_id} is archived at Stripe"
    else:
        why = f"Stripe has no product of it: {_to_sell(sync, kind, slug, has_price=has_price)}"
    raise ConflictError("not_for_sale", f'the {kind} "{slug}" is not sold; {why}')


def _to_sell(sync: Sync, kind: str, slug: str, *, has_price: bool) -> str:
    """What its owner does so that it is sold."""
    push = 'run "tollkeeper stripe plan-push"'
    if not has_price:
        push = f"give it a price and {push}"
    return f"{push}, or make a product with the metadata {TAG}={sync.settings.slug}, {kind}={slug}"


def _in_currency(what: str, prices: Iterable[StripePrice], currency: str | None) -> StripePrice:
    """The lowest price in a currency; without one there must be one currency only."""
    by_currency: dict[str, StripePrice] = {}
    for price in sorted(prices, key=lambda one: (one.unit_amount or 0, one.price_id)):
        by_currency.setdefault(price.currency, price)
    if currency is None and len(by_currency) == 1:
        return next(iter(by_currency.values()))
    known = ", ".join(sorted(by_currency))
    if currency is None:
        raise ConflictError("currency_needed", f"{what} is sold in {known}: say in which currency")
    if currency not in by_currency:
        raise ConflictError("no_price", f"{what} has no such price in {currency}, but in: {known}")
    return by_currency[currency]

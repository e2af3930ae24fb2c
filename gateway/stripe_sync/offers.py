"""What an account can buy: plans and packs, each with its prices.

With Stripe, what it sells now; without, what the config and the API say things cost, for people to
see. What has no price can't be bought, and is not offered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.stripe_products import PACK_KIND, PLAN_KIND
from gateway.stripe_sync.errors import KeysMissingError
from gateway.stripe_sync.products import described_by_platform
from policies.catalog import Pack, Plan
from policies.money import Money

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.ledger import Ledger
    from gateway.ledger.stripe_products import StripeProduct
    from gateway.stripe_sync.sync import Billing


class OfferPrice(NamedTuple):
    """What something costs; `months` None: once."""

    months: int | None
    money: Money


class Offer(NamedTuple):
    """A plan or pack that can be bought, at any of these prices."""

    what: Plan | Pack
    prices: tuple[OfferPrice, ...]


class Offers(NamedTuple):
    """All that a platform sells. `livemode` None: it has no Stripe, so nobody can pay here."""

    livemode: bool | None
    plans: tuple[Offer, ...]
    packs: tuple[Offer, ...]


async def offers_of(ledger: Ledger, billing: Billing, platform_id: int) -> Offers:
    """What a platform sells now.

    Raises: LedgerUnavailable.
    """
    described = await described_by_platform(ledger, platform_id)
    livemode = await _mode(billing, platform_id)
    products = []
    if livemode is not None:
        products = await ledger.stripe_products(platform_id, livemode)
    found: dict[str, list[Offer]] = {PLAN_KIND: [], PACK_KIND: []}
    for (kind, slug), known in described.items():
        if livemode is None:
            prices = _own(known.what)
        else:
            prices = _at_stripe(one for one in products if (one.kind, one.slug) == (kind, slug))
        if prices and known.is_sold and not _gives_nothing(known.what):
            found[kind].append(Offer(known.what, prices))
    return Offers(livemode, tuple(found[PLAN_KIND]), tuple(found[PACK_KIND]))


def _gives_nothing(what: Plan | Pack) -> bool:
    return isinstance(what, Plan) and what.gives_nothing


async def _mode(billing: Billing, platform_id: int) -> bool | None:
    try:
        settings = await billing.source.settings(platform_id)
    except KeysMissingError:
        return None
    return None if settings is None else settings.livemode


def _own(what: Plan | Pack) -> tuple[OfferPrice, ...]:
    if isinstance(what, Pack):
        return tuple(OfferPrice(None, price) for price in what.prices)
    return tuple(
        OfferPrice(one.months, Money(one.currency, one.unit_amount)) for one in what.prices
    )


def _at_stripe(products: Iterable[StripeProduct]) -> tuple[OfferPrice, ...]:
    """The prices at which these products can be bought, by months and amount."""
    prices = {
        OfferPrice(price.months, Money(price.currency, price.unit_amount))
        for product in products
        if product.is_sold
        for price in product.prices
        if price.is_sold and price.unit_amount is not None
    }
    return tuple(sorted(prices, key=_order))


def _order(price: OfferPrice) -> tuple[int, str, int]:
    return price.months or 0, price.money.currency, price.money.amount_minor

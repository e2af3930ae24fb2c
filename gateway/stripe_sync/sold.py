"""What of ours a line, an item or a session is about: from Stripe's products to plans and packs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.billing import Sold, price_months, products_sold
from gateway.stripe_sync.errors import NeedsMendingError, StripeMissingError
from gateway.stripe_sync.metadata import TAG
from gateway.stripe_sync.products import look_at_product

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.ledger.database import Session
    from gateway.stripe_sync.sync import Sync

MONTHS_PER_YEAR = 12


class Priced(NamedTuple):
    """A price of Stripe's and its product; either may be missing, as on a line made by hand."""

    product_id: str | None
    price_id: str | None


class Wares(NamedTuple):
    """What products are here, and for how many months prices are. Foreign products are none."""

    products: Mapping[str, Sold]
    months: Mapping[str, int | None]

    def sold(self, priced: Priced) -> Sold | None:
        """What of ours is sold by this; None: nothing."""
        return self.products.get(priced.product_id or "")

    def months_of(self, priced: Priced) -> int | None:
        """For how many months its price is; None: paid once."""
        return self.months.get(priced.price_id or "")


async def wares_of(sync: Sync, session: Session, all_priced: Iterable[Priced]) -> Wares:
    """Look up everything that is sold by these prices.

    A product that says it is this platform's and is not known yet is taken over first: the event
    that tells of it may come later.
    """
    priced = set(all_priced)
    wanted = {one.product_id for one in priced if one.product_id}
    products = await products_sold(session, sync.mode, wanted)
    unknown = [one for one in sorted(wanted - products.keys()) if await _says_ours(sync, one)]
    for product_id in unknown:
        await look_at_product(sync, product_id)
    if unknown:
        products = await products_sold(session, sync.mode, wanted)
    ours = {one.price_id for one in priced if one.price_id and one.product_id in products}
    months = await price_months(session, sync.mode, ours)
    for price_id in sorted(ours - months.keys()):
        price = await sync.api.ask(lambda v1: v1.prices.retrieve_async(price_id))  # noqa: B023 -- awaited at once
        months[price_id] = months_of_price(price)
    return Wares(products, months)


def months_of_price(price: Mapping[str, Any]) -> int | None:
    """For how many months a price of Stripe's is; None: it is paid once, or for days or weeks."""
    recurring = price.get("recurring")
    if not recurring:
        return None
    per = {"month": 1, "year": MONTHS_PER_YEAR}.get(recurring["interval"])
    return None if per is None else per * int(recurring["interval_count"])


def quantity_of(line: Mapping[str, Any]) -> int:
    """For how many it is; what does not say is for one. Of a plan there may be none."""
    found: int | None = line["quantity"]
    return 1 if found is None else found


def usable(sold: Sold, product_id: str | None) -> Sold:
    """The same. Raises: NeedsMendingError for what is parked: it never gives nothing."""
    if sold.problem is not None or sold.what is None:
        why = sold.problem or f"nobody describes that {sold.kind} any more"
        raise NeedsMendingError(
            f'the product {product_id} of the {sold.kind} "{sold.slug}" needs mending: {why}'
        )
    return sold


async def _says_ours(sync: Sync, product_id: str) -> bool:
    """Asked first, for others may sell much more by this Stripe account than we do."""
    try:
        product = await sync.api.ask(lambda v1: v1.products.retrieve_async(product_id))
    except StripeMissingError:
        return False
    return bool((product.get("metadata") or {}).get(TAG) == sync.settings.slug)

"""What of ours a line, an item or a session is about: from Stripe's products to plans and packs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.billing import Sold, price_months, products_sold
from gateway.stripe_sync.customers import mode_of
from gateway.stripe_sync.errors import NeedsMendingError, StripeMissingError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from gateway.ledger.database import Session
    from gateway.stripe_sync.sync import Sync

PRODUCT_KEY = "tollkeeper"  # the slug of the platform whose product it is
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

    Raises: NeedsMendingError for a product that says it is this platform's, and that the books
    don't know: it is looked at by the catalogue's sync, and then there is something to go by.
    """
    priced = set(all_priced)
    wanted = {one.product_id for one in priced if one.product_id}
    products = await products_sold(session, mode_of(sync), wanted)
    for product_id in sorted(wanted - products.keys()):
        if await _says_ours(sync, product_id):
            raise NeedsMendingError(
                f"the product {product_id} is tagged as yours and not known here yet: "
                'run "tollkeeper stripe sync"'
            )
    ours = {one.price_id for one in priced if one.price_id and one.product_id in products}
    months = await price_months(session, mode_of(sync), ours)
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


def usable(sold: Sold, product_id: str | None) -> Sold:
    """The same. Raises: NeedsMendingError for what is parked: it never gives nothing."""
    if sold.problem is not None or sold.what is None:
        raise NeedsMendingError(
            f'the product {product_id} of the {sold.kind} "{sold.slug}" needs mending: '
            f"{sold.problem}"
        )
    return sold


async def _says_ours(sync: Sync, product_id: str) -> bool:
    try:
        product = await sync.api.ask(lambda v1: v1.products.retrieve_async(product_id))
    except StripeMissingError:
        return False
    metadata = product.get("metadata") or {}
    return bool(metadata.get(PRODUCT_KEY) == sync.settings.slug)

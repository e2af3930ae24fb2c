"""What a platform sells, as Stripe has it: products with their prices, in one mode.

A product with a problem is parked: nothing is sold or granted by it until somebody mends it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, rows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncpg import Record

    from gateway.ledger.database import Session

PLAN_KIND, PACK_KIND, UNKNOWN_KIND = "plan", "pack", "unknown"


class StripePrice(NamedTuple):
    """A price. `unit_amount` is in minor units; `months` None: it is paid once."""

    price_id: str
    product_id: str
    active: bool
    currency: str
    unit_amount: int | None
    months: int | None
    problem: str | None = None

    @property
    def is_sold(self) -> bool:
        """Whether something can be bought at it, as far as it knows."""
        return self.active and self.problem is None and self.unit_amount is not None


class StripeProduct(NamedTuple):
    """A product of this platform. `kind` and `slug` say which plan or pack it sells."""

    product_id: str
    kind: str
    slug: str
    name: str
    active: bool
    metadata: Mapping[str, str]
    problem: str | None = None
    synced_ms: int = 0
    prices: tuple[StripePrice, ...] = ()

    @property
    def is_sold(self) -> bool:
        """Whether it can be bought."""
        return self.active and self.problem is None


class StripeProducts(Database):
    """Products and prices."""

    async def stripe_products(
        self,
        platform_id: int,
        livemode: bool,
        *,
        kind: str | None = None,
        slug: str | None = None,
    ) -> list[StripeProduct]:
        """The platform's products, or those of a plan or pack; by kind and slug."""
        return await find_products(self._session, platform_id, livemode, kind=kind, slug=slug)

    async def stripe_price(
        self,
        platform_id: int,
        livemode: bool,
        price_id: str,
    ) -> StripePrice | None:
        """The platform's price of this id."""
        record = await self._session.one("stripe_price_find", platform_id, livemode, price_id)
        return StripePrice(**record) if record else None


async def find_product(
    session: Session,
    platform_id: int,
    livemode: bool,
    product_id: str,
) -> StripeProduct | None:
    """The platform's product of this id, with its prices."""
    found = await session.all("stripe_product_get", platform_id, livemode, product_id, None, None)
    products = await _with_prices(session, platform_id, livemode, found)
    return products[0] if products else None


async def find_products(
    session: Session,
    platform_id: int,
    livemode: bool,
    *,
    kind: str | None = None,
    slug: str | None = None,
) -> list[StripeProduct]:
    """As `StripeProducts.stripe_products`, wherever the session is."""
    found = await session.all("stripe_product_get", platform_id, livemode, None, kind, slug)
    return await _with_prices(session, platform_id, livemode, found)


async def save_product(
    session: Session,
    platform_id: int,
    livemode: bool,
    product: StripeProduct,
) -> None:
    """Keep a product as it is now, with exactly these prices."""
    key = (platform_id, livemode)
    await session.value(
        "stripe_product_save",
        *key,
        product.product_id,
        product.kind,
        product.slug,
        product.name,
        product.active,
        json.dumps(dict(product.metadata)),
        product.problem,
    )
    for price in product.prices:
        await session.value("stripe_price_save", *key, *_columns(price))
    kept = [price.price_id for price in product.prices]
    await session.value("stripe_price_keep", *key, product.product_id, kept)


async def delete_product(
    session: Session,
    platform_id: int,
    livemode: bool,
    product_id: str,
) -> None:
    """Forget a product that Stripe does not have any more."""
    await session.value("stripe_product_delete", platform_id, livemode, product_id)


def _columns(price: StripePrice) -> tuple[object, ...]:
    return (
        price.price_id,
        price.product_id,
        price.active,
        price.currency,
        price.unit_amount,
        price.months,
        price.problem,
    )


async def _with_prices(
    session: Session,
    platform_id: int,
    livemode: bool,
    found: Sequence[Record],
) -> list[StripeProduct]:
    ids = [record["product_id"] for record in found]
    prices = rows(
        StripePrice,
        await session.all("stripe_price_get", platform_id, livemode, ids) if ids else [],
    )
    return [
        StripeProduct(
            **{**record, "metadata": json.loads(record["metadata"])},
            prices=tuple(price for price in prices if price.product_id == record["product_id"]),
        )
        for record in found
    ]

"""The catalogue as Stripe has it: products that are tagged as a platform's, with their prices.

What is sold is described in one place: by the config, by the API, or by a product's metadata. A
plan that nobody else describes is what its product says. A product that says nothing sensible is
parked with the reason: its plan stays as it was known, and nothing is sold or granted by it. Each
look takes all that Stripe has now, under one lock for the catalogue, so that it makes no difference
which events came, and when.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.catalog import lock_catalog, write_plan
from gateway.ledger.offerings import find_plan
from gateway.ledger.packs import stored_packs, write_pack
from gateway.ledger.rows import BY_STRIPE
from gateway.ledger.stripe_products import (
    PACK_KIND,
    PLAN_KIND,
    StripeProduct,
    delete_product,
    find_product,
    find_products,
    save_product,
)
from gateway.ledger.subscriptions import lock_objects
from gateway.operations.errors import NotToldError
from gateway.operations.publish import publish_accounts
from gateway.stripe_sync.client import PAGE_MAX
from gateway.stripe_sync.errors import StripeMissingError
from gateway.stripe_sync.metadata import TAG, read_metadata
from gateway.stripe_sync.shelf import Described, decided, price_of
from gateway.stripe_sync.sync import CATALOGUE
from policies.catalog import Pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from gateway.ledger import Ledger
    from gateway.ledger.database import Session
    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sync import Sync
    from policies.catalog import Plan

    Document = Mapping[str, Any]
    Shelf = tuple[str, str]  # kind and slug: the products of one plan or pack

PLANS_MAX = 10_000
UNTAGGED = f'it is not tagged "{TAG}" any more'

log = logging.getLogger("tollkeeper.stripe")


class Synced(NamedTuple):
    """What a look at all of the catalogue found. `parked`: product → why."""

    livemode: bool
    products: int
    plans_changed: tuple[str, ...]
    packs_changed: tuple[str, ...]
    parked: Mapping[str, str]


class _Looked(NamedTuple):
    """A product as Stripe has it, None: no more; with its prices."""

    product_id: str
    product: Document | None
    prices: Sequence[Document]


async def sync_catalogue(sync: Sync) -> Synced:
    """Take over all that is tagged as the platform's, whether it is active or not.

    Raises: StripeTroubleError, LedgerUnavailable; then nothing is changed.
    """
    async with sync.catalogue_locked() as session:
        listed = {one["id"]: one async for one in all_listed(sync, session, _list_products)}
        ours = {product_id for product_id, one in listed.items() if _is_ours(sync, one)}
        known = {row.product_id: row for row in await _find(sync, session)}
        prices = [
            one
            async for one in all_listed(sync, session, _list_prices)
            if one["product"] in ours or one["product"] in known
        ]
        shelves: set[Shelf] = set()
        for product_id in sorted(ours | known.keys()):
            own = [one for one in prices if one["product"] == product_id]
            looked = _Looked(product_id, listed.get(product_id), own)
            shelves |= await _keep(sync, session, looked, known.get(product_id))
        changed = await _decide(sync, session, shelves)
        products = await _find(sync, session)
    await _tell(sync, changed)
    return Synced(
        sync.livemode,
        len(products),
        tuple(sorted(slug for kind, slug in changed if kind == PLAN_KIND)),
        tuple(sorted(slug for kind, slug in changed if kind == PACK_KIND)),
        {row.product_id: row.problem for row in products if row.problem is not None},
    )


async def all_listed(sync: Sync, session: Session, request: Any) -> AsyncIterator[Document]:
    """Everything of a list of all that the owner ever sold, under the lock of the catalogue."""
    number = 0
    async for one in sync.api.pages(request):
        if number % PAGE_MAX == 0:
            # The lock is ours already; a transaction that asks nothing for long would be ended.
            await lock_objects(session, sync.mode, CATALOGUE)
        number += 1
        yield one


async def described_by_platform(ledger: Ledger, platform_id: int) -> dict[Shelf, Described]:
    """Every plan and pack of the platform, and who describes it."""
    found: dict[Shelf, Described] = {}
    for stored in await ledger.plans_page(platform_id, limit=PLANS_MAX):
        found[PLAN_KIND, stored.plan.slug] = Described(stored.plan, stored.managed_by)
    for row in await ledger.all_packs(platform_id):
        found[PACK_KIND, row.pack.slug] = Described(row.pack, row.managed_by, is_sold=row.active)
    return found


async def sync_product(sync: Sync, hint: Hint) -> None:
    """Take over what a product is now, after an event of it.

    Raises: StripeTroubleError, LedgerUnavailable.
    """
    await look_at_product(sync, hint.object_id)


async def sync_price(sync: Sync, hint: Hint) -> None:
    """Take over the product of a price, after an event of that.

    Raises: StripeTroubleError, LedgerUnavailable.
    """
    try:
        price = await sync.api.ask(lambda v1: v1.prices.retrieve_async(hint.object_id))
        product_id = price["product"]
    except StripeMissingError:
        known = await sync.ledger.stripe_price(*sync.mode, hint.object_id)
        product_id = None if known is None else known.product_id
    if product_id is not None:
        await look_at_product(sync, product_id)


async def look_at_product(sync: Sync, product_id: str) -> None:
    """Take over one product as it is now, if it is this platform's, or was.

    Raises: StripeTroubleError, LedgerUnavailable.
    """
    async with sync.catalogue_locked() as session:
        product = await _retrieve(sync, product_id)
        known = await find_product(session, *sync.mode, product_id)
        if known is None and (product is None or not _is_ours(sync, product)):
            return
        prices = [one async for one in sync.api.pages(_list_prices, product=product_id)]
        looked = _Looked(product_id, product, prices)
        shelves = await _keep(sync, session, looked, known)
        changed = await _decide(sync, session, shelves)
    await _tell(sync, changed)


def _is_ours(sync: Sync, product: Document) -> bool:
    return bool(product["metadata"].get(TAG) == sync.settings.slug)


async def _find(sync: Sync, session: Session) -> list[StripeProduct]:
    return await find_products(session, *sync.mode)


def _list_products(v1: Any, params: Any) -> Any:
    return v1.products.list_async(params)


def _list_prices(v1: Any, params: Any) -> Any:
    return v1.prices.list_async(params)


async def _retrieve(sync: Sync, product_id: str) -> Document | None:
    """The product as it is now; None: it was deleted."""
    try:
        product = await sync.api.ask(lambda v1: v1.products.retrieve_async(product_id))
    except StripeMissingError:
        return None
    return None if product.get("deleted") else product


async def _keep(
    sync: Sync, session: Session, looked: _Looked, known: StripeProduct | None
) -> set[Shelf]:
    """Keep a product as Stripe has it; answers whose products have to be looked at together."""
    before = set() if known is None else {(known.kind, known.slug)}
    product = looked.product
    if product is None:
        await delete_product(session, *sync.mode, looked.product_id)
        return before
    metadata = product["metadata"]
    said = read_metadata(metadata, product["name"])
    is_ours = _is_ours(sync, product)
    if not is_ours and known is not None:
        kind, slug = known.kind, known.slug  # what was paid for it is still known to be of that
    else:
        kind, slug = said.kind, said.slug
    row = StripeProduct(
        looked.product_id,
        kind,
        slug,
        product["name"],
        product["active"],
        metadata,
        said.problem if is_ours else UNTAGGED,
        prices=tuple(price_of(price, kind) for price in looked.prices),
    )
    await save_product(session, *sync.mode, row)
    return before | {(kind, slug)}


async def _decide(sync: Sync, session: Session, shelves: Iterable[Shelf]) -> set[Shelf]:
    """Decide what plans and packs are by all of their products; answers which have changed."""
    await lock_catalog(session)
    return {shelf for shelf in sorted(shelves) if await _decide_one(sync, session, *shelf)}


async def _decide_one(sync: Sync, session: Session, kind: str, slug: str) -> bool:
    products = await find_products(session, *sync.mode, kind=kind, slug=slug)
    described = await _described(sync, session, kind, slug)
    after = decided(sync.settings.slug, products, described)
    for before, row in zip(products, after.products, strict=True):
        if row != before:
            await save_product(session, *sync.mode, row)
        if row.problem is not None and row.problem != before.problem:
            log.warning("%s: product %s is parked: %s", slug, row.product_id, row.problem)
    if after.what is None:
        return False
    return await _write(sync, session, after.what, described, is_sold=after.is_sold)


async def _described(sync: Sync, session: Session, kind: str, slug: str) -> Described | None:
    """The plan or pack of the books, and who describes it."""
    if kind == PLAN_KIND:
        plan = await find_plan(session, sync.platform_id, slug)
        return None if plan is None else Described(plan.plan, plan.managed_by)
    if kind == PACK_KIND:
        stored = (await stored_packs(session, sync.platform_id)).get(slug)
        if stored is not None:
            return Described(stored.pack, stored.managed_by, is_sold=stored.active)
    return None


async def _write(
    sync: Sync,
    session: Session,
    what: Plan | Pack,
    before: Described | None,
    *,
    is_sold: bool,
) -> bool:
    """Make the plan or pack what its product says; False where it is that already."""
    if before is not None and (before.what, before.is_sold) == (what, is_sold):
        return False
    if isinstance(what, Pack):
        await write_pack(session, sync.platform_id, what, BY_STRIPE, active=is_sold)
    else:
        await write_plan(session, sync.platform_id, what, BY_STRIPE)
    return True


async def _tell(sync: Sync, changed: Iterable[Shelf]) -> None:
    """Make the next calls of accounts follow their plans' limits; else the telling job does."""
    for kind, slug in sorted(changed):
        if kind == PLAN_KIND:
            account_ids = await sync.ledger.account_ids_of_plan(sync.platform_id, slug)
            try:
                await publish_accounts(sync.ledger, sync.counters, account_ids)
            except NotToldError:
                return

"""Makes Stripe's products and prices what the platform's plans and packs are.

What is to be done is decided first, by what Stripe has now, and is then either shown or done. A
price at Stripe can't change: another one is made, and the old one archived, at which those who have
it stay. Products without the platform's tag are never touched, nor are prices that somebody made by
hand. A product that a push made goes with what it was made for: it is archived when its plan is
not there any more, or costs nothing any more. What was done already is not done again, so a push
that broke off is just repeated.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.rows import BY_STRIPE
from gateway.ledger.stripe_products import PACK_KIND, PLAN_KIND
from gateway.ledger.subscriptions import lock_objects
from gateway.stripe_sync.errors import StripeRefusedError
from gateway.stripe_sync.metadata import (
    PUSHED,
    PUSHED_VALUE,
    TAG,
    is_pushed,
    keys_of,
    pack_metadata,
    plan_metadata,
)
from gateway.stripe_sync.products import PLANS_MAX, all_listed
from gateway.stripe_sync.sync import CATALOGUE
from policies.money import Money

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from gateway.ledger.database import Session
    from gateway.stripe_sync.sync import Sync
    from policies.catalog import Pack, Plan

    Document = Mapping[str, Any]

CREATE, UPDATE, ARCHIVE = "create", "update", "archive"
PRODUCT, PRICE = "product", "price"
_INTERVALS = {1: "month", 12: "year"}


class Step(NamedTuple):
    """One thing that is to be done at Stripe.

    `object_id` None: it is made. `changes` say in words what it will be; `params` are Stripe's.
    """

    action: str  # create | update | archive
    object: str  # product | price
    kind: str  # plan | pack
    slug: str
    object_id: str | None
    changes: Mapping[str, str]
    params: Mapping[str, Any]
    idempotency_key: str | None = None


class Wanted(NamedTuple):
    """A plan or pack as it is to be at Stripe.

    Without prices, those of a product that was made by hand are let be, and others are not sold.
    `name` None: as it is there, at first the slug.
    """

    kind: str
    slug: str
    name: str | None
    metadata: Mapping[str, str]
    prices: tuple[tuple[int | None, Money], ...]  # for how many months; None: paid once
    is_sold: bool = True


class Pushed(NamedTuple):
    """What was done, or would be; `left` names plans that can't be pushed, and why."""

    livemode: bool
    steps: tuple[Step, ...]
    left: Mapping[str, str]


async def push(sync: Sync, *, dry_run: bool) -> Pushed:
    """Make Stripe's catalogue the platform's; with `dry_run` only say how.

    Raises: StripeTroubleError, with what was to be done; LedgerUnavailable.
    """
    async with sync.catalogue_locked() as session:
        wanted, left = await _wanted(sync)
        products, prices = await _there(sync, session)
        steps = [step for one in wanted for step in steps_for(one, products, prices)]
        there = {(one.kind, one.slug) for one in wanted} | {(PLAN_KIND, slug) for slug in left}
        steps += left_over(there, products)
        if not dry_run:
            steps = await _do(sync, session, steps)
    return Pushed(sync.livemode, tuple(steps), left)


def steps_for(
    wanted: Wanted, products: Sequence[Document], prices: Sequence[Document]
) -> Iterator[Step]:
    """What makes Stripe have this, by its tagged products and their prices, the oldest first."""
    same = [one for one in products if one["metadata"].get(wanted.kind) == wanted.slug]
    if not wanted.is_sold:
        yield from _archive(wanted, same)
        return
    if not wanted.prices:
        yield from _archive(wanted, [one for one in same if is_pushed(one["metadata"])])
        same = [one for one in same if not is_pushed(one["metadata"])]
    found = min(same, key=lambda one: not one["active"], default=None)
    if found is None:
        if wanted.prices:
            yield _new_product(wanted)
            yield from (_new_price(wanted, None, [], *price) for price in wanted.prices)
        return
    own = [one for one in prices if one["product"] == found["id"]]
    yield from _update_product(wanted, found)
    if wanted.prices:
        yield from _price_steps(wanted, found, own)


def left_over(
    described: Collection[tuple[str, str]], products: Sequence[Document]
) -> Iterator[Step]:
    """What archives products that were pushed for something that nobody describes here any more.

    `described`: kind and slug of each plan and pack that is.
    """
    for product in products:
        metadata = product["metadata"]
        for kind in (PLAN_KIND, PACK_KIND):
            slug = metadata.get(kind)
            if slug is not None and is_pushed(metadata) and (kind, slug) not in described:
                yield from _archive(Wanted(kind, slug, None, {}, (), is_sold=False), [product])


def _archive(wanted: Wanted, products: Iterable[Document]) -> Iterator[Step]:
    for product in products:
        if product["active"]:
            yield _step(ARCHIVE, PRODUCT, wanted, product["id"], {}, {"active": False})


def _new_product(wanted: Wanted) -> Step:
    name = wanted.name or wanted.slug
    metadata = {**wanted.metadata, PUSHED: PUSHED_VALUE}
    params = {"name": name, "metadata": metadata}
    changes = {"name": name, **{f"metadata.{key}": text for key, text in metadata.items()}}
    step = _step(CREATE, PRODUCT, wanted, None, changes, params)
    return step._replace(idempotency_key=_key(wanted, params, ()))


def _update_product(wanted: Wanted, found: Document) -> Iterator[Step]:
    params: dict[str, Any] = {}
    changes: dict[str, str] = {}
    if wanted.name is not None and found["name"] != wanted.name:
        params["name"] = changes["name"] = wanted.name
    if not found["active"]:
        params["active"], changes["active"] = True, "true"
    there = found["metadata"]
    gone = dict.fromkeys(keys_of(wanted.kind) & there.keys() - wanted.metadata.keys(), "")
    texts = {key: text for key, text in wanted.metadata.items() if there.get(key) != text} | gone
    if texts:
        params["metadata"] = texts
        changes |= {f"metadata.{key}": texts[key] for key in sorted(texts)}
    if params:
        yield _step(UPDATE, PRODUCT, wanted, found["id"], changes, params)


def _price_steps(wanted: Wanted, found: Document, own: Sequence[Document]) -> Iterator[Step]:
    tagged = [one for one in own if one["metadata"].get(TAG) == wanted.metadata[TAG]]
    kept: list[str] = []
    for months, money in wanted.prices:
        alike = [one for one in own if _is_priced(one, months, money)]
        active = next((one for one in alike if one["active"]), None)
        archived = next((one for one in alike if one in tagged), None)
        if active is not None:
            kept.append(active["id"])
        elif archived is not None:
            kept.append(archived["id"])
            changes = {"active": "true", "amount": _amount(months, money)}
            yield _step(UPDATE, PRICE, wanted, archived["id"], changes, {"active": True})
        else:
            yield _new_price(wanted, found["id"], own, months, money)
    old = [one for one in tagged if one["active"] and one["id"] not in kept]
    old.sort(key=lambda one: (_months(one) or 0, one["currency"], one["unit_amount"] or 0))
    if found.get("default_price") in {one["id"] for one in old}:
        # Stripe archives no price that its product names; None: the one that was just made.
        other = kept[0] if kept else None
        changes = {"default_price": other or "the new price"}
        yield _step(UPDATE, PRODUCT, wanted, found["id"], changes, {"default_price": other})
    for one in old:
        money = Money(one["currency"], one["unit_amount"] or 0)
        changes = {"amount": _amount(_months(one), money)}
        yield _step(ARCHIVE, PRICE, wanted, one["id"], changes, {"active": False})


def _new_price(
    wanted: Wanted,
    product_id: str | None,
    own: Sequence[Document],
    months: int | None,
    money: Money,
) -> Step:
    params: dict[str, Any] = {
        "product": product_id,
        "currency": money.currency,
        "unit_amount": money.amount_minor,
        "metadata": {TAG: wanted.metadata[TAG]},
    }
    if months is not None:
        params["recurring"] = {"interval": _INTERVALS[months]}
    step = _step(CREATE, PRICE, wanted, None, {"amount": _amount(months, money)}, params)
    return step._replace(idempotency_key=_key(wanted, params, [one["id"] for one in own]))


def _step(  # noqa: PLR0917 - each names itself where it is called
    action: str,
    what: str,
    wanted: Wanted,
    object_id: str | None,
    changes: Mapping[str, str],
    params: Mapping[str, Any],
) -> Step:
    return Step(action, what, wanted.kind, wanted.slug, object_id, changes, params)


def _is_priced(price: Document, months: int | None, money: Money) -> bool:
    recurring = price["recurring"] or {}
    plain = price["billing_scheme"] == "per_unit" and price.get("transform_quantity") is None
    amount = (_months(price), price["currency"], price["unit_amount"])
    return (
        plain
        and recurring.get("usage_type", "licensed") == "licensed"
        and amount == (months, money.currency, money.amount_minor)
    )


def _months(price: Document) -> int | None:
    """For how many months a price is: 0 for what is no number of them, None: paid once."""
    recurring = price["recurring"]
    if recurring is None:
        return None
    per = {interval: months for months, interval in _INTERVALS.items()}
    return per.get(recurring["interval"], 0) * int(recurring["interval_count"])


def _amount(months: int | None, money: Money) -> str:
    if months is None:
        return str(money)
    return f"{money} per {_INTERVALS.get(months, f'{months} months')}"


def _key(wanted: Wanted, params: Mapping[str, Any], there: Sequence[str]) -> str:
    """Names what is made, and what was there before, so that it is made once however often asked.

    What was archived since is there, too: making the same again later is something else.
    """
    said = [wanted.metadata[TAG], wanted.kind, wanted.slug, params, sorted(there)]
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return f"tollkeeper-push-{digest}"


async def _wanted(sync: Sync) -> tuple[list[Wanted], dict[str, str]]:
    """What the config or the API describes; and what of it Stripe has no room for."""
    wanted, left = [], {}
    slug = sync.settings.slug
    for stored in await sync.ledger.plans_page(sync.platform_id, limit=PLANS_MAX):
        if stored.managed_by != BY_STRIPE:
            try:
                wanted.append(_wanted_plan(slug, stored.plan))
            except ValueError as error:
                left[stored.plan.slug] = str(error)
    wanted += [
        _wanted_pack(slug, row.pack, is_sold=row.active)
        for row in await sync.ledger.all_packs(sync.platform_id)
        if row.managed_by != BY_STRIPE
    ]
    return wanted, left


def _wanted_plan(platform_slug: str, plan: Plan) -> Wanted:
    prices = tuple(
        (price.months, Money(price.currency, price.unit_amount)) for price in plan.prices
    )
    return Wanted(PLAN_KIND, plan.slug, None, plan_metadata(platform_slug, plan), prices)


def _wanted_pack(platform_slug: str, pack: Pack, *, is_sold: bool) -> Wanted:
    prices = tuple((None, price) for price in pack.prices)
    metadata = pack_metadata(platform_slug, pack)
    return Wanted(PACK_KIND, pack.slug, pack.name, metadata, prices, is_sold)


async def _there(sync: Sync, session: Session) -> tuple[list[Document], list[Document]]:
    """The platform's tagged products and their prices, as Stripe has them now, oldest first."""
    products = [
        one
        async for one in all_listed(
            sync, session, lambda v1, params: v1.products.list_async(params)
        )
        if one["metadata"].get(TAG) == sync.settings.slug
    ]
    ids = {one["id"] for one in products}
    prices = [
        one
        async for one in all_listed(sync, session, lambda v1, params: v1.prices.list_async(params))
        if one["product"] in ids
    ]
    return sorted(products, key=_age), sorted(prices, key=_age)


def _age(one: Document) -> tuple[int, str]:
    return one["created"], one["id"]


async def _do(sync: Sync, session: Session, steps: Sequence[Step]) -> list[Step]:
    """Do all of it, in order; what was made has its id then."""
    made: dict[tuple[str, str, str], str] = {}
    done = []
    for step in steps:
        # The lock is ours already; a transaction that asks nothing for long would be ended.
        await lock_objects(session, sync.mode, CATALOGUE)
        params = dict(step.params)
        for name, what in (("product", PRODUCT), ("default_price", PRICE)):
            if name in params and params[name] is None:
                params[name] = made[what, step.kind, step.slug]
        object_id = await _do_one(sync, step, params)
        made[step.object, step.kind, step.slug] = object_id
        done.append(step._replace(object_id=object_id))
    return done


async def _do_one(sync: Sync, step: Step, params: Mapping[str, Any]) -> str:
    options = {"idempotency_key": step.idempotency_key} if step.idempotency_key else {}

    def request(v1: Any) -> Any:
        service = v1.products if step.object == PRODUCT else v1.prices
        if step.object_id is None:
            return service.create_async(params, options)
        return service.update_async(step.object_id, params)

    try:
        return str((await sync.api.ask(request))["id"])
    except StripeRefusedError as error:
        text = f"to {step.action} the {step.object} of the {step.kind} {step.slug}"
        raise StripeRefusedError(f"Stripe refused {text}: {error}", error.code) from error

"""Decides what a plan or pack is by all of the products that sell it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.rows import BY_STRIPE
from gateway.ledger.stripe_products import (
    PACK_KIND,
    PLAN_KIND,
    UNKNOWN_KIND,
    StripePrice,
    StripeProduct,
)
from gateway.stripe_sync.metadata import TAG, is_pushed, read_metadata
from policies.catalog import Pack, Plan
from policies.periods import MONTHS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEFT_OVER = (
    "it was pushed for what nobody describes here any more: plan-push archives it; for payments "
    "that wait for it, make the plan again"
)
# Of a price whose plan gives its credits for longer than it is paid for.
TOO_SHORT = "it is paid for less than the plan's period, or not for whole ones"


class Described(NamedTuple):
    """A plan or pack of the books, and who describes it."""

    what: Plan | Pack
    managed_by: str
    is_sold: bool = True


class Decided(NamedTuple):
    """The products, each with its problem or without; and what they say that is to be kept.

    `what` None: nothing, because others describe it, or nothing sensible is said.
    """

    products: tuple[StripeProduct, ...]
    what: Plan | Pack | None = None
    is_sold: bool = True


def decided(
    platform_slug: str, products: Sequence[StripeProduct], described: Described | None
) -> Decided:
    """What is to be kept of all products, by id, of one plan or pack.

    Where the config or the API describes it, products are only linked to it. Else it is what those
    say that no push made. Of several that say different things, that one counts which says what is
    known already: who adds another can't change what was bought.
    """
    tagged = [one for one in products if one.metadata.get(TAG) == platform_slug]
    said = {one.product_id: read_metadata(one.metadata, one.name) for one in tagged}
    if described is not None and described.managed_by != BY_STRIPE:
        return Decided(_marked(products, dict.fromkeys(said), described.what))
    pushed = [one for one in tagged if is_pushed(one.metadata)]
    problems = {product_id: one.problem for product_id, one in said.items()}
    problems |= {one.product_id: LEFT_OVER if one.active else None for one in pushed}
    good = [one for one in tagged if one not in pushed and problems[one.product_id] is None]
    known = None if described is None else described.what
    if not good:
        kept = known if isinstance(known, Pack) else None
        return Decided(_marked(products, problems, known), kept, is_sold=False)

    def rank(one: StripeProduct) -> tuple[bool, bool, str]:
        return said[one.product_id].what != known, not one.active, one.product_id

    first = min(good, key=rank)
    what = said[first.product_id].what
    for one in good:
        if one.active and said[one.product_id].what != what:
            problems[one.product_id] = (
                f"{first.product_id} sells the same {one.kind} and says otherwise: archive one of "
                "them, or make them say the same"
            )
    is_sold = any(one.active for one in good) or isinstance(what, Plan)
    return Decided(_marked(products, problems, what), what, is_sold)


def price_of(price: Mapping[str, Any], kind: str) -> StripePrice:
    """A price as Stripe has it. Its problem is why no plan or pack can be bought at it."""
    months = None
    if price["recurring"] is not None and price["recurring"]["interval"] in MONTHS:
        months = MONTHS[price["recurring"]["interval"]] * int(price["recurring"]["interval_count"])
    return StripePrice(
        price["id"],
        price["product"],
        price["active"],
        price["currency"],
        price["unit_amount"],
        months,
        None if kind == UNKNOWN_KIND else _mistake(price, kind, months),
    )


def _mistake(price: Mapping[str, Any], kind: str, months: int | None) -> str | None:
    recurring = price["recurring"]
    if kind == PACK_KIND and recurring is not None:
        return "it recurs: a pack is bought once"
    if kind == PLAN_KIND and recurring is None:
        return "it is paid once: a plan is subscribed to"
    if recurring is not None and months is None:
        return f"it is paid by the {recurring['interval']}: plans are by the month or year"
    if recurring is not None and recurring.get("usage_type") == "metered":
        return "it is metered: here a plan has a price, and overage one of its own"
    if price.get("billing_scheme") != "per_unit" or price.get("transform_quantity") is not None:
        return "it has tiers, or counts packages: one has to cost what the next one costs"
    return "it has no fixed whole amount" if price["unit_amount"] is None else None


def _marked(
    products: Sequence[StripeProduct],
    problems: Mapping[str, str | None],
    what: Plan | Pack | None,
) -> tuple[StripeProduct, ...]:
    """The products with these problems, and those of their prices; others keep their own."""
    return tuple(
        one._replace(
            problem=problems.get(one.product_id, one.problem),
            prices=tuple(_fitting(price, what) for price in one.prices),
        )
        for one in products
    )


def _fitting(price: StripePrice, what: Plan | Pack | None) -> StripePrice:
    """The price, which has a problem if the plan's period does not fit into its months."""
    if price.problem not in {None, TOO_SHORT}:
        return price
    fits = not isinstance(what, Plan) or (price.months or 0) % MONTHS[what.period] == 0
    return price._replace(problem=None if fits else TOO_SHORT)

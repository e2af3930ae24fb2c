"""What can be asked of offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.endpoint import Endpoint
from gateway.control.api.money import mode_word
from gateway.control.api.roles import EVERYBODY
from gateway.control.offers.models import Offers, PackOffer, PlanOffer, Price
from gateway.stripe_sync.offers import offers_of
from policies.catalog import Pack, Plan
from policies.money import format_minor, format_overage_price

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.stripe_sync import offers


async def read(ask: Ask) -> Offers:
    """All of them."""
    found = await offers_of(ask.ledger, ask.services.billing, ask.platform_id)
    return Offers(
        mode=None if found.livemode is None else mode_word(found.livemode),
        plans=[_plan(one.what, one) for one in found.plans if isinstance(one.what, Plan)],
        packs=[_pack(one.what, one) for one in found.packs if isinstance(one.what, Pack)],
    )


def _plan(plan: Plan, offer: offers.Offer) -> PlanOffer:
    overage = plan.overage_price
    return PlanOffer.model_validate(
        {
            "plan": plan.slug,
            "credits": plan.credits_microcredits,
            "period": plan.period,
            "trial_days": plan.trial_days,
            "trial_credits": plan.trial_microcredits,
            "overage_price": None if overage is None else format_overage_price(overage),
            "features": list(plan.features),
            "prices": _prices(offer),
        }
    )


def _pack(pack: Pack, offer: offers.Offer) -> PackOffer:
    return PackOffer(
        pack=pack.slug,
        name=pack.name,
        credits=pack.credits_microcredits,
        validity_days=pack.validity_days,
        prices=_prices(offer),
    )


def _prices(offer: offers.Offer) -> list[Price]:
    return [
        Price(
            amount=format_minor(price.money.amount_minor, price.money.currency),
            currency=price.money.currency,
            months=price.months,
        )
        for price in offer.prices
    ]


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/offers", "What can be bought", EVERYBODY, read, answers=Offers,
        description="Subscribe by `/v1/subscribe`, buy packs by `/v1/me/packs`.",
    ),
)  # fmt: skip

"""What a subscription brings in is less by its coupons, as its next invoices will be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.support.market import Market

PRO_TWICE_MINOR = 4_000


@pytest.mark.parametrize(
    ("coupons", "discount_minor"),
    [
        ([], 0),
        ([{"percent_off": 33.33, "duration": "forever"}], 1_333),
        ([{"amount_off": 500, "currency": "usd", "duration": "forever"}], 500),
        (
            [
                {"amount_off": 500, "currency": "usd", "duration": "forever"},
                {"percent_off": 50, "duration": "repeating", "duration_in_months": 3},
            ],
            2_250,
        ),
        (
            [
                {"percent_off": 50, "duration": "forever"},
                {"amount_off": 5_000, "currency": "usd", "duration": "forever"},
            ],
            4_000,
        ),
        ([{"amount_off": 500, "currency": "usd", "duration": "once"}], 0),
    ],
)
async def test_a_coupon_that_lasts_takes_off_what_it_takes_off_the_invoice(
    market: Market, coupons: list[dict[str, Any]], discount_minor: int
) -> None:
    made = [(await market.shop.v1.coupons.create_async(each)).id for each in coupons]
    discounts = [{"coupon": each} for each in made]
    await market.subscribe("pro", quantity=2, **({"discounts": discounts} if made else {}))
    await market.catch_up()
    (known,) = await market.row("SELECT discount_minor FROM subscriptions")
    assert known == discount_minor
    once = sum(each["amount_off"] for each in coupons if each["duration"] == "once")
    paid = PRO_TWICE_MINOR - discount_minor - once
    assert await market.payments() == [("subscription", "succeeded", paid)]

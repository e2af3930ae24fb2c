"""Products, prices, coupons, promotion codes, meters: what is sold, and for how much."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import stripe

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop


async def test_a_price_never_changes_its_amount_but_its_metadata_and_whether_it_is_sold(
    shop: Shop,
) -> None:
    price = await shop.price(1000, "month")
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: unit_amount"):
        await shop.v1.prices.update_async(price, {"unit_amount": 2000})
    with pytest.raises(stripe.InvalidRequestError, match="the default price of its product"):
        await shop.v1.prices.update_async(price, {"active": False})
    product = (await shop.v1.prices.retrieve_async(price)).product
    await shop.v1.products.update_async(product, {"default_price": ""})
    changed = await shop.v1.prices.update_async(price, {"active": False, "metadata": {"a": "b"}})
    assert (changed.active, changed.metadata["a"], changed.unit_amount) == (False, "b", 1000)
    assert shop.happened("price.") == ["price.created", "price.updated"]


async def test_prices_are_found_by_product_key_and_interval(shop: Shop) -> None:
    product = (await shop.v1.products.create_async({"name": "Pro"})).id
    made = {}
    for interval in ("month", "year"):
        made[interval] = await shop.v1.prices.create_async(
            {
                "product": product,
                "currency": "usd",
                "unit_amount": 1,
                "recurring": {"interval": interval},
                "lookup_key": f"pro-{interval}",
            }
        )
    await shop.price()

    async def listed(**params: object) -> list[str]:
        return [each.id for each in (await shop.v1.prices.list_async(params)).data]

    assert await listed(product=product) == [made["year"].id, made["month"].id]
    assert await listed(lookup_keys=["pro-year", "none"]) == [made["year"].id]
    assert await listed(recurring={"interval": "month"}) == [made["month"].id]
    with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
        await shop.v1.prices.update_async(made["year"].id, {"lookup_key": "pro-month"})
    moved = await shop.v1.prices.update_async(
        made["year"].id, {"lookup_key": "pro-month", "transfer_lookup_key": True}
    )
    assert moved.lookup_key == "pro-month"
    assert (await shop.v1.prices.retrieve_async(made["month"].id)).lookup_key is None


async def test_a_product_with_prices_is_not_deleted_only_put_away(shop: Shop) -> None:
    price = await shop.v1.prices.retrieve_async(await shop.price())
    with pytest.raises(stripe.InvalidRequestError, match="cannot be deleted"):
        await shop.v1.products.delete_async(price.product)
    await shop.v1.products.update_async(price.product, {"active": False})
    bare = await shop.v1.products.create_async({"name": "Bare", "id": "prod_named"})
    assert (await shop.v1.products.delete_async(bare.id)).deleted is True
    assert shop.happened("product.")[-3:] == [
        "product.updated",
        "product.created",
        "product.deleted",
    ]


async def test_a_deleted_customer_is_shown_as_such_and_its_subscriptions_end(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(1000, "month"))
    await shop.v1.customers.delete_async(session["customer"])
    assert (await shop.v1.customers.retrieve_async(session["customer"])).deleted is True
    assert shop.happened("customer.")[-2:] == [
        "customer.subscription.deleted",
        "customer.deleted",
    ]


@pytest.mark.parametrize(
    "coupon",
    [
        {},
        {"percent_off": "12.345"},
        {"percent_off": "0"},
        {"percent_off": "100.01"},
        {"amount_off": 100},
        {"percent_off": "10", "duration": "repeating"},
    ],
)
async def test_400_for_a_coupon_that_can_not_be(shop: Shop, coupon: dict[str, object]) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.coupons.create_async(coupon)


async def test_a_coupon_is_used_up_when_it_was_redeemed_often_enough(shop: Shop) -> None:
    coupon = await shop.v1.coupons.create_async({"percent_off": "10", "max_redemptions": 1})
    price = await shop.price(1000, "month")
    params = {"items": [{"price": price}], "discounts": [{"coupon": coupon.id}]}
    await shop.v1.subscriptions.create_async({**params, "customer": await shop.customer("works")})
    assert (await shop.v1.coupons.retrieve_async(coupon.id)).valid is False
    with pytest.raises(stripe.InvalidRequestError, match="used up"):
        await shop.v1.subscriptions.create_async({**params, "customer": await shop.customer()})


async def test_a_promotion_code_can_be_one_customers_alone(shop: Shop) -> None:
    coupon = await shop.v1.coupons.create_async({"percent_off": "10"})
    mine = await shop.customer("works")
    code = await shop.v1.promotion_codes.create_async(
        {
            "promotion": {"type": "coupon", "coupon": coupon.id},
            "code": "MINE",
            "customer": mine,
        }
    )
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        await shop.v1.promotion_codes.create_async(
            {"promotion": {"type": "coupon", "coupon": coupon.id}, "code": "mine"}
        )
    params = {
        "items": [{"price": await shop.price(1000, "month")}],
        "discounts": [{"promotion_code": code.id}],
    }
    with pytest.raises(stripe.InvalidRequestError, match="another customer"):
        await shop.v1.subscriptions.create_async({**params, "customer": await shop.customer()})
    await shop.v1.subscriptions.create_async({**params, "customer": mine})
    assert (await shop.v1.promotion_codes.retrieve_async(code.id)).times_redeemed == 1


async def test_a_meter_event_counts_once_per_identifier_and_day(shop: Shop) -> None:
    await shop.v1.billing.meters.create_async(
        {
            "display_name": "Overage",
            "event_name": "overage",
            "default_aggregation": {"formula": "sum"},
        }
    )
    event = {
        "event_name": "overage",
        "payload": {"stripe_customer_id": await shop.customer(), "value": "25"},
        "identifier": "one",
    }
    await shop.v1.billing.meter_events.create_async(event)
    with pytest.raises(stripe.InvalidRequestError, match="already exists"):
        await shop.v1.billing.meter_events.create_async(event)
    await shop.fake.advance(days=1)
    await shop.v1.billing.meter_events.create_async(event)
    for wrong in ({"event_name": "none"}, {"timestamp": 1}, {"payload": {"value": "1"}}):
        with pytest.raises(stripe.InvalidRequestError):
            await shop.v1.billing.meter_events.create_async({**event, "identifier": "x", **wrong})

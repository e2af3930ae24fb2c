"""Invoices: discounts and tax on them, who pays them how, and what they are when nobody does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import stripe

from tests.support.fake_stripe.clock import DAY_S
from tests.support.stripe_billing import again, at, change, invoices_of, subscriber

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop


async def coupon(shop: Shop, **coupon: Any) -> str:
    return str((await shop.v1.coupons.create_async({"duration": "forever", **coupon})).id)


async def totals(shop: Shop, subscription: Any) -> list[int]:
    return [invoice.total for invoice in await invoices_of(shop, subscription)]


@pytest.mark.parametrize(
    ("terms", "paid"),
    [
        ({"percent_off": "33.33"}, [667, 667, 667]),
        ({"percent_off": "50", "duration": "once"}, [500, 1000, 1000]),
        ({"percent_off": "50", "duration": "repeating", "duration_in_months": 2}, [500, 500, 1000]),
        ({"amount_off": 300, "currency": "usd"}, [700, 700, 700]),
        ({"amount_off": 3000, "currency": "usd", "duration": "once"}, [0, 1000, 1000]),
        ({"percent_off": "100", "duration": "once"}, [0, 1000, 1000]),
    ],
)
async def test_a_coupon_takes_off_what_it_says_for_as_long_as_it_says(
    shop: Shop, terms: dict[str, Any], paid: list[int]
) -> None:
    await shop.fake.advance_to(at(2030, 1, 1))
    price = await shop.price(1000, "month")
    subscription = await subscriber(
        shop, price, discounts=[{"coupon": await coupon(shop, **terms)}]
    )
    await shop.fake.advance_to(at(2030, 3, 2))
    assert await totals(shop, subscription) == paid


async def test_an_invoice_that_a_coupon_pays_whole_is_paid_without_a_payment(shop: Shop) -> None:
    free = await coupon(shop, percent_off="100")
    price = await shop.price(1000, "month")
    subscription = await subscriber(shop, price, None, discounts=[{"coupon": free}])
    (invoice,) = await invoices_of(shop, subscription)
    assert subscription.status == "active"
    assert (invoice.subtotal, invoice.total, invoice.status) == (1000, 0, "paid")
    assert invoice.payments.data == []
    (taken,) = invoice.total_discount_amounts
    assert (taken.amount, invoice.lines.data[0].discount_amounts[0].amount) == (1000, 1000)
    assert invoice.lines.data[0].amount == 1000


async def test_two_discounts_follow_one_another(shop: Shop) -> None:
    discounts = [
        {"coupon": await coupon(shop, percent_off="50")},
        {"coupon": await coupon(shop, percent_off="10")},
    ]
    subscription = await subscriber(shop, await shop.price(1000, "month"), discounts=discounts)
    assert await totals(shop, subscription) == [450]


async def test_a_coupon_may_be_for_some_products_alone(shop: Shop) -> None:
    pro, extra = await shop.price(1000, "month"), await shop.price(500, "month")
    product = (await shop.v1.prices.retrieve_async(extra)).product
    half = await coupon(shop, percent_off="50", applies_to={"products": [product]})
    subscription = await shop.v1.subscriptions.create_async(
        {
            "customer": await shop.customer("works"),
            "items": [{"price": pro}, {"price": extra}],
            "discounts": [{"coupon": half}],
        }
    )
    assert await totals(shop, subscription) == [1250]


async def test_what_is_credited_is_what_was_billed_after_discounts(shop: Shop) -> None:
    await shop.fake.advance_to(at(2030, 4, 1))
    half = await coupon(shop, percent_off="50")
    subscription = await subscriber(
        shop, await shop.price(3000, "month"), discounts=[{"coupon": half}]
    )
    await shop.fake.advance(days=10)
    changed = await change(
        shop, subscription, await shop.price(9000, "month"), proration_behavior="always_invoice"
    )
    invoice = changed.latest_invoice
    assert [line.amount for line in invoice.lines.data] == [-1000, 6000]
    assert (invoice.subtotal, invoice.total) == (5000, 2000)


async def test_tax_is_a_tenth_of_what_is_left_after_discounts(shop: Shop) -> None:
    subscription = await subscriber(
        shop,
        await shop.price(1005, "month"),
        automatic_tax={"enabled": True},
        discounts=[{"coupon": await coupon(shop, amount_off=500, currency="usd")}],
    )
    (invoice,) = await invoices_of(shop, subscription)
    assert (invoice.subtotal, invoice.total_excluding_tax, invoice.total) == (1005, 505, 556)
    assert (invoice.total_taxes[0].amount, invoice.total_taxes[0].taxable_amount) == (51, 505)
    assert invoice.lines.data[0].taxes[0].amount == 51
    assert invoice.payments.data[0].amount_paid == 556


async def test_an_invoice_made_by_hand_takes_what_waits_when_told_to(shop: Shop) -> None:
    customer = await shop.customer("works")
    pack = await shop.price(700)
    for item in ({"amount": 300, "currency": "usd"}, {"pricing": {"price": pack}, "quantity": 2}):
        await shop.v1.invoice_items.create_async({"customer": customer, **item})
    draft = await shop.v1.invoices.create_async(
        {"customer": customer, "pending_invoice_items_behavior": "include"}
    )
    assert (draft.status, draft.total, draft.auto_advance) == ("draft", 1700, False)
    await shop.fake.advance(days=1)
    assert (await shop.v1.invoices.retrieve_async(draft.id)).status == "draft"
    opened = await shop.v1.invoices.finalize_invoice_async(draft.id)
    assert (opened.status, opened.number) == ("open", "FAKE0001-0001")
    paid = await shop.v1.invoices.pay_async(draft.id)
    assert (paid.status, paid.amount_paid) == ("paid", 1700)
    with pytest.raises(stripe.InvalidRequestError, match="already paid"):
        await shop.v1.invoices.pay_async(draft.id)


async def test_402_for_a_payment_that_is_declined_and_the_invoice_stays_open(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"), "fails")
    with pytest.raises(stripe.CardError) as caught:
        await shop.v1.invoices.pay_async(subscription.latest_invoice)
    assert caught.value.code == "card_declined"
    assert (await invoices_of(shop, subscription))[0].status == "open"


async def test_paid_out_of_band_tells_invoice_paid_and_nothing_of_a_payment(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"), "fails")
    before = len(shop.happened())
    paid = await shop.v1.invoices.pay_async(subscription.latest_invoice, {"paid_out_of_band": True})
    assert (paid.status, paid.amount_paid, paid.amount_paid_off_stripe) == ("paid", 1000, 1000)
    told = shop.happened()[before:]
    assert "invoice.paid" in told
    assert "invoice.payment_succeeded" not in told
    assert "charge.succeeded" not in told
    assert (await again(shop, subscription)).status == "active"


async def test_a_voided_invoice_is_owed_no_more_and_can_not_be_paid(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    shop.fake.set_card(subscription.customer, "fails")
    await shop.fake.advance(days=32)
    assert (await again(shop, subscription)).status == "past_due"
    latest = (await invoices_of(shop, subscription))[-1]
    voided = await shop.v1.invoices.void_invoice_async(latest.id)
    assert (voided.status, voided.next_payment_attempt) == ("void", None)
    assert (await again(shop, subscription)).status == "active"
    for pay in ({}, {"paid_out_of_band": True}):
        with pytest.raises(stripe.InvalidRequestError, match="voided"):
            await shop.v1.invoices.pay_async(latest.id, pay)
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.invoices.void_invoice_async(latest.id)


async def test_an_uncollectible_invoice_can_still_be_paid(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    shop.fake.set_card(subscription.customer, "fails")
    await shop.fake.advance(days=32)
    latest = (await invoices_of(shop, subscription))[-1]
    bad = await shop.v1.invoices.mark_uncollectible_async(latest.id)
    assert bad.status == "uncollectible"
    shop.fake.set_card(subscription.customer, "works")
    assert (await shop.v1.invoices.pay_async(latest.id)).status == "paid"


async def test_a_bank_debit_pays_days_later(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    shop.fake.set_card(subscription.customer, "async")
    await shop.fake.advance(days=32)
    latest = (await invoices_of(shop, subscription))[-1]
    assert (latest.status, (await again(shop, subscription)).status) == ("open", "active")
    await shop.fake.advance(seconds=5 * DAY_S)
    assert (await shop.v1.invoices.retrieve_async(latest.id)).status == "paid"


async def test_items_come_off_a_draft_and_drafts_are_deleted_with_theirs(shop: Shop) -> None:
    customer = await shop.customer("works")
    draft = await shop.v1.invoices.create_async({"customer": customer, "currency": "usd"})

    async def put(amount: int) -> Any:
        return await shop.v1.invoice_items.create_async(
            {"customer": customer, "invoice": draft.id, "amount": amount}
        )

    first, second = await put(100), await put(200)
    await shop.v1.invoice_items.delete_async(first.id)
    await shop.v1.invoice_items.update_async(second.id, {"amount": 250})
    assert (await shop.v1.invoices.retrieve_async(draft.id)).total == 250
    (line,) = (await shop.v1.invoices.line_items.list_async(draft.id)).data
    assert line.parent.invoice_item_details.invoice_item == second.id
    await shop.v1.invoices.delete_async(draft.id)
    assert (await shop.v1.invoice_items.list_async({"customer": customer})).data == []


async def test_an_invoice_shows_ten_lines_and_lists_them_all_in_order(shop: Shop) -> None:
    customer = await shop.customer("works")
    for amount in range(1, 13):
        await shop.v1.invoice_items.create_async(
            {"customer": customer, "amount": amount, "currency": "usd"}
        )
    draft = await shop.v1.invoices.create_async(
        {"customer": customer, "pending_invoice_items_behavior": "include"}
    )
    assert ([line.amount for line in draft.lines.data], draft.lines.has_more) == (
        list(range(1, 11)),
        True,
    )
    listed = await shop.v1.invoices.line_items.list_async(draft.id, {"limit": 5})
    assert [line.amount async for line in listed.auto_paging_iter()] == list(range(1, 13))
    (event,) = shop.fake.events("invoice.created")
    assert event["data"]["object"]["lines"]["has_more"] is True


async def test_an_amount_too_small_for_a_card_goes_to_the_next_invoice(shop: Shop) -> None:
    customer = await shop.customer("works")
    for amount in (30, 100):
        await shop.v1.invoice_items.create_async(
            {"customer": customer, "amount": amount, "currency": "usd"}
        )
        draft = await shop.v1.invoices.create_async(
            {"customer": customer, "pending_invoice_items_behavior": "include"}
        )
        opened = await shop.v1.invoices.finalize_invoice_async(draft.id)
    assert (opened.total, opened.starting_balance, opened.amount_due) == (100, 30, 130)

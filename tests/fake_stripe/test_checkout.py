"""Checkout: what a session sells and comes to, who pays it how, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import stripe

from tests.support.fake_stripe.clock import DAY_S, HOUR_S

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop

PAID = ["payment_intent.created", "charge.succeeded", "payment_intent.succeeded"]


async def test_a_single_payment_takes_the_amount_and_carries_its_metadata(shop: Shop) -> None:
    price = await shop.price(1500)
    session = await shop.buy(
        price,
        client_reference_id="acc_1",
        metadata={"of": "session"},
        payment_intent_data={"metadata": {"of": "intent"}},
    )

    shown = await shop.v1.checkout.sessions.retrieve_async(
        session["id"], {"expand": ["payment_intent.latest_charge", "line_items.data.price.product"]}
    )
    assert (shown.status, shown.payment_status, shown.amount_total) == ("complete", "paid", 1500)
    assert shown.url is None
    assert shown.client_reference_id == "acc_1"
    assert shown.metadata.to_dict() == {"of": "session"}
    assert shown.payment_intent.metadata.to_dict() == {"of": "intent"}
    assert shown.payment_intent.latest_charge.amount_captured == 1500
    assert shown.line_items.data[0].price.product.name == "Pack"
    assert shop.happened("payment", "charge", "checkout") == [*PAID, "checkout.session.completed"]


async def test_a_declined_payer_has_bought_nothing_and_may_try_again(shop: Shop) -> None:
    customer = await shop.customer()
    session = await shop.session(await shop.price(), customer=customer)

    declined = shop.fake.complete_checkout(session, "fails")
    assert (declined["status"], declined["payment_status"]) == ("open", "unpaid")
    assert "checkout.session.completed" not in shop.happened()

    paid = shop.fake.complete_checkout(session, "works")
    assert (paid["status"], paid["payment_status"]) == ("complete", "paid")
    charges = await shop.v1.charges.list_async({"payment_intent": paid["payment_intent"]})
    assert [one.status for one in charges.data] == ["succeeded", "failed"]


async def test_a_declined_payer_has_not_subscribed(shop: Shop) -> None:
    customer = await shop.customer()
    session = await shop.session(
        await shop.price(interval="month"), mode="subscription", customer=customer
    )

    assert shop.fake.complete_checkout(session, "fails")["status"] == "open"
    assert (await shop.v1.subscriptions.list_async({"status": "all"})).data == []
    assert shop.happened("invoice", "customer.subscription", "charge") == ["charge.failed"]


async def test_a_subscription_is_paid_by_the_card_of_its_session(shop: Shop) -> None:
    session = await shop.subscribe(
        await shop.price(interval="month"),
        quantity=3,
        subscription_data={"metadata": {"account": "acc_1"}},
    )

    subscription = await shop.v1.subscriptions.retrieve_async(
        session["subscription"], {"expand": ["latest_invoice.payments"]}
    )
    invoice = subscription.latest_invoice
    assert subscription.status == "active"
    assert subscription.metadata.to_dict() == {"account": "acc_1"}
    assert subscription.default_payment_method is not None
    assert (invoice.id, invoice.status, invoice.amount_paid) == (session["invoice"], "paid", 3000)
    assert invoice.parent.subscription_details.metadata.to_dict() == {"account": "acc_1"}
    assert invoice.payments.data[0].payment.payment_intent is not None
    assert session["amount_total"] == invoice.total


async def test_a_trial_costs_nothing_and_its_session_requires_no_payment(shop: Shop) -> None:
    session = await shop.subscribe(
        await shop.price(interval="month"), subscription_data={"trial_period_days": 3}
    )

    assert (session["payment_status"], session["amount_total"]) == ("no_payment_required", 0)
    subscription = await shop.v1.subscriptions.retrieve_async(session["subscription"])
    assert subscription.status == "trialing"
    assert subscription.trial_end == shop.fake.clock.now_s + 3 * DAY_S
    invoice = await shop.v1.invoices.retrieve_async(session["invoice"])
    assert (invoice.status, invoice.total) == ("paid", 0)


async def test_a_bank_debit_is_paid_days_after_its_session(shop: Shop) -> None:
    session = await shop.buy(await shop.price(), "async")
    assert (session["status"], session["payment_status"]) == ("complete", "unpaid")
    assert shop.happened("checkout") == ["checkout.session.completed"]

    await shop.fake.advance(days=4)

    assert session["payment_status"] == "paid"
    assert shop.happened("checkout")[1:] == ["checkout.session.async_payment_succeeded"]


async def test_a_returned_bank_debit_leaves_its_session_unpaid(shop: Shop) -> None:
    session = await shop.buy(await shop.price(), "async fails")

    await shop.fake.advance(days=4)

    assert session["payment_status"] == "unpaid"
    assert shop.happened("checkout")[1:] == ["checkout.session.async_payment_failed"]


async def test_a_subscription_begins_while_its_bank_debit_is_under_way(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(interval="month"), "async")
    subscription = shop.fake.store.get("subscription", session["subscription"])
    invoice = shop.fake.store.get("invoice", session["invoice"])
    assert (subscription["status"], invoice["status"]) == ("active", "open")

    await shop.fake.advance(days=4)

    assert (subscription["status"], invoice["status"]) == ("active", "paid")
    assert session["payment_status"] == "paid"
    assert "checkout.session.async_payment_succeeded" in shop.happened()


async def test_a_subscription_whose_first_bank_debit_is_returned_is_past_due(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(interval="month"), "async fails")

    await shop.fake.advance(days=4)

    assert shop.fake.store.get("subscription", session["subscription"])["status"] == "past_due"
    assert shop.fake.store.get("invoice", session["invoice"])["status"] == "open"
    assert "checkout.session.async_payment_failed" in shop.happened()


async def test_a_session_expires_after_a_day_and_can_be_paid_no_more(shop: Shop) -> None:
    session = await shop.session(await shop.price())

    await shop.fake.advance(hours=24)

    shown = await shop.v1.checkout.sessions.retrieve_async(session)
    assert (shown.status, shown.url) == ("expired", None)
    assert shop.happened("checkout") == ["checkout.session.expired"]
    with pytest.raises(Exception, match="expired"):
        shop.fake.complete_checkout(session)


async def test_a_paid_session_does_not_expire(shop: Shop) -> None:
    session = await shop.buy(await shop.price())

    await shop.fake.advance(days=2)

    assert session["status"] == "complete"
    with pytest.raises(stripe.InvalidRequestError, match="open"):
        await shop.v1.checkout.sessions.expire_async(session["id"])


async def test_an_owner_may_expire_a_session_before_its_time(shop: Shop) -> None:
    session = await shop.session(await shop.price(), expires_at=shop.fake.clock.now_s + 2 * HOUR_S)

    expired = await shop.v1.checkout.sessions.expire_async(session)

    assert expired.status == "expired"
    await shop.fake.advance(hours=3)
    assert shop.happened("checkout") == ["checkout.session.expired"]


@pytest.mark.parametrize("mode", ["payment", "subscription"])
async def test_discounts_and_tax_of_a_session_are_those_of_what_is_paid(
    shop: Shop, mode: str
) -> None:
    interval = "month" if mode == "subscription" else None
    price = await shop.price(999, interval)
    coupon = await shop.v1.coupons.create_async({"percent_off": 12.5, "duration": "forever"})
    session = await shop.buy(
        price,
        mode=mode,
        quantity=3,
        automatic_tax={"enabled": True},
        customer_update={"address": "auto"},
        discounts=[{"coupon": coupon.id}],
    )

    # 2997 less 12.5 % is 2997 - 375 (374.625), and 10 % of that is 262 (262.2).
    assert session["amount_subtotal"] == 2997
    assert session["total_details"] == {
        "amount_discount": 375,
        "amount_shipping": 0,
        "amount_tax": 262,
    }
    assert session["amount_total"] == 2884
    charges = await shop.v1.charges.list_async({"customer": session["customer"]})
    assert [one.amount for one in charges.data] == [2884]


async def test_a_promotion_code_for_everything_requires_no_payment(shop: Shop) -> None:
    coupon = await shop.v1.coupons.create_async({"percent_off": 100, "duration": "once"})
    code = await shop.v1.promotion_codes.create_async(
        {"code": "SPRING", "promotion": {"type": "coupon", "coupon": coupon.id}}
    )
    session = await shop.session(
        await shop.price(), customer=await shop.customer(), allow_promotion_codes=True
    )

    paid = shop.fake.complete_checkout(session, promotion_code="spring")

    assert (paid["payment_status"], paid["amount_total"]) == ("no_payment_required", 0)
    assert paid["payment_intent"] is None
    assert (await shop.v1.promotion_codes.retrieve_async(code.id)).times_redeemed == 1


async def test_a_payment_with_an_invoice_is_on_that_invoice(shop: Shop) -> None:
    session = await shop.buy(
        await shop.price(1500),
        quantity=2,
        invoice_creation={"enabled": True, "invoice_data": {"metadata": {"of": "invoice"}}},
    )

    invoice = await shop.v1.invoices.retrieve_async(session["invoice"])
    assert (invoice.status, invoice.amount_paid, invoice.parent) == ("paid", 3000, None)
    assert invoice.metadata.to_dict() == {"of": "invoice"}
    assert session["payment_status"] == "paid"


async def test_setting_up_puts_the_card_on_file_and_takes_nothing(shop: Shop) -> None:
    customer = await shop.customer()
    made = await shop.v1.checkout.sessions.create_async(
        {"mode": "setup", "customer": customer, "success_url": "https://shop.example/"}
    )

    session = shop.fake.complete_checkout(made.id)

    methods = await shop.v1.customers.payment_methods.list_async(customer)
    assert [one.card.last4 for one in methods.data] == ["4242"]
    assert (session["payment_status"], session["amount_total"]) == ("no_payment_required", None)
    assert shop.happened("charge", "payment_intent") == []


async def test_a_guest_is_no_customer_unless_the_session_makes_one(shop: Shop) -> None:
    price = await shop.price()
    guest = shop.fake.complete_checkout(await shop.session(price, customer_email="g@example.com"))
    made = shop.fake.complete_checkout(await shop.session(price, customer_creation="always"))

    assert guest["customer"] is None
    assert guest["customer_details"]["email"] == "g@example.com"
    assert made["customer"] is not None


async def refused(shop: Shop, **session: Any) -> stripe.InvalidRequestError:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        await shop.session(**session)
    assert caught.value.http_status == 400
    assert shop.fake.store.all("checkout.session") == []
    return caught.value


async def test_a_session_refuses_what_stripe_refuses(shop: Shop) -> None:
    once, monthly = await shop.price(), await shop.price(interval="month")
    customer = await shop.customer()

    async def told(**session: Any) -> str:
        return str((await refused(shop, **session)).user_message)

    assert "recurring price" in await told(price=monthly)
    assert "at least one recurring price" in await told(price=once, mode="subscription")
    assert "subscription_data" in await told(price=once, subscription_data={"description": "x"})
    assert "customer_email" in await told(price=once, customer=customer, customer_email="a@b.c")
    assert "30 minutes" in await told(price=once, expires_at=shop.fake.clock.now_s + 60)
    assert "URL" in await told(price=once, cancel_url="nowhere")
    taxed = await refused(shop, price=once, customer=customer, automatic_tax={"enabled": True})
    assert taxed.code == "customer_tax_location_invalid"
    gone = await refused(shop, price=once, payment_method_types=["card"])
    assert (gone.code, gone.param) == ("parameter_unknown", "payment_method_types")


async def test_what_is_inactive_is_not_sold(shop: Shop) -> None:
    made = await shop.v1.prices.create_async(
        {"currency": "usd", "unit_amount": 500, "product_data": {"name": "Old"}, "active": False}
    )

    assert "inactive" in str((await refused(shop, price=made.id)).user_message)

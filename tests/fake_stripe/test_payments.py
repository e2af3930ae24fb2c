"""Intents, charges and payment methods as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import stripe

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop


async def test_an_invoice_and_its_intent_are_found_from_each_other(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(interval="month"))
    invoice = session["invoice"]

    by_invoice = await shop.v1.invoice_payments.list_async({"invoice": invoice})
    intent = by_invoice.data[0].payment.payment_intent
    by_intent = await shop.v1.invoice_payments.list_async(
        {"payment": {"type": "payment_intent", "payment_intent": intent}}
    )

    assert by_intent.data[0].invoice == invoice
    assert (by_intent.data[0].status, by_intent.data[0].amount_paid) == ("paid", 1000)
    charge = await shop.v1.charges.retrieve_async(
        (await shop.v1.payment_intents.retrieve_async(intent)).latest_charge
    )
    assert charge.paid
    with pytest.raises(AttributeError):
        _ = charge.invoice


async def test_a_card_that_fails_at_renewal_pays_only_while_the_payer_is_there(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(interval="month"), "fails at renewal")
    assert session["payment_status"] == "paid"

    await shop.fake.advance(days=31, hours=2)

    subscription = shop.fake.store.get("subscription", session["subscription"])
    invoice = shop.fake.store.get("invoice", subscription["latest_invoice"])
    assert (subscription["status"], invoice["status"]) == ("past_due", "open")
    assert "invoice.payment_failed" in shop.happened()
    charges = await shop.v1.charges.list_async({"customer": session["customer"]})
    assert [one.status for one in charges.data] == ["failed", "succeeded"]
    assert charges.data[0].failure_code == "card_declined"


async def test_a_new_card_pays_what_the_old_one_did_not(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(interval="month"), "fails at renewal")
    await shop.fake.advance(days=31, hours=2)

    shop.fake.set_card(session["customer"], "works")
    await shop.fake.advance(days=3)

    subscription = shop.fake.store.get("subscription", session["subscription"])
    assert subscription["status"] == "active"
    assert shop.fake.store.get("invoice", subscription["latest_invoice"])["status"] == "paid"


async def test_a_payer_who_comes_back_confirms_the_intent_of_the_invoice(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(interval="month"), "fails at renewal")
    await shop.fake.advance(days=31, hours=2)
    subscription = shop.fake.store.get("subscription", session["subscription"])
    owed = await shop.v1.invoice_payments.list_async({"invoice": subscription["latest_invoice"]})

    intent = await shop.v1.payment_intents.confirm_async(
        owed.data[0].payment.payment_intent, {"payment_method": "pm_card_visa"}
    )

    assert intent.status == "succeeded"
    assert subscription["status"] == "active"


async def test_a_subscription_made_by_the_api_begins_while_its_debit_is_under_way(
    shop: Shop,
) -> None:
    made = await shop.v1.subscriptions.create_async(
        {
            "customer": await shop.customer("async"),
            "items": [{"price": await shop.price(interval="month")}],
        }
    )
    assert made.status == "active"
    invoice = shop.fake.store.get("invoice", made.latest_invoice)
    assert invoice["status"] == "open"

    await shop.fake.advance(days=4)

    assert (await shop.v1.subscriptions.retrieve_async(made.id)).status == "active"
    assert invoice["status"] == "paid"


async def test_a_declined_confirmation_is_a_card_error(shop: Shop) -> None:
    customer = await shop.customer()
    session = await shop.session(await shop.price(), customer=customer)
    shop.fake.complete_checkout(session, "fails")
    (intent,) = (await shop.v1.payment_intents.list_async({"customer": customer})).data

    with pytest.raises(stripe.CardError) as caught:
        await shop.v1.payment_intents.confirm_async(
            intent.id, {"payment_method": "pm_card_visa_chargeDeclined"}
        )

    assert (caught.value.http_status, caught.value.code) == (402, "card_declined")
    shown = await shop.v1.payment_intents.retrieve_async(intent.id)
    assert shown.status == "requires_payment_method"
    assert shown.last_payment_error.decline_code == "generic_decline"


async def test_a_declined_card_is_not_put_on_file(shop: Shop) -> None:
    customer = await shop.customer()

    with pytest.raises(stripe.CardError):
        await shop.v1.payment_methods.attach_async(
            "pm_card_visa_chargeDeclined", {"customer": customer}
        )

    assert (await shop.v1.payment_methods.list_async({"customer": customer})).data == []


async def test_a_detached_card_pays_nothing_more(shop: Shop) -> None:
    customer = await shop.customer("works")
    (method,) = (await shop.v1.customers.payment_methods.list_async(customer)).data

    await shop.v1.payment_methods.detach_async(method.id)

    shown = await shop.v1.customers.retrieve_async(customer)
    assert shown.invoice_settings.default_payment_method is None
    assert shop.happened("payment_method") == [
        "payment_method.attached",
        "payment_method.detached",
    ]


async def test_a_void_invoice_can_not_be_paid_by_its_intent(shop: Shop) -> None:
    session = await shop.subscribe(await shop.price(interval="month"), "fails at renewal")
    await shop.fake.advance(days=31, hours=2)
    invoice = shop.fake.store.get("subscription", session["subscription"])["latest_invoice"]

    await shop.v1.invoices.void_invoice_async(invoice)

    (payment,) = (await shop.v1.invoice_payments.list_async({"invoice": invoice})).data
    intent = await shop.v1.payment_intents.retrieve_async(payment.payment.payment_intent)
    assert (payment.status, intent.status) == ("canceled", "canceled")
    with pytest.raises(stripe.InvalidRequestError, match="canceled"):
        await shop.v1.payment_intents.confirm_async(intent.id, {"payment_method": "pm_card_visa"})

"""All that can be done with the fake Stripe, one scene after the other, through the real client.

Tests that hold its answers and events against something want as many situations as there are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.stripe_shop import SUCCESS_URL, Shop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.support.fake_stripe.payment_methods import Behaviour

MONTH_DAYS = 31


async def catalogue(shop: Shop) -> None:
    """Products and prices come, change, and go."""
    v1 = shop.v1
    product = await v1.products.create_async(
        {
            "name": "Plan",
            "metadata": {"plan": "pro"},
            "marketing_features": [{"name": "Fast"}],
            "url": "https://shop.example/",
        }
    )
    price = await v1.prices.create_async(
        {
            "product": product.id,
            "currency": "usd",
            "unit_amount": 1000,
            "lookup_key": "pro",
            "recurring": {"interval": "year"},
        }
    )
    await v1.prices.update_async(price.id, {"metadata": {"credits": "10"}, "nickname": "Yearly"})
    await v1.products.update_async(product.id, {"name": "Pro", "default_price": price.id})
    idle = await v1.products.create_async({"name": "Idle"})
    await v1.products.delete_async(idle.id)
    await v1.prices.create_async(
        {"product_data": {"name": "Own"}, "currency": "eur", "unit_amount": 5}
    )


async def coupons(shop: Shop) -> None:
    """Coupons and codes come, change, and go."""
    v1 = shop.v1
    coupon = await v1.coupons.create_async({"percent_off": 12.5, "duration": "forever"})
    await v1.coupons.update_async(coupon.id, {"metadata": {"of": "spring"}})
    fixed = await v1.coupons.create_async(
        {"amount_off": 100, "currency": "usd", "duration": "repeating", "duration_in_months": 2}
    )
    code = await v1.promotion_codes.create_async(
        {"code": "SPRING", "promotion": {"type": "coupon", "coupon": fixed.id}}
    )
    price = await shop.price(interval="month")
    session = await shop.session(
        price, mode="subscription", customer=await shop.customer(), allow_promotion_codes=True
    )
    shop.fake.complete_checkout(session, promotion_code="SPRING")
    await shop.subscribe(price, discounts=[{"coupon": coupon.id}])
    await v1.promotion_codes.update_async(code.id, {"active": False})
    await v1.coupons.delete_async(coupon.id)


async def customers(shop: Shop) -> None:
    """Customers with cards, who change, and go with their subscriptions."""
    v1 = shop.v1
    customer = await shop.customer("works", name="Pat", address={"country": "US"})
    await v1.customers.update_async(customer, {"phone": "1", "metadata": {"a": "b"}})
    method = await v1.payment_methods.attach_async("pm_card_visa", {"customer": customer})
    await v1.customers.update_async(
        customer, {"invoice_settings": {"default_payment_method": method.id}}
    )
    await v1.payment_methods.detach_async(method.id)
    gone = await shop.customer()
    await shop.subscribe(await shop.price(interval="month"), customer=gone)
    await v1.customers.delete_async(gone)
    await v1.customers.retrieve_async(gone)


async def checkouts(shop: Shop) -> None:
    """Sessions of every mode and ending."""
    once, monthly = await shop.price(), await shop.price(interval="month")
    cards: tuple[Behaviour, ...] = ("works", "fails", "async", "async fails")
    for card in cards:
        await shop.buy(once, card)
        await shop.subscribe(monthly, card)
    await shop.buy(once, invoice_creation={"enabled": True})
    taxed = {"automatic_tax": {"enabled": True}, "customer_update": {"address": "auto"}}
    await shop.buy(once, **taxed)
    await shop.subscribe(monthly, **taxed, subscription_data={"trial_period_days": 7})
    for ended in (await shop.session(once), await shop.session(once)):
        await shop.v1.checkout.sessions.update_async(ended, {"metadata": {"a": "b"}})
        if shop.happened("checkout.session.expired") == []:
            await shop.v1.checkout.sessions.expire_async(ended)
    inline = {"currency": "usd", "unit_amount": 700, "product_data": {"name": "Inline"}}
    made = await shop.v1.checkout.sessions.create_async(
        {
            "mode": "payment",
            "line_items": [{"price_data": inline, "quantity": 1}],
            "success_url": SUCCESS_URL,
            "expand": ["line_items"],
        }
    )
    shop.fake.complete_checkout(made.id)
    saved = await shop.v1.checkout.sessions.create_async(
        {"mode": "setup", "customer": await shop.customer(), "success_url": SUCCESS_URL}
    )
    shop.fake.complete_checkout(saved.id)
    await shop.fake.advance(days=5)


async def renewals(shop: Shop) -> None:
    """Trials that end, periods that renew, cards that fail until the end, and that recover."""
    price = await shop.price(interval="month")
    await shop.subscribe(price, subscription_data={"trial_period_days": 5})
    failing = await shop.subscribe(price, "fails at renewal")
    recovering = await shop.subscribe(price, "fails at renewal")
    await shop.fake.advance(days=MONTH_DAYS, hours=2)
    shop.fake.set_card(recovering["customer"], "works")
    await shop.fake.advance(days=20)
    ended = shop.fake.store.get("subscription", failing["subscription"])
    assert ended["status"] == "canceled"
    paused = await shop.v1.subscriptions.create_async(
        {
            "customer": await shop.customer(),
            "items": [{"price": price}],
            "trial_period_days": 1,
            "trial_settings": {"end_behavior": {"missing_payment_method": "pause"}},
        }
    )
    await shop.fake.advance(days=2)
    shop.fake.set_card(paused.customer, "works")
    await shop.v1.subscriptions.resume_async(paused.id)
    await shop.v1.subscriptions.create_async(
        {
            "customer": await shop.customer(),
            "items": [{"price": price}],
            "payment_behavior": "default_incomplete",
        }
    )
    await shop.fake.advance(days=1)


async def changes(shop: Shop) -> None:
    """Upgrades that are paid and that are not, pauses, cancellations and their undoing."""
    v1 = shop.v1
    small, large = await shop.price(1000, "month"), await shop.price(3000, "month")
    for card in ("works", "fails at renewal"):
        session = await shop.subscribe(small, card)
        await shop.fake.advance(days=3)
        one = await v1.subscriptions.retrieve_async(session["subscription"])
        upgrade = {
            "items": [{"id": one.items.data[0].id, "price": large}],
            "proration_behavior": "always_invoice",
        }
        details = {"items": upgrade["items"], "proration_behavior": "always_invoice"}
        await v1.invoices.create_preview_async(
            {"subscription": one.id, "subscription_details": details}
        )
        await v1.subscriptions.update_async(
            one.id, {**upgrade, "payment_behavior": "pending_if_incomplete"}
        )
        await shop.fake.advance(days=1)
    one = (await v1.subscriptions.list_async({"status": "active"})).data[-1]
    await v1.subscriptions.update_async(one.id, {"cancel_at_period_end": True})
    await v1.subscriptions.update_async(one.id, {"cancel_at_period_end": False})
    await v1.subscriptions.update_async(
        one.id, {"pause_collection": {"behavior": "keep_as_draft"}, "metadata": {"a": "b"}}
    )
    await v1.subscriptions.update_async(one.id, {"pause_collection": ""})
    await v1.subscriptions.update_async(
        one.id,
        {
            "items": [{"id": one.items.data[0].id, "quantity": 2}],
            "proration_behavior": "create_prorations",
        },
    )
    await v1.invoices.create_preview_async({"subscription": one.id})
    await v1.subscriptions.cancel_async(one.id, {"cancellation_details": {"comment": "bye"}})


async def schedules(shop: Shop) -> None:
    """Downgrades at the period's end: planned, taken back, carried out."""
    v1 = shop.v1
    small, large = await shop.price(1000, "month"), await shop.price(3000, "month")
    for ending in ("release", "cancel", "run"):
        session = await shop.subscribe(large)
        made = await v1.subscription_schedules.create_async(
            {"from_subscription": session["subscription"]}
        )
        now = made.phases[0]
        await v1.subscription_schedules.update_async(
            made.id,
            {
                "end_behavior": "release",
                "phases": [
                    {
                        "items": [{"price": large}],
                        "start_date": now.start_date,
                        "end_date": now.end_date,
                    },
                    {
                        "items": [{"price": small}],
                        "duration": {"interval": "month", "interval_count": 1},
                    },
                ],
            },
        )
        if ending == "release":
            await v1.subscription_schedules.release_async(made.id)
        elif ending == "cancel":
            await v1.subscription_schedules.cancel_async(made.id)
    await shop.fake.advance(days=2 * MONTH_DAYS + 1)


async def invoices(shop: Shop) -> None:
    """Invoices made by hand: every way that they can end."""
    v1 = shop.v1
    customer = await shop.customer("works")

    async def drafted() -> Any:
        made = await v1.invoices.create_async({"customer": customer, "description": "By hand"})
        await v1.invoice_items.create_async(
            {"customer": customer, "invoice": made.id, "amount": 500, "currency": "usd"}
        )
        return made

    deleted = await drafted()
    await v1.invoices.delete_async(deleted.id)
    for ending in ("pay", "void", "mark_uncollectible", "out of band"):
        made = await drafted()
        await v1.invoices.update_async(made.id, {"metadata": {"ends": ending}})
        await v1.invoices.finalize_invoice_async(made.id)
        if ending == "pay":
            await v1.invoices.pay_async(made.id, {"expand": ["payments", "customer"]})
        elif ending == "void":
            await v1.invoices.void_invoice_async(made.id)
        elif ending == "mark_uncollectible":
            await v1.invoices.mark_uncollectible_async(made.id)
        else:
            await v1.invoices.pay_async(made.id, {"paid_out_of_band": True})
    pending = await v1.invoice_items.create_async(
        {
            "customer": customer,
            "pricing": {"price": await shop.price(50)},
            "quantity": 2,
            "description": "Overage",
        }
    )
    await v1.invoice_items.update_async(pending.id, {"metadata": {"a": "b"}})
    await v1.invoice_items.delete_async(pending.id)
    await v1.invoice_items.create_async(
        {"customer": customer, "amount": 250, "currency": "usd", "description": "Waits"}
    )


async def money_back(shop: Shop) -> None:
    """Refunds and disputes of every ending."""
    v1 = shop.v1
    price = await shop.price(1000)
    charge = await shop.charge_of(await shop.buy(price))
    refund = await v1.refunds.create_async({"charge": charge, "amount": 300})
    await v1.refunds.update_async(refund.id, {"metadata": {"a": "b"}})
    await v1.charges.update_async(charge, {"metadata": {"a": "b"}})
    await v1.charges.retrieve_async(charge, {"expand": ["refunds", "customer", "payment_intent"]})
    failing = await shop.charge_of(await shop.buy(price, "refund fails"))
    await v1.refunds.create_async({"charge": failing, "reason": "requested_by_customer"})
    debit = await shop.buy(price, "async")
    await shop.fake.advance(days=4)
    await v1.payment_intents.update_async(debit["payment_intent"], {"metadata": {"a": "b"}})
    await v1.refunds.create_async({"payment_intent": debit["payment_intent"]})
    for ending in ("won", "lost", "inquiry"):
        charge = await shop.charge_of(await shop.buy(price))
        dispute = shop.fake.dispute(charge, inquiry=ending == "inquiry")["id"]
        await v1.disputes.update_async(dispute, {"evidence": {"customer_name": "Pat"}})
        if ending == "won":
            shop.fake.close_dispute(dispute, "won")
        else:
            await v1.disputes.close_async(dispute)
    await shop.fake.advance(days=6)


async def payers_who_come_back(shop: Shop) -> None:
    """An invoice that a card did not pay, paid by its intent."""
    session = await shop.subscribe(await shop.price(interval="month"), "fails at renewal")
    await shop.fake.advance(days=MONTH_DAYS, hours=2)
    owed = shop.fake.store.get("subscription", session["subscription"])["latest_invoice"]
    payments = await shop.v1.invoice_payments.list_async({"invoice": owed})
    await shop.v1.payment_intents.confirm_async(
        payments.data[0].payment.payment_intent, {"payment_method": "pm_card_visa"}
    )


async def the_rest(shop: Shop) -> None:
    """Meters, endpoints, the portal, the account."""
    v1 = shop.v1
    customer = await shop.customer()
    await v1.billing.meters.create_async(
        {
            "display_name": "Tokens",
            "event_name": "tokens",
            "default_aggregation": {"formula": "sum"},
        }
    )
    await v1.billing.meter_events.create_async(
        {"event_name": "tokens", "payload": {"stripe_customer_id": customer, "value": "5"}}
    )
    made = await v1.webhook_endpoints.create_async(
        {"url": "https://shop.example/hooks", "enabled_events": ["invoice.paid"]}
    )
    await v1.webhook_endpoints.update_async(made.id, {"disabled": True})
    kept = await v1.webhook_endpoints.create_async(
        {"url": "https://shop.example/hooks", "enabled_events": ["invoice.voided"]}
    )
    await v1.webhook_endpoints.delete_async(made.id)
    assert kept.secret
    configured = await v1.billing_portal.configurations.create_async(
        {"features": {"invoice_history": {"enabled": True}}, "name": "Ours"}
    )
    await v1.billing_portal.configurations.update_async(
        configured.id, {"features": {"subscription_cancel": {"mode": "immediately"}}}
    )
    await v1.billing_portal.sessions.create_async(
        {
            "customer": customer,
            "return_url": "https://shop.example/",
            "flow_data": {"type": "payment_method_update"},
        }
    )
    await v1.accounts.retrieve_current_async()
    await v1.events.list_async({"type": "invoice.*", "limit": 100})


SCENES: tuple[Callable[[Shop], Awaitable[None]], ...] = (
    catalogue,
    coupons,
    customers,
    checkouts,
    renewals,
    changes,
    schedules,
    invoices,
    money_back,
    payers_who_come_back,
    the_rest,
)

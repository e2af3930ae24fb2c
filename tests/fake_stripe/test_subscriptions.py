"""Subscriptions as they start, renew, fail, recover, pause and end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import stripe

from tests.support.fake_stripe.clock import DAY_S, HOUR_S
from tests.support.stripe_billing import again, at, invoices_of, item_of, subscriber

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop

JAN_31 = at(2030, 1, 31)


async def test_the_first_invoice_is_paid_at_once_and_names_what_was_bought(shop: Shop) -> None:
    await shop.fake.advance_to(JAN_31)
    price = await shop.price(1000, "month")
    subscription = await subscriber(shop, price, quantity=3, metadata={"account": "a1"})
    assert subscription.status == "active"
    assert (item_of(subscription).current_period_start, item_of(subscription).quantity) == (
        JAN_31,
        3,
    )
    assert item_of(subscription).current_period_end == at(2030, 2, 28)
    (invoice,) = await invoices_of(shop, subscription)
    assert (invoice.status, invoice.billing_reason) == ("paid", "subscription_create")
    assert (invoice.total, invoice.amount_paid, invoice.amount_remaining) == (3000, 3000, 0)
    assert invoice.parent.subscription_details.subscription == subscription.id
    assert invoice.parent.subscription_details.metadata["account"] == "a1"
    (line,) = invoice.lines.data
    assert (line.pricing.price_details.price, line.quantity) == (price, 3)
    assert (line.period.start, line.period.end) == (JAN_31, at(2030, 2, 28))
    assert line.parent.subscription_item_details.subscription_item == item_of(subscription).id
    assert line.parent.subscription_item_details.proration is False
    assert invoice.payments.data[0].status == "paid"
    assert shop.happened("customer.subscription", "invoice.") == [
        "customer.subscription.created",
        "customer.subscription.updated",
        "invoice.created",
        "invoice.finalized",
        "invoice.paid",
        "invoice.payment_succeeded",
        "customer.subscription.updated",
    ]


async def test_payments_are_shown_only_when_expanded(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    invoice = await shop.v1.invoices.retrieve_async(subscription.latest_invoice)
    assert "payments" not in invoice.to_dict()


async def test_a_year_of_renewals_is_anchored_at_the_31st(shop: Shop) -> None:
    await shop.fake.advance_to(JAN_31)
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    await shop.fake.advance_to(at(2031, 2, 1))
    invoices = await invoices_of(shop, subscription)
    assert [invoice.status for invoice in invoices] == ["paid"] * 13
    ends = [invoice.lines.data[0].period.end for invoice in invoices]
    assert ends[:4] == [at(2030, 2, 28), at(2030, 3, 31), at(2030, 4, 30), at(2030, 5, 31)]
    starts = [invoice.lines.data[0].period.start for invoice in invoices]
    assert starts == [JAN_31, *ends[:-1]]
    # The invoice's own period is the one that is over: the service's is the line's.
    assert (invoices[1].period_start, invoices[1].period_end) == (JAN_31, at(2030, 2, 28))


async def test_a_renewal_is_a_draft_for_an_hour_in_which_use_can_be_added(shop: Shop) -> None:
    await shop.fake.advance_to(JAN_31)
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    await shop.v1.invoice_items.create_async(
        {
            "customer": subscription.customer,
            "subscription": subscription.id,
            "amount": 150,
            "currency": "usd",
            "description": "Overage until now",
        }
    )
    await shop.fake.advance_to(at(2030, 2, 28))
    now = await again(shop, subscription)
    draft = await shop.v1.invoices.retrieve_async(now.latest_invoice)
    assert (draft.status, draft.billing_reason) == ("draft", "subscription_cycle")
    assert (draft.total, draft.automatically_finalizes_at) == (1150, at(2030, 2, 28, 1))
    assert item_of(now).current_period_end == at(2030, 3, 31)
    added = await shop.v1.invoice_items.create_async(
        {"customer": draft.customer, "invoice": draft.id, "amount": 25, "metadata": {"o": "1"}}
    )
    await shop.fake.advance(seconds=HOUR_S)
    paid = await shop.v1.invoices.retrieve_async(draft.id)
    assert (paid.status, paid.total) == ("paid", 1175)
    kinds = [line.parent.type for line in paid.lines.data]
    assert kinds == ["subscription_item_details", "invoice_item_details", "invoice_item_details"]
    assert paid.lines.data[2].parent.invoice_item_details.invoice_item == added.id
    assert paid.lines.data[2].metadata["o"] == "1"
    with pytest.raises(stripe.InvalidRequestError, match="no longer editable"):
        await shop.v1.invoice_items.create_async(
            {"customer": draft.customer, "invoice": draft.id, "amount": 25}
        )


async def test_a_first_payment_that_fails_leaves_it_incomplete_for_23_hours(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"), "fails")
    assert subscription.status == "incomplete"
    await shop.fake.advance(hours=23)
    assert (await again(shop, subscription)).status == "incomplete_expired"
    (invoice,) = await invoices_of(shop, subscription)
    assert invoice.status == "void"
    await shop.fake.advance(days=60)
    assert len(await invoices_of(shop, subscription)) == 1


async def test_a_first_payment_that_comes_later_activates_it(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"), None)
    assert subscription.status == "incomplete"
    shop.fake.set_card(subscription.customer, "works")
    await shop.v1.invoices.pay_async(subscription.latest_invoice)
    assert (await again(shop, subscription)).status == "active"


async def test_a_trial_costs_nothing_is_told_of_before_its_end_and_then_bills(shop: Shop) -> None:
    await shop.fake.advance_to(JAN_31)
    price = await shop.price(1000, "month")
    subscription = await subscriber(shop, price, trial_period_days=14)
    assert subscription.status == "trialing"
    assert subscription.trial_end == JAN_31 + 14 * DAY_S
    (first,) = await invoices_of(shop, subscription)
    assert (first.total, first.status, first.payments.data) == (0, "paid", [])
    assert (first.billing_reason, first.lines.data[0].amount) == ("subscription_create", 0)
    await shop.fake.advance(days=10)
    assert "customer.subscription.trial_will_end" not in shop.happened()
    await shop.fake.advance(days=1)
    assert shop.happened()[-1] == "customer.subscription.trial_will_end"
    await shop.fake.advance(days=3, hours=1)
    now = await again(shop, subscription)
    assert (now.status, item_of(now).current_period_start) == ("active", JAN_31 + 14 * DAY_S)
    _, second = await invoices_of(shop, subscription)
    assert (second.total, second.status) == (1000, "paid")
    assert second.billing_reason == "subscription_cycle"
    assert item_of(now).current_period_end == at(2030, 3, 14)


@pytest.mark.parametrize(
    ("action", "status", "told"),
    [
        ("cancel", "canceled", "customer.subscription.deleted"),
        ("pause", "paused", "customer.subscription.paused"),
        ("create_invoice", "past_due", "customer.subscription.updated"),
    ],
)
async def test_a_trial_without_a_card_ends_as_was_agreed(
    shop: Shop, action: str, status: str, told: str
) -> None:
    subscription = await subscriber(
        shop,
        await shop.price(1000, "month"),
        None,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": action}},
    )
    await shop.fake.advance(days=7, hours=1)
    assert (await again(shop, subscription)).status == status
    assert shop.happened("customer.subscription")[-1] == told


async def test_a_paused_subscription_is_billed_when_it_is_resumed(shop: Shop) -> None:
    subscription = await subscriber(
        shop,
        await shop.price(1000, "month"),
        None,
        trial_period_days=7,
        trial_settings={"end_behavior": {"missing_payment_method": "pause"}},
    )
    await shop.fake.advance(days=40)
    assert len(await invoices_of(shop, subscription)) == 1
    shop.fake.set_card(subscription.customer, "works")
    resumed = await shop.v1.subscriptions.resume_async(subscription.id)
    assert resumed.status == "active"
    assert item_of(resumed).current_period_start == shop.fake.clock.now_s
    assert [each.total for each in await invoices_of(shop, subscription)] == [0, 1000]
    assert shop.happened("customer.subscription")[-1] == "customer.subscription.resumed"


async def test_a_trial_can_be_ended_at_once(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"), trial_period_days=7)
    ended = await shop.v1.subscriptions.update_async(subscription.id, {"trial_end": "now"})
    assert ended.status == "active"
    assert [each.total for each in await invoices_of(shop, subscription)] == [0, 1000]


async def test_a_failed_renewal_is_tried_after_3_5_and_7_days_then_it_ends(shop: Shop) -> None:
    await shop.fake.advance_to(JAN_31)
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    shop.fake.set_card(subscription.customer, "fails")
    due_s = at(2030, 2, 28, 1)
    await shop.fake.advance_to(due_s)
    seen = []
    for days in (3, 5, 7):
        _, invoice = await invoices_of(shop, subscription)
        seen.append((invoice.attempt_count, (invoice.next_payment_attempt - due_s) // DAY_S))
        assert (await again(shop, subscription)).status == "past_due"
        await shop.fake.advance(days=days)
    assert seen == [(1, 3), (2, 8), (3, 15)]
    ended = await again(shop, subscription)
    assert (ended.status, ended.cancellation_details.reason) == ("canceled", "payment_failed")
    _, invoice = await invoices_of(shop, subscription)
    assert (invoice.status, invoice.next_payment_attempt, invoice.attempt_count) == (
        "open",
        None,
        4,
    )
    assert shop.happened("invoice.payment_failed") == ["invoice.payment_failed"] * 4


async def test_a_card_that_works_again_recovers_it(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    shop.fake.set_card(subscription.customer, "fails")
    await shop.fake.advance(days=32)
    assert (await again(shop, subscription)).status == "past_due"
    shop.fake.set_card(subscription.customer, "works")
    await shop.fake.advance(days=3)
    assert (await again(shop, subscription)).status == "active"
    assert shop.happened("invoice.paid") == ["invoice.paid"] * 2


async def test_what_becomes_of_it_after_the_last_try_is_a_setting(shop: Shop) -> None:
    shop.fake.dunning.retry_days = (1,)
    shop.fake.dunning.then = "unpaid"
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    shop.fake.set_card(subscription.customer, "fails")
    await shop.fake.advance(days=35)
    assert (await again(shop, subscription)).status == "unpaid"
    await shop.fake.advance(days=30)
    last = (await invoices_of(shop, subscription))[-1]
    assert (last.status, last.auto_advance) == ("draft", False)


async def test_an_end_at_the_periods_end_can_be_undone_until_then(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"))

    async def update(**params: Any) -> Any:
        return await shop.v1.subscriptions.update_async(subscription.id, params)

    planned = await update(cancel_at_period_end=True)
    assert planned.cancel_at == item_of(planned).current_period_end
    assert planned.cancellation_details.reason == "cancellation_requested"
    undone = await update(cancel_at_period_end=False)
    assert (undone.cancel_at, undone.canceled_at) == (None, None)
    await update(cancel_at="min_period_end")
    await shop.fake.advance(days=32)
    ended = await again(shop, subscription)
    assert (ended.status, ended.ended_at) == ("canceled", planned.cancel_at)
    assert len(await invoices_of(shop, subscription)) == 1
    with pytest.raises(stripe.InvalidRequestError):
        await update(cancel_at_period_end=False)


async def test_an_end_at_once_credits_unused_time_when_asked(shop: Shop) -> None:
    await shop.fake.advance_to(at(2030, 4, 1))
    subscription = await subscriber(shop, await shop.price(3000, "month"))
    await shop.fake.advance(days=10)
    ended = await shop.v1.subscriptions.cancel_async(
        subscription.id, {"prorate": True, "invoice_now": True}
    )
    assert ended.status == "canceled"
    last = (await invoices_of(shop, subscription))[-1]
    assert (last.total, last.amount_due, last.status) == (-2000, 0, "paid")
    assert (await shop.v1.customers.retrieve_async(subscription.customer)).balance == -2000
    with pytest.raises(stripe.InvalidRequestError):
        await shop.v1.subscriptions.cancel_async(subscription.id)


@pytest.mark.parametrize(
    ("behavior", "status"),
    [("keep_as_draft", "draft"), ("void", "void"), ("mark_uncollectible", "uncollectible")],
)
async def test_a_pause_of_collection_makes_invoices_nobody_pays(
    shop: Shop, behavior: str, status: str
) -> None:
    subscription = await subscriber(shop, await shop.price(1000, "month"))
    resumes_s = shop.fake.clock.now_s + 40 * DAY_S
    await shop.v1.subscriptions.update_async(
        subscription.id, {"pause_collection": {"behavior": behavior, "resumes_at": resumes_s}}
    )
    await shop.fake.advance(days=35)
    assert (await invoices_of(shop, subscription))[-1].status == status
    assert (await again(shop, subscription)).status == "active"
    await shop.fake.advance(days=30)
    now = await again(shop, subscription)
    assert now.pause_collection is None
    assert (await invoices_of(shop, subscription))[-1].status == "paid"


async def test_canceled_subscriptions_are_listed_only_when_asked_for(shop: Shop) -> None:
    price = await shop.price(1000, "month")
    kept, ended = await subscriber(shop, price), await subscriber(shop, price)
    await shop.v1.subscriptions.cancel_async(ended.id)

    async def listed(**params: Any) -> list[str]:
        return [each.id for each in (await shop.v1.subscriptions.list_async(params)).data]

    assert await listed() == [kept.id]
    assert await listed(status="all", price=price) == [ended.id, kept.id]
    assert await listed(status="canceled") == [ended.id]
    assert await listed(customer=ended.customer) == []
    (item,) = (await shop.v1.subscription_items.list_async({"subscription": kept.id})).data
    assert item.id == item_of(kept).id


async def test_400_for_items_that_can_not_be_subscribed_to(shop: Shop) -> None:
    customer = await shop.customer("works")
    once, month, year = (
        await shop.price(1),
        await shop.price(1, "month"),
        await shop.price(1, "year"),
    )
    for prices in ([], [once], [month, year], ["price_no"]):
        with pytest.raises(stripe.InvalidRequestError):
            await shop.v1.subscriptions.create_async(
                {"customer": customer, "items": [{"price": price} for price in prices]}
            )
    old = await shop.v1.prices.create_async(
        {
            "active": False,
            "currency": "usd",
            "product_data": {"name": "Old"},
            "recurring": {"interval": "month"},
            "unit_amount": 1,
        }
    )
    with pytest.raises(stripe.InvalidRequestError, match="inactive"):
        await shop.v1.subscriptions.create_async(
            {"customer": customer, "items": [{"price": old.id}]}
        )

"""Changes of plan: prorated, paid first, put off to the period's end, previewed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import stripe

from tests.support.fake_stripe.clock import DAY_S, HOUR_S
from tests.support.stripe_billing import again, at, change, invoices_of, item_of, subscriber

if TYPE_CHECKING:
    from tests.support.stripe_shop import Shop

# April has 30 days, so that ten of them are a third.
APRIL = at(2030, 4, 1)
PAID_FIRST = {
    "proration_behavior": "always_invoice",
    "payment_behavior": "pending_if_incomplete",
}


async def scene(shop: Shop, *, days: int = 10) -> tuple[Any, str]:
    """A subscriber of 30.00 a month since the first of April, and a price of 90.00."""
    await shop.fake.advance_to(APRIL)
    subscription = await subscriber(shop, await shop.price(3000, "month"))
    await shop.fake.advance(days=days)
    return subscription, await shop.price(9000, "month")


def amounts(invoice: Any) -> list[int]:
    return [line.amount for line in invoice.lines.data]


async def test_an_upgrade_credits_unused_time_and_bills_the_rest(shop: Shop) -> None:
    subscription, big = await scene(shop)
    before = len(shop.happened("customer.subscription"))
    changed = await change(shop, subscription, big, **PAID_FIRST)
    assert shop.happened("customer.subscription")[before:] == ["customer.subscription.updated"]
    assert (item_of(changed).price.id, changed.pending_update) == (big, None)
    assert item_of(changed).id == item_of(subscription).id
    assert item_of(changed).current_period_end == item_of(subscription).current_period_end
    invoice = changed.latest_invoice
    assert (invoice.billing_reason, invoice.status) == ("subscription_update", "paid")
    assert amounts(invoice) == [-2000, 6000]
    for line in invoice.lines.data:
        details = line.parent.subscription_item_details
        assert (details.proration, details.subscription_item) == (True, item_of(changed).id)
        assert (line.period.start, line.period.end) == (APRIL + 10 * DAY_S, at(2030, 5, 1))
    first = (await invoices_of(shop, subscription))[0]
    credited = invoice.lines.data[0].parent.subscription_item_details.proration_details
    assert credited.credited_items.invoice_line_items == [first.lines.data[0].id]
    await shop.fake.advance_to(at(2030, 5, 1, 1))
    assert amounts((await invoices_of(shop, subscription))[-1]) == [9000]


async def test_a_second_upgrade_credits_what_the_first_billed(shop: Shop) -> None:
    subscription, big = await scene(shop)
    await change(shop, subscription, big, **PAID_FIRST)
    await shop.fake.advance(days=10)
    changed = await change(shop, subscription, await shop.price(18000, "month"), **PAID_FIRST)
    assert amounts(changed.latest_invoice) == [-3000, 6000]


async def test_an_upgrade_that_is_not_paid_waits_and_expires(shop: Shop) -> None:
    subscription, big = await scene(shop)
    shop.fake.set_card(subscription.customer, "fails")
    waiting = await change(shop, subscription, big, **PAID_FIRST)
    assert item_of(waiting).price.id == item_of(subscription).price.id
    assert waiting.status == "active"
    assert waiting.pending_update.subscription_items[0].price.id == big
    assert waiting.pending_update.expires_at == shop.fake.clock.now_s + 23 * HOUR_S
    assert waiting.latest_invoice.status == "open"
    await shop.fake.advance(hours=23)
    now = await again(shop, subscription)
    assert (now.pending_update, item_of(now).price.id) == (None, item_of(subscription).price.id)
    assert (await invoices_of(shop, subscription))[-1].status == "void"
    assert "customer.subscription.pending_update_expired" in shop.happened()


async def test_an_upgrade_that_is_paid_late_is_made_then(shop: Shop) -> None:
    subscription, big = await scene(shop)
    shop.fake.set_card(subscription.customer, "fails")
    waiting = await change(shop, subscription, big, **PAID_FIRST)
    shop.fake.set_card(subscription.customer, "works")
    await shop.v1.invoices.pay_async(waiting.latest_invoice.id)
    now = await again(shop, subscription)
    assert (now.pending_update, item_of(now).price.id) == (None, big)
    assert shop.happened("customer.subscription")[-1] == (
        "customer.subscription.pending_update_applied"
    )


async def test_an_upgrade_that_does_not_wait_makes_the_debtor_past_due(shop: Shop) -> None:
    subscription, big = await scene(shop)
    shop.fake.set_card(subscription.customer, "fails")
    changed = await change(shop, subscription, big, proration_behavior="always_invoice")
    assert (item_of(changed).price.id, changed.status) == (big, "past_due")


async def test_a_downgrade_at_once_puts_a_credit_on_the_balance(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    small = await shop.price(1500, "month")
    changed = await change(shop, subscription, small, proration_behavior="always_invoice")
    assert amounts(changed.latest_invoice) == [-2000, 1000]
    assert (changed.latest_invoice.amount_due, changed.latest_invoice.status) == (0, "paid")
    assert (await shop.v1.customers.retrieve_async(changed.customer)).balance == -1000
    await shop.fake.advance_to(at(2030, 5, 1, 1))
    renewal = (await invoices_of(shop, subscription))[-1]
    assert (renewal.total, renewal.amount_due, renewal.starting_balance) == (1500, 500, -1000)


async def test_prorations_wait_for_the_next_invoice_unless_told_otherwise(shop: Shop) -> None:
    subscription, big = await scene(shop)
    await change(shop, subscription, big)
    assert len(await invoices_of(shop, subscription)) == 1
    pending = await shop.v1.invoice_items.list_async({"pending": True})
    assert [item.amount for item in pending.data] == [6000, -2000]
    await shop.fake.advance_to(at(2030, 5, 1, 1))
    assert amounts((await invoices_of(shop, subscription))[-1]) == [9000, -2000, 6000]


async def test_what_waits_for_an_invoice_is_credited_when_another_change_follows(
    shop: Shop,
) -> None:
    subscription, big = await scene(shop)
    await change(shop, subscription, big)
    await shop.fake.advance(days=10)
    await change(shop, subscription, await shop.price(18000, "month"))
    await shop.fake.advance_to(at(2030, 5, 1, 1))
    drawn_up = (await invoices_of(shop, subscription))[-1]
    assert amounts(drawn_up) == [18000, -2000, 6000, -3000, 6000]
    details = drawn_up.lines.data[3].parent.subscription_item_details
    assert (details.proration, details.proration_details.credited_items) == (True, None)


async def test_without_proration_a_change_costs_nothing_now(shop: Shop) -> None:
    subscription, big = await scene(shop)
    changed = await change(shop, subscription, big, proration_behavior="none")
    assert item_of(changed).price.id == big
    assert len(await invoices_of(shop, subscription)) == 1
    assert (await shop.v1.invoice_items.list_async()).data == []


async def test_another_interval_begins_a_new_period_at_once(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    year = await shop.price(30000, "year")
    changed = await change(shop, subscription, year, **PAID_FIRST)
    assert amounts(changed.latest_invoice) == [-2000, 30000]
    now_s = shop.fake.clock.now_s
    assert item_of(changed).current_period_start == now_s
    assert item_of(changed).current_period_end == at(2031, 4, 11)
    await shop.fake.advance_to(at(2031, 4, 11, 1))
    assert amounts((await invoices_of(shop, subscription))[-1]) == [30000]


async def test_more_seats_are_prorated(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    changed = await shop.v1.subscriptions.update_async(
        subscription.id,
        {
            "items": [{"id": item_of(subscription).id, "quantity": 4}],
            "proration_behavior": "always_invoice",
            "expand": ["latest_invoice"],
        },
    )
    assert item_of(changed).quantity == 4
    assert amounts(changed.latest_invoice) == [-2000, 8000]


async def test_without_the_items_id_a_second_item_is_added(shop: Shop) -> None:
    subscription, big = await scene(shop)
    changed = await shop.v1.subscriptions.update_async(subscription.id, {"items": [{"price": big}]})
    assert len(changed["items"].data) == 2
    taken = await shop.v1.subscriptions.update_async(
        subscription.id, {"items": [{"id": changed["items"].data[0].id, "deleted": True}]}
    )
    assert [item.price.id for item in taken["items"].data] == [big]
    with pytest.raises(stripe.InvalidRequestError, match="at least one"):
        await shop.v1.subscriptions.update_async(
            subscription.id, {"items": [{"id": item_of(taken).id, "deleted": True}]}
        )


async def test_during_a_trial_plans_change_for_nothing(shop: Shop) -> None:
    subscription = await subscriber(shop, await shop.price(3000, "month"), trial_period_days=14)
    big = await shop.price(9000, "month")
    changed = await change(shop, subscription, big, proration_behavior="always_invoice")
    assert (item_of(changed).price.id, changed.status) == (big, "trialing")
    assert len(await invoices_of(shop, subscription)) == 1


async def test_400_for_what_can_not_wait_for_payment(shop: Shop) -> None:
    subscription, big = await scene(shop)
    with pytest.raises(stripe.InvalidRequestError, match="supported params"):
        await change(shop, subscription, big, **PAID_FIRST, metadata={"a": "b"})


async def test_a_preview_says_what_a_change_costs_and_changes_nothing(shop: Shop) -> None:
    subscription, big = await scene(shop)
    before = len(shop.fake.events())
    items = [{"id": item_of(subscription).id, "price": big}]
    preview = await shop.v1.invoices.create_preview_async(
        {
            "subscription": subscription.id,
            "subscription_details": {"items": items, "proration_behavior": "always_invoice"},
        }
    )
    assert (preview.amount_due, amounts(preview)) == (4000, [-2000, 6000])
    later = await shop.v1.invoices.create_preview_async(
        {"subscription": subscription.id, "subscription_details": {"items": items}}
    )
    assert (later.amount_due, amounts(later)) == (13000, [9000, -2000, 6000])
    usual = await shop.v1.invoices.create_preview_async({"subscription": subscription.id})
    assert (usual.amount_due, amounts(usual)) == (3000, [3000])
    assert len(shop.fake.events()) == before
    assert item_of(await again(shop, subscription)).price.id == item_of(subscription).price.id


async def schedule_down(shop: Shop, subscription: Any, price: str, **params: Any) -> Any:
    """A schedule by which the subscription has another price from its period's end on."""
    schedule = await shop.v1.subscription_schedules.create_async(
        {"from_subscription": subscription.id}
    )
    (phase,) = schedule.phases
    return await shop.v1.subscription_schedules.update_async(
        schedule.id,
        {
            "phases": [
                {
                    "items": [{"price": phase["items"][0].price, "quantity": 1}],
                    "start_date": phase.start_date,
                    "end_date": phase.end_date,
                },
                {
                    "items": [{"price": price, "quantity": 1}],
                    "duration": {"interval": "month", "interval_count": 1},
                    "proration_behavior": "none",
                    "metadata": {"plan": "small"},
                },
            ],
            **params,
        },
    )


async def test_a_downgrade_by_schedule_comes_with_the_next_period(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    small = await shop.price(1000, "month")
    schedule = await schedule_down(shop, subscription, small)
    now = await again(shop, subscription)
    assert (now.schedule, item_of(now).price.id) == (schedule.id, item_of(subscription).price.id)
    preview = await shop.v1.invoices.create_preview_async({"subscription": subscription.id})
    assert amounts(preview) == [1000]
    await shop.fake.advance_to(at(2030, 5, 1, 1))
    now = await again(shop, subscription)
    assert (item_of(now).price.id, now.metadata["plan"]) == (small, "small")
    assert amounts((await invoices_of(shop, subscription))[-1]) == [1000]
    await shop.fake.advance_to(at(2030, 6, 2))
    now = await again(shop, subscription)
    assert (now.schedule, now.status) == (None, "active")
    done = await shop.v1.subscription_schedules.retrieve_async(schedule.id)
    assert (done.status, done.released_subscription) == ("released", subscription.id)
    assert shop.happened("subscription_schedule") == [
        "subscription_schedule.created",
        "subscription_schedule.updated",
        "subscription_schedule.updated",
        "subscription_schedule.expiring",
        "subscription_schedule.released",
    ]


async def test_a_released_schedule_changes_nothing_any_more(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    schedule = await schedule_down(shop, subscription, await shop.price(1000, "month"))
    await shop.v1.subscription_schedules.release_async(schedule.id)
    await shop.fake.advance_to(at(2030, 5, 2))
    now = await again(shop, subscription)
    assert (now.schedule, item_of(now).price.id) == (None, item_of(subscription).price.id)
    with pytest.raises(stripe.InvalidRequestError, match="released"):
        await shop.v1.subscription_schedules.release_async(schedule.id)


async def test_a_schedule_may_end_the_subscription_with_its_last_phase(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    small = await shop.price(1000, "month")
    schedule = await schedule_down(shop, subscription, small, end_behavior="cancel")
    await shop.fake.advance_to(at(2030, 6, 2))
    assert (await again(shop, subscription)).status == "canceled"
    done = await shop.v1.subscription_schedules.retrieve_async(schedule.id)
    assert (done.status, done.completed_at) == ("completed", at(2030, 6, 1))


async def test_400_for_what_a_schedule_does_not_allow(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    small = await shop.price(1000, "month")
    await schedule_down(shop, subscription, small)
    with pytest.raises(stripe.InvalidRequestError, match="managed by the subscription schedule"):
        await shop.v1.subscriptions.update_async(subscription.id, {"cancel_at_period_end": True})
    with pytest.raises(stripe.InvalidRequestError, match="already attached"):
        await shop.v1.subscription_schedules.create_async({"from_subscription": subscription.id})
    now = await again(shop, subscription)
    with pytest.raises(stripe.InvalidRequestError, match="start date of the current phase"):
        await shop.v1.subscription_schedules.update_async(
            now.schedule,
            {
                "phases": [
                    {
                        "items": [{"price": small}],
                        "start_date": "now",
                        "end_date": at(2030, 7, 1),
                    }
                ]
            },
        )


async def test_ending_a_subscription_cancels_its_schedule(shop: Shop) -> None:
    subscription, _ = await scene(shop)
    schedule = await schedule_down(shop, subscription, await shop.price(1000, "month"))
    await shop.v1.subscriptions.cancel_async(subscription.id)
    done = await shop.v1.subscription_schedules.retrieve_async(schedule.id)
    assert done.status == "canceled"

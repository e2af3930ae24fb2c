"""What was used beyond the grants is on the invoice that follows: once, exactly, in time."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.stripe_sync import overage
from gateway.stripe_sync.errors import StripeRefusedError, StripeUnavailableError
from gateway.stripe_sync.events import Hint
from gateway.stripe_sync.overage import bill_overage, sync_new_invoice
from policies.billing_options import OverageBy
from policies.catalog import Plan, Platform
from policies.money import OveragePrice
from tests.support.deployment import CREDIT, PLAN
from tests.support.payments_made import opened_till
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.payments_made import Till

DAY_MS = 86_400_000
PRO = Plan(
    "pro",
    credits_microcredits=0,
    overage_cap_microcredits=10_000 * CREDIT,
    overage_price=OveragePrice(12_300_000),  # 0.0123 of the major unit
)


class Subscriber:
    """An account with a subscription at the fake Stripe, on a plan with a price of overage."""

    def __init__(self, till: Till) -> None:
        self.till = till
        self.subscription_id = ""
        self.grant_id = 0

    async def subscribe(self, interval: str = "month", **row: Any) -> None:
        """Begin at Stripe, and in the books."""
        till = self.till
        price_id = await till.shop.price(1_000, interval)
        session = await till.shop.subscribe(price_id, customer=till.customer_id)
        # The card is the subscription's: the customer has none of its own.
        self.subscription_id = session["subscription"]
        price = await till.shop.v1.prices.retrieve_async(price_id)
        await till.rows.subscription(
            till.account_id,
            stripe_id=self.subscription_id,
            customer_id=till.customer_id,
            product_id=str(price.product),
            currency="usd",
            serves=True,
            **row,
        )

    async def use(self, microcredits: int, *, ends_in_ms: int = 60_000) -> int:
        """A period's overage, of which so much was used; the lot."""
        now_ms = time.time_ns() // 1_000_000
        grant_id = await self.till.deployment.ledger.add_grant(
            self.till.account_id,
            PRO.overage_cap_microcredits,
            source="overage",
            priority=1_000_000,
            effective_ms=now_ms - 30 * DAY_MS,
            expires_ms=now_ms + ends_in_ms,
        )
        assert grant_id is not None
        self.grant_id = grant_id
        await self.till.publish()
        await self.till.spend(microcredits)
        return grant_id

    async def end(self) -> None:
        """The period's lot is over, and nothing holds of it."""
        await self.till.sql(
            "UPDATE grants SET expires_at = now(), closed = true WHERE id = $1", self.grant_id
        )

    async def renew(self) -> str:
        """Stripe draws up the invoice of the next period; a draft."""
        v1 = self.till.shop.v1
        before = await v1.subscriptions.retrieve_async(self.subscription_id)
        await self.till.shop.fake.advance_to(before.items.data[0].current_period_end)
        after = await v1.subscriptions.retrieve_async(self.subscription_id)
        return str(after.latest_invoice)

    def items(self) -> list[dict[str, Any]]:
        """Every invoice item there is, oldest first."""
        return list(self.till.shop.fake.store.all("invoiceitem"))

    def invoice(self, invoice_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.till.shop.fake.store.get("invoice", invoice_id)
        return found

    async def open_charges(self) -> int:
        return int(
            await self.till.sql("SELECT count(*) FROM overage_charges WHERE billed_at IS NULL")
        )

    async def age(self) -> None:
        """What was begun was begun some time ago."""
        await self.till.sql("UPDATE overage_charges SET created_at = created_at - interval '5 min'")


@pytest_asyncio.fixture
async def subscriber(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Subscriber]:
    async with opened_till(clean_redis_url, postgres_url) as till:
        await on_pro(till)
        subscribed = Subscriber(till)
        await subscribed.subscribe()
        yield subscribed


async def on_pro(till: Till) -> None:
    await till.deployment.ledger.apply_catalog(Platform("demo"), [PLAN, PRO], [])
    await till.sql(
        "UPDATE accounts SET plan_id = (SELECT id FROM plans WHERE slug = 'pro') WHERE id = $1",
        till.account_id,
    )


async def test_overage_is_on_the_invoice_that_renews_rounded_up_once(
    subscriber: Subscriber,
) -> None:
    await subscriber.use(1_234_567_000)  # x 0.0123 = 15.1851741
    invoice_id = await subscriber.renew()

    await sync_new_invoice(subscriber.till.sync, Hint("invoice.created", invoice_id, 0))

    (item,) = subscriber.items()
    assert (item["amount"], item["invoice"], item["discountable"]) == (1_519, invoice_id, False)
    assert item["description"] == "1234.567 credits beyond the plan pro"
    await subscriber.till.shop.fake.advance(hours=2)
    paid = subscriber.invoice(invoice_id)
    assert (paid["status"], paid["total"]) == ("paid", 1_000 + 1_519)
    assert await subscriber.open_charges() == 0


async def test_many_who_bill_at_once_and_again_bill_once(subscriber: Subscriber) -> None:
    await subscriber.use(100 * CREDIT)
    invoice_id = await subscriber.renew()
    hint = Hint("invoice.created", invoice_id, 0)
    sync = subscriber.till.sync

    await asyncio.gather(*(sync_new_invoice(sync, hint) for _ in range(4)))
    await bill_overage(sync, subscriber.till.account_id)

    assert [item["amount"] for item in subscriber.items()] == [123]


async def test_what_is_settled_after_billing_is_the_next_part(subscriber: Subscriber) -> None:
    till = subscriber.till
    await subscriber.use(10 * CREDIT)  # 12.3 cents
    call_id = await till.deployment.hold(till.caller, 5 * CREDIT)
    invoice_id = await subscriber.renew()
    await sync_new_invoice(till.sync, Hint("invoice.created", invoice_id, 0))
    await till.shop.fake.advance(hours=2)

    await till.deployment.settle(till.caller, call_id, 5 * CREDIT)
    await till.deployment.carry()
    await bill_overage(till.sync, till.account_id)
    assert [item["amount"] for item in subscriber.items()] == [13]  # the lot is not closed yet

    await subscriber.end()
    # Stripe's clock is a month ahead of ours here: its period is not a long one.
    await till.sql("UPDATE subscriptions SET period_end_at = now() + interval '30 days'")
    await bill_overage(till.sync, till.account_id)
    first, second = subscriber.items()
    assert (first["amount"], second["amount"]) == (13, 19 - 13)  # 15 credits are 18.45 cents
    assert (second["invoice"], first["invoice"]) == (None, invoice_id)

    next_id = await subscriber.renew()
    assert subscriber.items()[1]["invoice"] == next_id


async def test_what_ends_without_a_renewal_waits_for_the_next_invoice(
    subscriber: Subscriber,
) -> None:
    await subscriber.use(100 * CREDIT)
    await bill_overage(subscriber.till.sync, subscriber.till.account_id)
    assert subscriber.items() == []  # the period runs on

    await subscriber.end()
    await bill_overage(subscriber.till.sync, subscriber.till.account_id)
    (item,) = subscriber.items()
    assert (item["amount"], item["invoice"]) == (123, None)
    assert (await subscriber.renew()) == subscriber.items()[0]["invoice"]


@pytest.mark.parametrize("step", ["_make_item", "note_billed", "_collect"])
async def test_a_death_after_any_step_bills_once(
    subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    await subscriber.use(100 * CREDIT)
    await subscriber.end()

    async def dies(*_arguments: object) -> None:
        raise StripeUnavailableError("the process died")

    with monkeypatch.context() as patched:
        patched.setattr(overage, step, dies)
        with pytest.raises(StripeUnavailableError):
            await bill_overage(subscriber.till.sync, subscriber.till.account_id)
    assert await subscriber.open_charges() == 1

    await bill_overage(subscriber.till.sync, subscriber.till.account_id)
    assert await subscriber.open_charges() == 1  # somebody may still be asking Stripe
    await subscriber.age()
    await subscriber.renew()  # meanwhile what waited was put on an invoice
    await bill_overage(subscriber.till.sync, subscriber.till.account_id)

    assert [item["amount"] for item in subscriber.items()] == [123]
    assert await subscriber.open_charges() == 0


async def test_an_answer_that_is_cut_off_bills_once(subscriber: Subscriber) -> None:
    await subscriber.use(100 * CREDIT)
    await subscriber.end()
    fake = subscriber.till.shop.fake
    fake.fail_next(1, "disconnect", after=True)  # of listing drafts
    await bill_overage(subscriber.till.sync, subscriber.till.account_id)

    assert [item["amount"] for item in subscriber.items()] == [123]


@pytest.mark.parametrize("is_changed", [False, True])
async def test_asked_again_before_its_list_shows_it_stripe_makes_no_second_item(
    subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch, *, is_changed: bool
) -> None:
    till = subscriber.till
    await subscriber.use(100 * CREDIT)
    await subscriber.renew()
    monkeypatch.setattr(overage, "ASKING_MS_MAX", 0)

    async def dies(*_arguments: object) -> None:
        raise StripeUnavailableError("the process died")

    async def unlisted(*_arguments: object) -> None:
        return None

    with monkeypatch.context() as patched:
        patched.setattr(overage, "note_billed", dies)
        with pytest.raises(StripeUnavailableError):
            await bill_overage(till.sync, till.account_id)
    began_s = await till.sql("SELECT to_ms(created_at) / 1000 FROM overage_charges")
    await eventually(lambda: time.time() > began_s + 1)
    monkeypatch.setattr(overage, "_known", unlisted)
    if is_changed:  # what is sent with the key is another product's now
        other = await till.shop.price(2_000, "month")
        product = (await till.shop.v1.prices.retrieve_async(other)).product
        await till.sql("UPDATE subscriptions SET product_id = $1", str(product))
        with pytest.raises(StripeRefusedError):
            await bill_overage(till.sync, till.account_id)
    else:
        await bill_overage(till.sync, till.account_id)

    assert [item["amount"] for item in subscriber.items()] == [123]
    assert await subscriber.open_charges() == int(is_changed)


async def test_a_subscription_that_ended_gets_an_invoice_of_its_own(
    subscriber: Subscriber,
) -> None:
    till = subscriber.till
    await subscriber.use(100 * CREDIT)
    await till.shop.v1.subscriptions.cancel_async(subscriber.subscription_id)
    await till.sql("UPDATE subscriptions SET status = 'canceled', serves = false")
    await subscriber.end()

    await bill_overage(till.sync, till.account_id)

    (item,) = subscriber.items()
    assert subscriber.invoice(item["invoice"])["status"] == "draft"
    await till.shop.fake.advance(hours=2)
    paid = subscriber.invoice(item["invoice"])
    assert (paid["status"], paid["total"], paid["billing_reason"]) == ("paid", 123, "manual")


@pytest.mark.parametrize("step", ["_make_item", "note_billed", "_collect"])
async def test_a_death_leaves_one_invoice_of_its_own(
    subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    till = subscriber.till
    await subscriber.use(100 * CREDIT)
    await till.sql("UPDATE subscriptions SET status = 'canceled', serves = false")
    await subscriber.end()

    async def dies(*_arguments: object) -> None:
        raise StripeUnavailableError("the process died")

    with monkeypatch.context() as patched:
        patched.setattr(overage, step, dies)
        with pytest.raises(StripeUnavailableError):
            await bill_overage(till.sync, till.account_id)
    await subscriber.age()
    await bill_overage(till.sync, till.account_id)

    await till.shop.fake.advance(hours=2)
    made = [one for one in till.shop.fake.store.all("invoice") if one["billing_reason"] == "manual"]
    assert [(one["status"], one["total"]) for one in made] == [("paid", 123)]


async def test_a_yearly_price_is_not_waited_for(clean_redis_url: str, postgres_url: str) -> None:
    async with opened_till(clean_redis_url, postgres_url) as till:
        await on_pro(till)
        subscriber = Subscriber(till)
        far = time.time_ns() // 1_000_000 + 200 * DAY_MS
        await subscriber.subscribe("year")
        await till.sql("UPDATE subscriptions SET period_end_at = from_ms($1)", far)
        await subscriber.use(100 * CREDIT)
        await subscriber.end()

        await bill_overage(till.sync, till.account_id)

        (item,) = subscriber.items()
        assert subscriber.invoice(item["invoice"])["billing_reason"] == "manual"


async def test_the_price_is_that_of_the_plan_that_gave_the_lot(subscriber: Subscriber) -> None:
    till = subscriber.till
    await subscriber.use(100 * CREDIT)
    dearer = Plan("pro", 0, overage_cap_microcredits=CREDIT, overage_price=OveragePrice(10**9))
    await till.deployment.ledger.apply_catalog(Platform("demo"), [PLAN, dearer], [])
    await till.sql("UPDATE accounts SET plan_id = NULL WHERE id = $1", till.account_id)
    await subscriber.end()

    await bill_overage(till.sync, till.account_id)

    assert [item["amount"] for item in subscriber.items()] == [123]


async def test_a_plan_without_a_price_bills_nothing(subscriber: Subscriber) -> None:
    till = subscriber.till
    free = Plan("pro", 0, overage_cap_microcredits=CREDIT)
    await till.deployment.ledger.apply_catalog(Platform("demo"), [PLAN, free], [])
    await subscriber.use(100 * CREDIT)
    await subscriber.end()

    await bill_overage(till.sync, till.account_id)

    assert subscriber.items() == []


async def test_what_calls_were_given_back_is_not_billed(subscriber: Subscriber) -> None:
    till = subscriber.till
    await subscriber.use(60 * CREDIT)
    call_id = await till.deployment.call(till.caller, 40 * CREDIT)
    await till.deployment.carry()
    policy = PLAN.refund_expired
    await till.deployment.ledger.refund_call(till.deployment.platform_id, call_id, "", policy)
    await subscriber.end()

    await bill_overage(till.sync, till.account_id)

    assert [item["amount"] for item in subscriber.items()] == [74]  # 60 x 1.23 cents


async def test_a_draft_that_is_final_by_now_leaves_it_for_the_next(
    subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    till = subscriber.till
    await subscriber.use(100 * CREDIT)
    invoice_id = await subscriber.renew()
    whole = overage._make_item

    async def late(*arguments: Any) -> Any:
        await till.shop.fake.advance(hours=2)
        return await whole(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(overage, "_make_item", late)
        with pytest.raises(overage.StripeRefusedError):
            await bill_overage(till.sync, till.account_id)
    assert subscriber.invoice(invoice_id)["total"] == 1_000
    await subscriber.age()
    await bill_overage(till.sync, till.account_id)

    assert [(item["amount"], item["invoice"]) for item in subscriber.items()] == [(123, None)]


async def test_meter_events_tell_whole_credits_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with opened_till(
        clean_redis_url,
        postgres_url,
        overage_by=OverageBy.METER_EVENTS,
        meter_event_name="overage",
    ) as till:
        await on_pro(till)
        await till.shop.v1.billing.meters.create_async(
            {
                "display_name": "Overage",
                "event_name": "overage",
                "default_aggregation": {"formula": "sum"},
            }
        )
        subscriber = Subscriber(till)
        await subscriber.subscribe()
        await subscriber.use(10 * CREDIT + 1)
        invoice_id = await subscriber.renew()
        await sync_new_invoice(till.sync, Hint("invoice.created", invoice_id, 0))
        await till.spend(2 * CREDIT)
        await subscriber.end()
        await bill_overage(till.sync, till.account_id)

        told = till.shop.fake.store.all("billing.meter_event")
        assert [event["payload"]["value"] for event in told] == ["11", "2"]  # 12.000001 in all
        assert told[0]["timestamp"] < subscriber.invoice(invoice_id)["period_end"]
        assert subscriber.items() == []


async def test_without_a_subscription_nothing_can_be_billed(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with opened_till(clean_redis_url, postgres_url) as till:
        await on_pro(till)
        subscriber = Subscriber(till)
        await subscriber.use(100 * CREDIT)
        await subscriber.end()

        await bill_overage(till.sync, till.account_id)

        assert (subscriber.items(), await subscriber.open_charges()) == ([], 0)

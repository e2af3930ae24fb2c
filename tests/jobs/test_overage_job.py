"""The job bills what no event has billed, and gives up on what can't be."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.jobs.overage import GIVEN_UP_MS, Overage
from gateway.stripe_sync.errors import NotSetUpError
from policies.catalog import Plan, Platform
from policies.money import OveragePrice
from tests.support.deployment import CREDIT, PLAN
from tests.support.payments_made import opened_till

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from gateway.ledger import Ledger
    from gateway.stripe_sync.sync import Sync
    from tests.support.payments_made import Till

DAY_MS = 86_400_000
PRO = Plan("pro", 0, overage_cap_microcredits=CREDIT, overage_price=OveragePrice(10**9))


class OneBilling:
    """Billing of one platform, which may not be set up."""

    def __init__(self, till: Till) -> None:
        self._till = till
        self.is_set_up = True

    @property
    def ledger(self) -> Ledger:
        return self._till.deployment.ledger

    async def sync(self, _platform_id: int) -> Sync:
        if not self.is_set_up:
            raise NotSetUpError("demo")
        return self._till.sync


@pytest_asyncio.fixture
async def till(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Till]:
    async with opened_till(clean_redis_url, postgres_url) as opened:
        await opened.deployment.ledger.apply_catalog(Platform("demo"), [PLAN, PRO], [])
        await opened.sql("UPDATE accounts SET plan_id = (SELECT id FROM plans WHERE slug = 'pro')")
        yield opened


async def used(till: Till, *, ends_in_ms: int) -> int:
    """A lot of overage of which a credit was used; it ends so much later."""
    now_ms = time.time_ns() // 1_000_000
    grant_id = await till.deployment.ledger.add_grant(
        till.account_id,
        10 * CREDIT,
        source="overage",
        priority=1_000_000,
        effective_ms=now_ms - 200 * DAY_MS,
        expires_ms=now_ms + DAY_MS,
    )
    assert grant_id is not None
    await till.publish()
    await till.spend(CREDIT)
    await till.sql(
        "UPDATE grants SET expires_at = from_ms($2), closed = $3 WHERE id = $1",
        grant_id,
        now_ms + ends_in_ms,
        ends_in_ms < 0,
    )
    return grant_id


async def subscribed(till: Till) -> None:
    session = await till.shop.subscribe(
        await till.shop.price(1_000, "month"), customer=till.customer_id
    )
    await till.rows.subscription(
        till.account_id,
        stripe_id=session["subscription"],
        customer_id=till.customer_id,
        currency="usd",
        serves=True,
    )


def items(till: Till) -> list[int]:
    return [item["amount"] for item in till.shop.fake.store.all("invoiceitem")]


async def still_open(till: Till) -> int:
    return int(await till.sql("SELECT count(*) FROM overage_terms WHERE NOT is_billed"))


async def test_what_has_ended_is_billed_once_and_then_looked_at_no_more(till: Till) -> None:
    await subscribed(till)
    await used(till, ends_in_ms=-1_000)
    job = Overage(OneBilling(till))  # type: ignore[arg-type] # all that it uses

    assert [await job.bill(), await job.bill()] == [1, 0]
    assert items(till) == [100]
    assert await still_open(till) == 0


async def test_a_period_that_runs_is_left_alone(till: Till) -> None:
    await subscribed(till)
    await used(till, ends_in_ms=till.sync.options.bridge_ms + 60_000)

    before = len(till.shop.fake.requests)
    assert await Overage(OneBilling(till)).bill() == 0  # type: ignore[arg-type]
    assert len(till.shop.fake.requests) == before  # Stripe is not even asked


async def test_trouble_of_one_platform_is_logged_and_tried_again(till: Till) -> None:
    await subscribed(till)
    await used(till, ends_in_ms=-1_000)
    billing = OneBilling(till)
    job = Overage(billing)  # type: ignore[arg-type]
    billing.is_set_up = False
    assert await job.bill() == 0
    billing.is_set_up = True
    till.shop.fake.fail_next(3)
    assert await job.bill() == 0
    assert await job.bill() == 1
    assert items(till) == [100]


async def test_a_mistake_of_ours_about_one_account_ends_no_round(
    till: Till, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def mistaken(_sync: Sync, _account_id: int) -> None:
        raise KeyError("items")

    await subscribed(till)
    await used(till, ends_in_ms=-1_000)
    job = Overage(OneBilling(till))  # type: ignore[arg-type]
    with monkeypatch.context() as patched:
        patched.setattr("gateway.jobs.overage.bill_overage", mistaken)
        assert await job.bill() == 0
    assert f"overage of account {till.account_id} can't be billed" in caplog.text
    assert await job.bill() == 1


async def test_nobody_is_billed_for_what_ended_long_ago(till: Till) -> None:
    await used(till, ends_in_ms=-GIVEN_UP_MS - 1_000)
    job = Overage(OneBilling(till))  # type: ignore[arg-type]
    assert await job.bill() == 0
    await subscribed(till)

    assert await job.bill() == 0
    assert (items(till), await still_open(till)) == ([], 0)

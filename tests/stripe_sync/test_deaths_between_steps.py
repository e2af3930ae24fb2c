"""A process that dies between any two steps of an event leaves all of it or nothing.

A step is a question to Stripe, a query, a commit, or telling Redis. After each death the event
comes again; at the end the books are what one undisturbed handling makes of it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.jobs.telling import Telling
from gateway.ledger.database import Session
from gateway.operations.publish import publisher
from gateway.stripe_sync.client import StripeApi
from gateway.stripe_sync.sync import Sync
from tests.support.billing_calendar import Died
from tests.support.market import DAY_S, opened_market

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from tests.support.fake_stripe.store import Object
    from tests.support.market import Market

# More steps than any event has.
STEPS_MAX = 400


@pytest_asyncio.fixture
async def market(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Market]:
    async with opened_market(clean_redis_url, postgres_url, ago_s=40 * DAY_S) as opened:
        yield opened


class Steps:
    """Counts steps, and dies after one of them."""

    def __init__(self, last: int) -> None:
        self.left = last

    def done(self) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1


@contextmanager
def dying(monkeypatch: pytest.MonkeyPatch, steps: Steps) -> Iterator[None]:
    """Whoever handles something inside dies after so many steps."""

    def counted(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def step(*arguments: Any, **options: Any) -> Any:
            answer = await method(*arguments, **options)
            steps.done()
            return answer

        return step

    locked = Sync.customer_locked

    @asynccontextmanager
    async def committed(sync: Sync, customer_id: str) -> AsyncIterator[Session]:
        async with locked(sync, customer_id) as session:
            yield session
        steps.done()

    with monkeypatch.context() as patch:
        for kind, method in (
            (Session, "all"),
            (Session, "one"),
            (Session, "value"),
            (StripeApi, "ask"),
            (Sync, "tell"),
        ):
            patch.setattr(kind, method, counted(getattr(kind, method)))
        patch.setattr(Sync, "customer_locked", committed)
        yield


async def books(market: Market) -> dict[str, object]:
    """All that handling events writes."""
    found = {}
    for name, columns in (
        ("subscriptions", "stripe_id, status, plan_slug, serves, dunning_stage, failures"),
        ("billing_transactions", "business_key, kind, status, amount_minor"),
        ("billing_lines", "line_id, kind, slug, amount_minor"),
        ("grants", "source, amount_microcredits, effective_at, expires_at, business_key"),
        ("paid_lots", "microcredits"),
        ("account_events", "kind, business_key"),
        ("accounts", "plan_id, renewed_by, payment_suspended"),
        ("stripe_customers", "customer_id, deleted_at IS NULL"),
    ):
        found[name] = await market.sql(
            f"SELECT coalesce(jsonb_agg(row ORDER BY row::text), '[]')::text"
            f" FROM (SELECT {columns} FROM {name}) AS row"
        )
    return found


async def told(market: Market) -> None:
    """What the telling job does a while after somebody died."""
    await market.sql("UPDATE untold_accounts SET changed_at = now() - interval '1 hour'")
    publish = publisher(market.ledger, market.deployment.counters)
    await Telling(market.deployment.counters, market.ledger, publish).tell()


async def a_first_payment(market: Market) -> Sequence[Object]:
    await market.subscribe("pro", quantity=2, trial_period_days=20)
    await market.catch_up()
    await market.advance_to_now()
    return [event for event in market.waiting() if event["type"] == "invoice.paid"][:1]


async def an_upgrade(market: Market) -> Sequence[Object]:
    await market.advance_to_now()
    subscription = await market.subscribe("pro", "year")
    await market.catch_up()
    await market.change(subscription.id, "max", "year")
    return [event for event in market.waiting() if event["type"] == "invoice.paid"]


async def a_pack(market: Market) -> Sequence[Object]:
    await market.customer()
    await market.advance_to_now()
    await market.shop.buy(market.prices["small", ""], customer=market.customer_id)
    return [e for e in market.waiting() if e["type"] == "checkout.session.completed"]


async def a_failure(market: Market) -> Sequence[Object]:
    await market.subscribe("pro", trial_end=market.fake.clock.now_s + 25 * DAY_S)
    await market.catch_up()
    market.fake.set_card(market.customer_id, "fails")
    await market.fake.advance(days=25, hours=2)
    events = market.waiting()
    await market.advance_to_now()
    market.waiting()
    return [event for event in events if event["type"] == "invoice.payment_failed"]


async def an_end(market: Market) -> Sequence[Object]:
    await market.advance_to_now()
    subscription = await market.subscribe("pro")
    await market.catch_up()
    await market.shop.v1.subscriptions.cancel_async(subscription.id)
    return [e for e in market.waiting() if e["type"] == "customer.subscription.deleted"]


@pytest.mark.parametrize(
    ("prepare", "credits_after"),
    [
        (a_first_payment, 2_000),
        (an_upgrade, 5_000),
        (a_pack, 300),
        (a_failure, 10),
        (an_end, 1_010),
    ],
)
async def test_all_or_nothing_is_left_by_a_death_and_the_next_handling_makes_it_whole(
    market: Market,
    monkeypatch: pytest.MonkeyPatch,
    prepare: Callable[[Market], Awaitable[Sequence[Object]]],
    credits_after: int,
) -> None:
    events = await prepare(market)
    assert events
    await market.expire()
    nothing = await books(market)
    seen = []
    for last in range(STEPS_MAX):
        with dying(monkeypatch, Steps(last)):
            try:
                await market.handle(events)
            except Died:
                is_over = False
            else:
                is_over = True
        left = await books(market)
        if left not in seen:
            seen.append(left)
            await told(market)
            await market.balance()  # both stores say the same
        if is_over:
            break
    else:
        pytest.fail("it never ended")
    everything = await books(market)
    assert seen == [nothing, everything]
    assert await market.balance() == credits_after
    assert await market.findings() == []


async def test_eight_who_handle_the_same_history_at_once_give_once(market: Market) -> None:
    subscription = await market.subscribe("pro")
    await market.fake.advance(hours=1)
    await market.change(subscription.id, "max")
    await market.advance_to_now()
    events = market.waiting()
    await asyncio.gather(*(market.handle(events) for _ in range(8)))
    await market.expire()
    assert [lot.credits for lot in await market.lots("plan")] == [1_000, 4_000, 5_000]
    assert await market.balance() == 5_000
    assert len(await market.payments()) == 3
    assert await market.findings() == []

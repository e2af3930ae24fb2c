"""Whoever dies while something is taken back leaves a step that anybody finishes, exactly once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from gateway.counters.errors import CountersUnavailable
from gateway.jobs.clawbacks import Clawbacks
from gateway.operations import clawbacks
from gateway.operations.withdraw import NotTakenError, never_ready
from gateway.recovery.carry import Carrier
from gateway.stripe_sync.refunds import take_back_of
from tests.support.billing_calendar import Died
from tests.support.deployment import CREDIT
from tests.support.payments_made import opened_till

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.payments_made import Bought, Till


@pytest_asyncio.fixture
async def till(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Till]:
    async with opened_till(clean_redis_url, postgres_url) as opened:
        yield opened


async def bought_and_refunded(till: Till) -> Bought:
    """Two lots of 50 credits, 30 spent of the first, all of it paid back."""
    lots = [{"microcredits": 50 * CREDIT}, {"microcredits": 50 * CREDIT, "priority": 5}]
    bought = await till.buy(*lots)
    await till.spend(30 * CREDIT)
    await till.refund(bought)
    return bought


async def finished(till: Till) -> int:
    """What the job finishes."""
    job = Clawbacks(till.deployment.ledger, till.deployment.counters, never_ready, open_ms=0)
    return await job.finish()


async def all_is_right(till: Till) -> None:
    assert (await till.balance(), await till.owed()) == (0, 30 * CREDIT)
    assert await till.sql("SELECT count(*) FROM clawbacks WHERE NOT is_done") == 0
    assert await till.findings() == []


def dying(whole: Any, *, after: int, before: bool = False) -> Any:
    """A step whose process dies when it has done it so many times; or would do it once more."""
    calls = 0

    async def step(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if before and calls == after:
            raise Died
        answer = await whole(*arguments, **options)
        if calls == after:
            raise Died
        return answer

    return step


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    ("step", "after"),
    [
        ("publish_account", 1),
        ("withdraw", 1),  # two that ask what was taken before
        ("withdraw", 3),
        ("withdraw", 4),
        ("payment_lots", 1),
        ("finish_taking", 1),
    ],
)
async def test_a_death_between_any_two_steps_takes_it_once(
    till: Till, monkeypatch: pytest.MonkeyPatch, step: str, after: int, *, before: bool
) -> None:
    bought = await bought_and_refunded(till)
    with monkeypatch.context() as patched:
        whole = getattr(clawbacks, step)
        patched.setattr(clawbacks, step, dying(whole, after=after, before=before))
        with pytest.raises(Died):
            await take_back_of(till.sync, bought.transaction_id)

    assert await finished(till) == 1
    await all_is_right(till)
    await take_back_of(till.sync, bought.transaction_id)
    assert await finished(till) == 0
    await all_is_right(till)


async def test_what_was_taken_in_redis_alone_is_found_there(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = await bought_and_refunded(till)

    async def dies(*_: object) -> None:
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(Carrier, "carry_entry", dies)
        with pytest.raises(Died):
            await take_back_of(till.sync, bought.transaction_id)
    assert await till.balance() < 70 * CREDIT

    assert await finished(till) == 1
    await all_is_right(till)


async def test_credits_that_came_free_meanwhile_are_not_taken_beyond_the_amount(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    lots = [{"microcredits": 50 * CREDIT}, {"microcredits": 50 * CREDIT, "priority": 5}]
    bought = await till.buy(*lots)
    call_id = await till.deployment.hold(till.caller, 100 * CREDIT)
    await till.deployment.settle(till.caller, call_id, 0)
    call_id = await till.deployment.hold(till.caller, 90 * CREDIT)  # 10 of the second are left
    await till.refund(bought, 500)
    with monkeypatch.context() as patched:
        patched.setattr(clawbacks, "finish_taking", dying(None, after=1, before=True))
        with pytest.raises(Died):
            await take_back_of(till.sync, bought.transaction_id)
    assert await till.balance() == 0
    await till.deployment.settle(till.caller, call_id, 0)
    assert await till.balance() == 90 * CREDIT

    assert await finished(till) == 1

    # What the second had given counts; of the first so much was free by now as was missing.
    assert (await till.balance(), await till.owed()) == (50 * CREDIT, 0)
    assert await till.findings() == []


async def test_while_redis_is_away_the_step_waits(
    till: Till, monkeypatch: pytest.MonkeyPatch
) -> None:
    bought = await bought_and_refunded(till)

    async def away(*_: object, **__: object) -> None:
        raise CountersUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(type(till.deployment.counters), "withdraw", away)
        with pytest.raises(NotTakenError):
            await take_back_of(till.sync, bought.transaction_id)
        assert await finished(till) == 0
    assert await till.owed() == 0

    await take_back_of(till.sync, bought.transaction_id)
    await all_is_right(till)


async def test_many_jobs_finish_a_step_once(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    bought = await bought_and_refunded(till)
    with monkeypatch.context() as patched:
        patched.setattr(clawbacks, "publish_account", dying(None, after=1, before=True))
        with pytest.raises(Died):
            await take_back_of(till.sync, bought.transaction_id)

    assert sum(await asyncio.gather(*(finished(till) for _ in range(5)))) == 1
    await all_is_right(till)

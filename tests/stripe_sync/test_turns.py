"""However many ask at once, and however slow Stripe is, Postgres has connections for others."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from gateway.ledger import LedgerUnavailable
from gateway.stripe_sync.buyers import customer_for
from gateway.stripe_sync.changes import cancel
from gateway.stripe_sync.turns import ASKING_MAX, WORKING_MAX, Turns

if TYPE_CHECKING:
    from tests.support.market import Market

MANY = 40


async def most_at_once(turns: Turns, names: list[str]) -> int:
    """How many had a turn at the same time, each for as long as others can come in."""
    now = most = 0

    async def take(name: str) -> None:
        nonlocal now, most
        async with turns.turn(name):
            now += 1
            most = max(most, now)
            for _ in range(MANY):
                await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*map(take, names))
    return most


async def test_of_one_name_one_has_a_turn() -> None:
    assert await most_at_once(Turns(3), ["a"] * 5) == 1


async def test_of_all_names_so_many_have_a_turn() -> None:
    assert await most_at_once(Turns(3), list("abcdefgh")) == 3


async def test_who_waits_for_a_name_keeps_nobody_of_another_waiting() -> None:
    turns = Turns(2)
    async with turns.turn("a"):
        waiting = [asyncio.create_task(most_at_once(turns, ["a"])) for _ in range(5)]
        await asyncio.sleep(0)
        assert await most_at_once(turns, ["b"]) == 1
    await asyncio.gather(*waiting)


async def test_nobody_waits_for_ever_and_who_gave_up_keeps_nobody_waiting() -> None:
    turns = Turns(1, wait_s=0.01)
    async with turns.turn("a"):
        for name in ("a", "b"):
            with pytest.raises(LedgerUnavailable):
                await most_at_once(turns, [name])
    assert await most_at_once(turns, ["a", "b"]) == 1


async def test_many_who_become_customers_at_once_take_few_connections(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, asked, go_on = market.sync.api.ask, asyncio.Event(), asyncio.Event()

    async def slow(request: Any) -> Any:
        asked.set()
        await go_on.wait()
        return await ask(request)

    monkeypatch.setattr(market.sync.api, "ask", slow)
    before = await connections(market)
    account = market.caller.account
    tasks = [asyncio.create_task(customer_for(market.sync, account)) for _ in range(MANY)]
    await asked.wait()

    most = await connections(market) - before
    go_on.set()
    made = await asyncio.gather(*tasks)

    # One holds the lock; the ledger's pool may have grown.
    assert most <= 1 + 4
    assert len(set(made)) == 1


async def test_changes_and_the_events_that_they_cause_wait_for_each_other_in_no_ring(
    market: Market,
) -> None:
    await market.subscribe("pro")
    await market.catch_up()
    account = market.caller.account
    asked = ASKING_MAX + WORKING_MAX

    ends = await asyncio.gather(
        *(cancel(market.sync, account) for _ in range(asked)),
        *(market.handle(market.fake.events()) for _ in range(WORKING_MAX)),
    )

    assert len(set(ends[:asked])) == 1
    assert await market.findings() == []


async def connections(market: Market) -> int:
    """How many Postgres has for this deployment."""
    return int(
        await market.sql(
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    )

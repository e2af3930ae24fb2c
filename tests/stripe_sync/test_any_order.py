"""Any order, doubling, delay and loss of a history's events ends in the same books."""

from __future__ import annotations

import random
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import redis.asyncio

from tests.support import servers
from tests.support.hearers import Books, opened_books
from tests.support.histories import opened_history

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.histories import History

HISTORIES = 8
NETWORKS = 3
DAYS = 70
BOOKS_SHARE_SPENT = 0.8


@pytest_asyncio.fixture(scope="module")
async def redis_urls(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[str]]:
    """A server for each of a history's books: embedded ones have one database."""
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                servers.redis_server(tmp_path_factory.mktemp("books") / "data")
            )
            for _ in range(NETWORKS + 1)
        ]


@pytest_asyncio.fixture
async def postgres_urls(
    postgres_server_url: str, _migrated_template: str
) -> AsyncIterator[list[str]]:
    """A database for each of a history's books."""
    urls = [
        await servers.create_database(postgres_server_url, _migrated_template)
        for _ in range(NETWORKS + 1)
    ]
    yield urls
    for url in urls:
        await servers.drop_database(url, postgres_server_url)


@pytest.mark.parametrize("seed", range(HISTORIES))
async def test_a_history_ends_in_the_same_books_whatever_is_heard_of_it_and_when(
    seed: int,
    redis_urls: list[str],
    postgres_urls: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with AsyncExitStack() as stack:
        history = await stack.enter_async_context(opened_history(seed, DAYS))
        # Which events are still on Stripe's list goes by Stripe's time.
        monkeypatch.setattr(
            "gateway.stripe_sync.reconcile.now_ms", lambda: history.fake.clock.now_s * 1_000
        )
        chances = [None, *(random.Random(f"network {seed} {n}") for n in range(NETWORKS))]
        all_books = []
        for *urls, chance in zip(redis_urls, postgres_urls, chances, strict=True):
            async with redis.asyncio.from_url(urls[0]) as client:
                await client.flushall()
            opened = opened_books(*urls, history, chance)
            all_books.append(await stack.enter_async_context(opened))
        async for _ in history.live_on(DAYS):
            await everybody_hears(history, all_books)
        await all_end(history, all_books)
        said = await all_books[0].ledger()
        assert said["transactions"], history.told
        for books in all_books[1:]:
            differ = differences(said, await books.ledger())
            assert not differ, "\n".join([*history.told, *map(str, differ.items())])

        for books in all_books:
            await books.spend(BOOKS_SHARE_SPENT)
        async for _ in history.take_back(3):
            await everybody_hears(history, all_books)
        await all_end(history, all_books)
        worth = await all_books[0].worth()
        for books in all_books[1:]:
            assert await books.worth() == worth, history.told


async def everybody_hears(history: History, all_books: list[Books]) -> None:
    for books in all_books:
        await books.hear(history)


async def all_end(history: History, all_books: list[Books]) -> None:
    for books in all_books:
        await books.end()
        again = await books.reconcile()
        assert (again.events_added, again.payments_mended, again.problems) == (0, 0, [])
        assert await books.findings() == [], history.told


def differences(
    said: dict[str, list[str]], heard: dict[str, list[str]]
) -> dict[str, tuple[list[str], list[str]]]:
    """What only the one has, and what only the other has, by table."""
    return {
        table: (
            sorted(set(said[table]) - set(heard[table])),
            sorted(set(heard[table]) - set(said[table])),
        )
        for table in said
        if said[table] != heard[table]
    }

"""Epochs, watermarks, who rebuilds a shard, and who lives."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from gateway.ledger import Ledger, LedgerUnavailable
from tests.support.postgres_gate import postgres_gate
from tests.support.waiting import eventually


async def test_a_shard_has_the_last_epoch_that_was_given(ledger: Ledger) -> None:
    assert await ledger.epoch_of(3) == 0
    await ledger.next_epoch(3)
    await ledger.next_epoch(3)
    assert (await ledger.epoch_of(3), await ledger.epoch_of(4)) == (2, 0)


async def test_a_watermark_only_rises_and_counts_anew_in_a_new_epoch(ledger: Ledger) -> None:
    for shard in (1, 2):
        await ledger.next_epoch(shard)
    await ledger.save_watermarks({1: (1, 10), 2: (1, 5), 3: (1, 7)})
    await ledger.save_watermarks({1: (1, 9), 2: (2, 99)})
    await ledger.save_watermarks({})
    assert await ledger.watermarks() == {1: (1, 10), 2: (1, 5)}

    await ledger.next_epoch(1)
    await ledger.save_watermarks({1: (1, 11)})
    assert await ledger.watermarks() == {1: (2, 0), 2: (1, 5)}


async def test_eight_workers_save_watermarks_without_a_deadlock(
    ledger: Ledger, postgres_url: str
) -> None:
    shards = list(range(30))
    await asyncio.gather(*(ledger.next_epoch(shard) for shard in shards))

    async def save(worker: int) -> None:
        async with Ledger(postgres_url) as own:
            for seq in range(1, 20):
                await own.save_watermarks(dict.fromkeys(shards, (1, seq * 8 + worker)))

    await asyncio.gather(*map(save, range(8)))

    assert await ledger.watermarks() == dict.fromkeys(shards, (1, 19 * 8 + 7))
    connection = await asyncpg.connect(postgres_url)
    assert (
        await connection.fetchval(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        )
        == 0
    )
    await connection.close()


async def test_a_shard_is_rebuilt_by_one_process_and_others_meanwhile(
    ledger: Ledger, postgres_url: str
) -> None:
    inside: list[int] = []

    async def rebuild(shard: int) -> None:
        async with Ledger(postgres_url, connections_max=1) as own, own.shard_locked(shard):
            assert shard not in inside
            inside.append(shard)
            await own.next_epoch(shard)
            inside.remove(shard)

    async with asyncio.timeout(30):
        async with ledger.shard_locked(2):
            await asyncio.gather(*(rebuild(1) for _ in range(8)))
        await rebuild(2)
    assert (await ledger.epoch_of(1), await ledger.epoch_of(2)) == (8, 1)


async def test_who_waits_too_long_for_a_shard_is_told(ledger: Ledger) -> None:
    async with ledger.shard_locked(1):
        with pytest.raises(LedgerUnavailable):
            async with ledger.shard_locked(1, wait_s=0.05):
                pass
    async with ledger.shard_locked(1):
        pass


async def test_who_dies_in_a_rebuild_leaves_the_shard_to_the_next(
    ledger: Ledger, postgres_url: str
) -> None:
    async with postgres_gate(postgres_url) as (gate, url), Ledger(url) as dying:

        async def die() -> None:
            async with dying.shard_locked(1):
                gate.shut()
                raise ConnectionAbortedError

        with pytest.raises(ConnectionAbortedError):
            await die()
        async with asyncio.timeout(20), ledger.shard_locked(1):
            pass


async def test_workers_attend_while_their_connection_lasts(
    ledger: Ledger, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.database.RELISTEN_PAUSE_S", 0.01)
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with asyncio.timeout(30), postgres_gate(postgres_url) as (gate, url):
        async with Ledger(url) as worker, Ledger(postgres_url) as other:
            await worker.attend(7, "workers", heard.put_nowait)
            await other.attend(2**31 - 1, "workers", lambda _: None)
            assert await heard.get() == ""
            await eventually(lambda: attending(ledger, {7, 2**31 - 1}))
            await ledger.notify("workers", "shard:3")
            await ledger.notify("others", "unheard")
            assert await heard.get() == "shard:3"

            gate.shut()
            await eventually(lambda: attending(ledger, {2**31 - 1}))
            await ledger.notify("workers", "missed")
            gate.open()
            assert await heard.get() == ""
            await eventually(lambda: attending(ledger, {7, 2**31 - 1}))
            await ledger.notify("workers", "shard:4")
            assert await heard.get() == "shard:4"
        await eventually(lambda: attending(ledger, set()))


async def attending(ledger: Ledger, expected: set[int]) -> bool:
    return await ledger.attending() == expected


async def test_locks_of_other_databases_and_classes_are_no_workers(
    ledger: Ledger, postgres_server_url: str
) -> None:
    async with Ledger(postgres_server_url) as elsewhere, ledger.shard_locked(5):
        listening: asyncio.Queue[str] = asyncio.Queue()
        await elsewhere.attend(9, "workers", listening.put_nowait)
        assert await listening.get() == ""
        assert await ledger.attending() == set()

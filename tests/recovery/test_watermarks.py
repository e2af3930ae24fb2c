"""A Redis that went back while nobody ran is noticed by the first who asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.counters import Counters
from gateway.recovery.loss import is_healed, loss_of
from gateway.recovery.watermarks import Watermarks
from policies.decision import Admitted, ShardLost
from tests.recovery.conftest import SHARDS
from tests.recovery.test_rebuilding import photograph, put_back_older, set_back_seq
from tests.support.calls import caller, opened

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from tests.support.hands import Hand


async def test_an_older_redis_is_noticed_by_a_worker_that_starts(
    ledger: Ledger, counters: Counters, workers: list[Hand], clean_redis_url: str
) -> None:
    one, _ = workers
    who = await caller(ledger, counters, 10_000)
    older = await photograph(counters)
    await one.admit(who, 400)
    await Watermarks(one.counters, ledger).save()

    await put_back_older(counters, who, older)
    async with Counters(clean_redis_url, shards=SHARDS, deadline_ms=20_000) as fresh:
        key = b"%d" % who.key_id
        await Watermarks(fresh, ledger).start()
        decision = await fresh.admit(
            fresh.keys(who.account_id), "ab" * 16, key, 1, 1_000, 1, b"1,1,1,7,9,"
        )

    assert isinstance(decision, ShardLost)
    assert decision.kind == "REGRESSED"


async def test_only_what_has_grown_is_saved_and_only_upwards(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    who = await caller(ledger, counters, 10_000)
    shard = who.keys.shard
    marks = Watermarks(one.counters, ledger)
    await one.admit(who, 400)
    await marks.save()
    first = (await ledger.watermarks())[shard]
    assert first == one.counters.seen(shard)

    saved: list[object] = []
    real = ledger.save_watermarks

    async def save(seen: object) -> None:
        saved.append(seen)
        await real(seen)  # type: ignore[arg-type]

    ledger.save_watermarks = save  # type: ignore[method-assign]
    await marks.save()
    await one.admit(who, 400)
    await marks.save()
    await Watermarks(other.counters, ledger).save()  # it has seen less

    assert saved[:2] == [{}, {shard: one.counters.seen(shard)}]
    assert (await ledger.watermarks())[shard] == one.counters.seen(shard)


async def test_a_rebuilt_shard_begins_to_count_anew(
    ledger: Ledger, counters: Counters, workers: list[Hand]
) -> None:
    one, other = workers
    who = await caller(ledger, counters, 10_000)
    for _ in range(3):
        await one.admit(who, 400)
    await Watermarks(one.counters, ledger).save()
    await set_back_seq(counters, who, {})
    assert await one.shards.ready(ShardLost("REGRESSED", 1, 3), who.keys.shard)

    assert (await ledger.watermarks())[who.keys.shard] == (2, 0)
    await Watermarks(other.counters, ledger).start()
    assert isinstance(await other.ask(who, 1), Admitted)


async def test_a_shard_that_nobody_has_used_is_not_lost(ledger: Ledger, counters: Counters) -> None:
    await Watermarks(counters, ledger).start()
    await opened(ledger, counters, 1)
    assert await counters.meta(0) == (0, None)
    assert loss_of(counters.seen(0), 0, None) is None
    assert loss_of(counters.seen(1), *await counters.meta(1)) is None


def test_what_regressed_is_healed_by_a_newer_epoch_alone() -> None:
    lost = ShardLost("REGRESSED", 4, 90)
    assert not is_healed(lost, (4, 100), 4, 105)  # calls have gone on with it
    assert not is_healed(lost, (4, 100), 5, None)
    assert is_healed(lost, (4, 100), 5, 1)


def test_what_was_closed_is_healed_once_it_is_open() -> None:
    lost = ShardLost("CLOSED", 4, 0)
    assert not is_healed(lost, (4, 0), 4, None)
    assert is_healed(lost, (4, 0), 4, 1)
    assert is_healed(lost, (4, 0), 6, 1)


def test_what_was_empty_is_healed_by_whoever_opened_it() -> None:
    lost = ShardLost("STALE", 0, 0)
    assert is_healed(lost, (0, 0), 1, 1)
    assert is_healed(lost, (2, 7), 3, 1)
    assert not is_healed(lost, (2, 7), 2, 6)  # an older file was put back

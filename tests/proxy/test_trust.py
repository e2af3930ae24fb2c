"""Calls on trust while Redis is away: bounded per account, recorded, charged when it is back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CountersUnavailable
from gateway.operations.audit import audit
from gateway.operations.keys import revoke_key
from gateway.proxy import trust as trust_module
from gateway.proxy.hold import End, Receipt
from gateway.proxy.offers import Offer
from gateway.proxy.trust import Trust
from policies.catalog import Ending
from policies.meters.reading import Reading
from tests.support.faulty_redis import OwnRedis
from tests.support.gateway import CREDIT, chat_route, open_route, running_gateway
from tests.support.keys import key_of
from tests.support.live_calls import hold
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.proxy.hold import Hold

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'26\r\ndata: {"usage": {"total_tokens": 30}}\n\r\n'
)
TRUSTING = Offer(
    chat_route("http://127.0.0.1:9", id=7, trust_microcredits=3 * CREDIT), None
)  # 1.1 credits each


async def test_an_account_uses_what_is_allowed_and_pays_for_it_when_redis_is_back(
    postgres_url: str,
) -> None:
    async with (
        OwnRedis() as redis,
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis.url,
            postgres_url,
            [open_route(agent.url, trust_microcredits=2 * CREDIT)],
            microcredits=10 * CREDIT,
        ) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        redis.kill()
        for _ in range(2):
            reply = await gateway.call("/any/x", headers={"X-Session-Id": "s-1"})
            assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "1")
            assert "X-Credits-Remaining" not in reply.headers
        refused = await gateway.call("/any/x")
        assert (refused.status, json.loads(refused.body)["code"]) == (
            503,
            "temporarily_unavailable",
        )
        assert len(agent.requests) == 3
        late = await gateway.late_settlements()
        assert {(row.flags, row.session, row.held_microcredits) for row in late} == {
            ("trusted", "s-1", 0)
        }
        await redis.start()
        rows = await gateway.settled_late(3)
        assert sorted(row.flags for row in rows) == ["", "trusted", "trusted"]
        assert await gateway.balance() == (7 * CREDIT, 0)
        report = await audit(gateway.ledger, gateway.counters)
        assert report.findings == []


async def test_a_stream_on_trust_names_no_reserve_and_ends_with_its_price(
    postgres_url: str,
) -> None:
    async with (
        OwnRedis() as redis,
        nasty_upstream(answering(SSE + b"0\r\n\r\n")) as agent,
        running_gateway(
            redis.url,
            postgres_url,
            [chat_route(agent.url, trust_microcredits=2 * CREDIT)],
        ) as gateway,
    ):
        assert (await gateway.call()).status == 200
        redis.kill()
        reply = await gateway.call()
        assert reply.status == 200
        assert "X-Credits-Reserved" not in reply.headers
        assert b": credits-charged=0.13\n" in reply.body
        # It counts with what it owed, not with its ceiling of 1.1: there is room for another.
        assert (await gateway.call()).status == 200


async def test_a_key_that_was_refused_is_not_trusted(postgres_url: str) -> None:
    async with (
        OwnRedis() as redis,
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis.url, postgres_url, [open_route(agent.url, trust_microcredits=2 * CREDIT)]
        ) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        platform_id = gateway.account.platform_id
        key = await key_of(gateway.ledger, platform_id, gateway.key.key_id)
        await revoke_key(gateway.ledger, gateway.counters, platform_id, key)
        assert (await gateway.call("/any/x")).status == 401
        redis.kill()
        assert (await gateway.call("/any/x")).status == 503
        assert len(agent.requests) == 1


async def test_a_redis_that_refuses_is_not_away(postgres_url: str) -> None:
    async with (
        OwnRedis() as redis,
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis.url, postgres_url, [open_route(agent.url, trust_microcredits=2 * CREDIT)]
        ) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        await redis.client.config_set("maxmemory", "1mb")
        await redis.client.config_set("maxmemory-policy", "noeviction")
        await redis.client.config_set("maxmemory", "1")
        assert (await gateway.call("/any/x")).status == 503
        assert len(agent.requests) == 1
        await redis.client.config_set("maxmemory", "0")


class Late:
    """Where late settlements go."""

    def __init__(self) -> None:
        self.ends: list[tuple[Hold, End]] = []

    def __len__(self) -> int:
        return 0

    async def settle(self, held: Hold, end: End, *, redis: bool) -> Receipt:
        assert not redis
        self.ends.append((held, end))
        return Receipt(end.owed, None)


class Redis:
    """Answers, or does not."""

    def __init__(self) -> None:
        self.away = True
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.away:
            raise CountersUnavailable("away")


@pytest.fixture(autouse=True)
def _fast_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "PROBE_S", 0.001)
    monkeypatch.setattr(trust_module, "OVER_AFTER_S", 0.005)


@contextlib.asynccontextmanager
async def trusting() -> AsyncIterator[tuple[Trust, Late, Redis]]:
    late, redis = Late(), Redis()
    trust = Trust(late, redis.ping)  # type: ignore[arg-type]  # what it needs of it
    task = asyncio.create_task(trust.run())
    try:
        yield trust, late, redis
    finally:
        task.cancel()
        await asyncio.wait([task])


def admit(trust: Trust, call_id: str, **changes: Any) -> Hold | None:
    principal = hold(call_id, account_id=changes.pop("account_id", 5)).principal
    for name, value in changes.items():
        setattr(principal, name, value)
    return trust.admit(principal, TRUSTING, TRUSTING.terms, call_id, "")


async def test_running_calls_count_with_their_ceiling_and_ended_ones_with_what_they_owe() -> None:
    async with trusting() as (trust, late, _):
        first, second = admit(trust, "c1"), admit(trust, "c2")
        assert first is not None
        assert second is not None
        assert admit(trust, "c3") is None  # 3.3 of 3 credits
        receipt = await trust.settle(first, Ending.COMPLETED, 200, Reading((30,)))
        assert receipt == Receipt(130_000, None)
        assert late.ends[0][1].flags == "trusted"
        third = admit(trust, "c4")
        assert third is not None
        assert admit(trust, "c5") is None
        await trust.void(third)
        await trust.void(second)
        assert admit(trust, "c6") is not None


async def test_the_end_of_a_call_counts_once() -> None:
    async with trusting() as (trust, _, _):
        first = admit(trust, "c1")
        assert first is not None
        await trust.void(first)
        await trust.void(first)
        assert admit(trust, "c2") is not None
        assert admit(trust, "c3") is not None
        assert admit(trust, "c4") is None


async def test_flags_of_a_call_on_trust_keep_the_others() -> None:
    async with trusting() as (trust, late, _):
        first = admit(trust, "c1")
        assert first is not None
        await trust.settle(first, Ending.COMPLETED, 200, Reading((None,)))
        assert late.ends[0][1].flags == "units_missing,trusted"


async def test_accounts_are_bounded_apart() -> None:
    async with trusting() as (trust, _, _):
        assert [bool(admit(trust, f"c{number}")) for number in range(3)] == [True, True, False]
        assert admit(trust, "c4", account_id=6) is not None


@pytest.mark.parametrize("usable_until_ms", [0, 1_000])
async def test_a_key_that_is_revoked_or_expired_is_not_trusted(usable_until_ms: int) -> None:
    async with trusting() as (trust, _, _):
        assert admit(trust, "c1", usable_until_ms=usable_until_ms) is None


async def test_no_more_accounts_are_trusted_than_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust_module, "ACCOUNTS_MAX", 1)
    async with trusting() as (trust, _, _):
        assert admit(trust, "c1", account_id=5) is not None
        assert admit(trust, "c2", account_id=6) is None
        assert admit(trust, "c3", account_id=5) is not None


async def test_an_outage_is_over_when_redis_has_answered_for_long_and_no_call_is_left() -> None:
    async with trusting() as (trust, _, redis):
        first, second = admit(trust, "c1"), admit(trust, "c2")
        assert first is not None
        assert second is not None
        await trust.settle(first, Ending.COMPLETED, 200, Reading((1_000,)))
        redis.away = False
        before = redis.pings
        await eventually(lambda: redis.pings > before + 20)
        assert admit(trust, "c3") is None  # the second still runs
        await trust.settle(second, Ending.COMPLETED, 200, Reading((1_000,)))

        def again() -> bool:
            return trust._used == {}

        await eventually(again)
        assert admit(trust, "c4") is not None

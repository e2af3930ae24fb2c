"""Whoever dies between two steps of a call with a key, its retry never makes it charged twice.

A dead worker is one that has done the first steps by hand and does no more.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.app import WorkerSettings, run_worker
from gateway.clock import CallIds
from gateway.config import GatewayConfig
from gateway.counters import Counters, CountersUnavailable
from gateway.counters.claims import Claims
from gateway.ledger import Ledger, LedgerUnavailable
from gateway.ledger.answer_writer import AnswerWriter
from gateway.operations.audit import audit
from gateway.proxy.keyed import KeyedCall
from gateway.recovery.carry import Carrier
from policies.decision import Admitted
from policies.idempotency import Claim, Claimed, fingerprint, key_digest
from tests.support.gateway import CREDIT, PEPPER, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.proxy.exchange import Exchange
    from tests.support.gateway import Gateway, Reply
    from tests.support.nasty_upstream import Agent, Conversation

KEY = {"Idempotency-Key": "order-1"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLAIM_LEASE_MS, GRACE_MS, HOLD_LEASE_MS = 400, 50, 150
TRUSTED = {"trust_microcredits": 100 * CREDIT}


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Claims, "claim_lease_ms", CLAIM_LEASE_MS)
    monkeypatch.setattr(Claims, "answer_grace_ms", GRACE_MS)


@asynccontextmanager
async def scene(
    redis_url: str, postgres_url: str, *scripts: Any, **route: Any
) -> AsyncIterator[tuple[Gateway, Agent]]:
    async with (
        nasty_upstream(*(scripts or (answering(OK),))) as agent,
        running_gateway(redis_url, postgres_url, [open_route(agent.url, **route)]) as gateway,
    ):
        yield gateway, agent


class DeadWorker:
    """Does the steps of a call by hand, as far as it is told, and is never heard of again."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.keys = gateway.counters.keys(gateway.account.account_id)
        self.call_id = CallIds().new()
        print_ = fingerprint(b"POST", b"/any/x", b"", b"application/octet-stream", b"", b"{}")
        self.claim = Claim(key_digest(b"order-1"), self.call_id, print_)

    @property
    def key_id(self) -> bytes:
        return b"%d" % self.gateway.key.key_id

    async def claims(self) -> None:
        claimed = await self.gateway.counters.claim(self.keys, self.claim, self.key_id)
        assert isinstance(claimed, Claimed)

    async def admits(self, *, dispatched: bool) -> None:
        account = self.gateway.account
        context = f"{account.platform_id},{account.account_id},{self.gateway.key.key_id},1,1,"
        admitted = await self.gateway.counters.admit(
            self.keys, self.call_id, self.key_id, CREDIT, HOLD_LEASE_MS, CREDIT, context.encode()
        )
        assert isinstance(admitted, Admitted)
        if dispatched:
            deadline_ms = admitted.admitted_ms + HOLD_LEASE_MS
            await self.gateway.counters.dispatched(self.keys, self.call_id, deadline_ms)

    async def settles(self, owed: int = CREDIT, ending: str = "completed") -> None:
        await self.gateway.counters.settle(
            self.keys, self.call_id, owed, f"{ending},200,,".encode()
        )


async def after_conflict(gateway: Gateway) -> Reply:
    """What a client gets that asks until it is not told to wait any more."""

    async def answered() -> Reply | None:
        reply = await gateway.call("/any/x", headers=KEY)
        return reply if reply.status != 409 else None

    reply = await eventually(answered)
    assert reply is not None
    return reply


async def warm(gateway: Gateway) -> None:
    """The account is loaded; its first settlement costs a credit."""
    assert (await gateway.call("/any/warm")).status == 200


async def charged(gateway: Gateway, calls: int) -> None:
    """So many calls in Postgres beside the first, a credit each, and all adds up."""
    rows = await gateway.settlements(1 + calls)
    assert sum(row.charged_microcredits for row in rows) == (1 + calls) * CREDIT

    async def clean() -> bool:
        return (await audit(gateway.ledger, gateway.counters)).findings == []

    assert await eventually(clean)
    assert await gateway.balance() == (100 * CREDIT - (1 + calls) * CREDIT, 0)


async def test_died_before_admission_the_retry_runs(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        dead = DeadWorker(gateway)
        await dead.claims()
        assert (await gateway.call("/any/x", headers=KEY)).status == 409
        reply = await after_conflict(gateway)
        assert (reply.status, reply.body) == (200, b"ok")
        assert "Idempotency-Replayed" not in reply.headers
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_died_before_it_was_sent_on_the_retry_runs_when_the_hold_is_undone(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        dead = DeadWorker(gateway)
        await dead.claims()
        await dead.admits(dispatched=False)
        await asyncio.sleep(CLAIM_LEASE_MS / 1000)
        assert (await gateway.call("/any/x", headers=KEY)).status == 409, "it has a hold"
        assert await eventually(gateway.reap)
        reply = await after_conflict(gateway)
        assert (reply.status, reply.body) == (200, b"ok")
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_died_after_it_was_sent_on_the_retry_gets_a_receipt_and_never_runs(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        dead = DeadWorker(gateway)
        await dead.claims()
        await dead.admits(dispatched=True)
        assert await eventually(gateway.reap)
        for _ in range(2):
            reply = await after_conflict(gateway)
            assert reply.status == 410
            told = json.loads(reply.body)
            assert (told["request_id"], told["ending"]) == (dead.call_id, "unknown")
            assert told["charged"] == "1"
        assert len(agent.requests) == 1
        await charged(gateway, 1)


@pytest.mark.parametrize("carried", [False, True])
async def test_died_between_settling_and_remembering_the_retry_gets_a_receipt(
    clean_redis_url: str, postgres_url: str, carried: bool
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        await gateway.settlements(1)
        dead = DeadWorker(gateway)
        await dead.claims()
        await dead.admits(dispatched=True)
        await dead.settles()
        carrier = Carrier(gateway.counters, gateway.ledger)
        if carried:
            await carrier.carry(dead.keys.shard)
        for _ in range(2):
            reply = await after_conflict(gateway)
            assert (reply.status, json.loads(reply.body)["request_id"]) == (410, dead.call_id)
        await carrier.carry(dead.keys.shard)
        assert len(agent.requests) == 1
        await charged(gateway, 1)


@pytest.mark.parametrize("carried", [False, True])
async def test_died_after_settling_a_failure_at_nothing_the_retry_runs(
    clean_redis_url: str, postgres_url: str, carried: bool
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        await gateway.settlements(1)
        dead = DeadWorker(gateway)
        await dead.claims()
        await dead.admits(dispatched=True)
        await dead.settles(0, "upstream_error")
        carrier = Carrier(gateway.counters, gateway.ledger)
        if carried:
            await carrier.carry(dead.keys.shard)
        reply = await after_conflict(gateway)
        assert (reply.status, reply.body) == (200, b"ok")
        await carrier.carry(dead.keys.shard)
        assert len(agent.requests) == 2
        assert len(await gateway.settlements(3)) == 3
        assert (await gateway.balance())[0] == 98 * CREDIT


async def test_an_answer_that_redis_did_not_take_comes_from_postgres(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise CountersUnavailable("away")

    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        with monkeypatch.context() as patched:
            patched.setattr(Counters, "remember", away)
            first = await gateway.call("/any/x", headers=KEY)
        assert first.status == 200
        for _ in range(2):
            reply = await after_conflict(gateway)
            assert (reply.status, reply.body) == (200, b"ok")
            assert reply.request_id == first.request_id
            assert reply.headers["Idempotency-Replayed"] == "true"
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_an_answer_that_nobody_took_leaves_a_receipt(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise CountersUnavailable("away")

    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        with monkeypatch.context() as patched:
            patched.setattr(Counters, "remember", away)
            patched.setattr(AnswerWriter, "add", lambda *_: False)
            first = await gateway.call("/any/x", headers=KEY)
        reply = await after_conflict(gateway)
        assert (reply.status, json.loads(reply.body)["request_id"]) == (410, first.request_id)
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_a_call_that_ended_while_redis_was_away_is_answered_from_postgres(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise CountersUnavailable("away")

    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        with monkeypatch.context() as patched:
            patched.setattr(Counters, "settle", away)
            patched.setattr(Counters, "remember", away)
            first = await gateway.call("/any/x", headers=KEY)
            assert first.status == 200
            await eventually(gateway.late_settlements)
        assert (await gateway.call("/any/x", headers=KEY)).status == 409, "it has a hold"
        await gateway.settled_late(2)
        reply = await after_conflict(gateway)
        assert (reply.status, reply.body, reply.request_id) == (200, b"ok", first.request_id)
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_who_was_stopped_between_claim_and_admission_sends_nothing(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim is taken over meanwhile, by a retry that another worker serves."""
    admit = Counters.admit
    stopped, go_on = asyncio.Event(), asyncio.Event()

    async def slow(counters: Counters, *arguments: Any, **others: Any) -> Any:
        if not stopped.is_set():
            stopped.set()
            await go_on.wait()
        return await admit(counters, *arguments, **others)

    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        monkeypatch.setattr(Counters, "admit", slow)
        late = asyncio.create_task(gateway.call("/any/x", headers=KEY))
        await stopped.wait()
        reply = await after_conflict(gateway)
        assert reply.status == 200
        go_on.set()
        assert (await late).status == 503
        again = await gateway.call("/any/x", headers=KEY)
        assert again.request_id == reply.request_id
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_who_was_stopped_until_his_hold_was_undone_sends_nothing(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = KeyedCall.watch

    async def undo(exchange: Exchange) -> None:
        await gateway.counters.void(exchange.hold.principal.keys, exchange.hold.call_id)

    def stopped(keyed: KeyedCall, exchange: Exchange) -> bool:
        mark = exchange.tools.mark

        async def late_mark(call: Any) -> None:
            await undo(exchange)
            await mark(call)

        exchange.tools = exchange.tools._replace(mark=late_mark)
        return watch(keyed, exchange)

    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        with monkeypatch.context() as patched:
            patched.setattr(KeyedCall, "watch", stopped)
            assert (await gateway.call("/any/x", headers=KEY)).status == 503
        assert len(agent.requests) == 1
        reply = await after_conflict(gateway)
        assert (reply.status, reply.body) == (200, b"ok"), "the key was given back"
        await charged(gateway, 1)


async def test_without_redis_a_call_with_a_key_is_not_trusted(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise CountersUnavailable("away")

    async with scene(clean_redis_url, postgres_url, **TRUSTED) as (gateway, agent):
        await warm(gateway)
        for verb in ("claim", "admit"):
            with monkeypatch.context() as patched:
                patched.setattr(Counters, verb, away)
                reply = await gateway.call("/any/x", headers=KEY)
                assert reply.status == 503
                assert reply.headers["Retry-After"] == "1"
        assert len(agent.requests) == 1
        assert (await after_conflict(gateway)).body == b"ok"
        await charged(gateway, 1)


async def test_one_worker_answers_what_another_has_run_also_when_that_is_gone(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        while True:
            await talk.request()
            if len(talk.agent.requests) > 1:
                await go_on.wait()
            await talk.send(OK)

    settings = WorkerSettings(
        GatewayConfig(redis_url=clean_redis_url, postgres_url=postgres_url), PEPPER
    )
    async with scene(clean_redis_url, postgres_url, script) as (gateway, agent):
        await warm(gateway)
        own = gateway.port
        async with run_worker(settings) as other:
            loop = asyncio.get_running_loop()
            listening = await loop.create_server(other.server, "127.0.0.1", 0)
            gateway.port = listening.sockets[0].getsockname()[1]
            running = asyncio.create_task(gateway.call("/any/x", headers=KEY))
            await eventually(lambda: len(agent.requests) == 2)
            gateway.port = own
            assert (await gateway.call("/any/x", headers=KEY)).status == 409
            go_on.set()
            first = await running
            listening.close()
        reply = await gateway.call("/any/x", headers=KEY)
        assert (reply.status, reply.request_id) == (200, first.request_id)
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_an_answer_survives_the_loss_of_all_that_redis_had(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        first = await gateway.call("/any/x", headers=KEY)
        await gateway.counters.command("FLUSHALL")
        for _ in range(2):
            reply = await gateway.call("/any/x", headers=KEY)
            assert (reply.status, reply.body, reply.request_id) == (200, b"ok", first.request_id)
        other = await gateway.call("/any/x", headers=KEY, data=b"other")
        assert other.status == 422
        await gateway.counters.command("FLUSHALL")
        other = await gateway.call("/any/x", headers=KEY, data=b"other")
        assert other.status == 422, "also from Postgres"
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_a_running_call_keeps_its_key_through_the_loss_of_all_that_redis_had(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        while True:
            request = await talk.request()
            if b"/any/x" in request.head:
                await go_on.wait()
            await talk.send(OK)

    async with scene(clean_redis_url, postgres_url, script) as (gateway, agent):
        await warm(gateway)
        running = asyncio.create_task(gateway.call("/any/x", headers=KEY))
        await eventually(lambda: len(agent.requests) == 2)
        await gateway.counters.command("FLUSHALL")
        assert (await gateway.call("/any/x", headers=KEY)).status == 409
        go_on.set()
        first = await running
        reply = await gateway.call("/any/x", headers=KEY)
        assert (reply.status, reply.request_id) == (200, first.request_id)
        assert len(agent.requests) == 2
        await charged(gateway, 1)


async def test_after_a_loss_nothing_new_runs_that_postgres_can_not_be_asked_about(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object) -> None:
        raise LedgerUnavailable("away")

    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        await gateway.counters.command("FLUSHALL")
        with monkeypatch.context() as patched:
            patched.setattr(Ledger, "answer_of", away)
            assert (await gateway.call("/any/x", headers=KEY)).status == 503
        assert len(agent.requests) == 1
        assert (await gateway.call("/any/x", headers=KEY)).body == b"ok"
        await charged(gateway, 1)


async def test_answers_that_redis_keeps_no_more_come_from_postgres(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await warm(gateway)
        first = await gateway.call("/any/x", headers=KEY)
        tag = f"tk:{{s{gateway.counters.keys(gateway.account.account_id).shard:03d}}}"
        answer = f"{tag}:ia:{gateway.account.account_id}:{key_digest(b'order-1')}"

        async def kept() -> Any:
            return await gateway.ledger.answer_of(
                gateway.account.account_id, key_digest(b"order-1")
            )

        await eventually(kept)
        assert await gateway.counters.command("DEL", answer) == 1
        reply = await gateway.call("/any/x", headers=KEY)
        assert (reply.status, reply.body, reply.request_id) == (200, b"ok", first.request_id)
        await gateway.settlements(2)
        await gateway.ledger.delete_answers(-1_000, 10)
        await gateway.counters.command("DEL", answer)
        reply = await gateway.call("/any/x", headers=KEY)
        assert (reply.status, json.loads(reply.body)["request_id"]) == (410, first.request_id)
        assert len(agent.requests) == 2
        await charged(gateway, 1)

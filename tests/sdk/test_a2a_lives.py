"""What becomes of tasks whatever happens around them: other workers, losses, leases, limits.

The A2A SDK's client and server, unmodified, with the gateway in between. A task costs one credit.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from a2a.client.errors import A2AClientError
from a2a.types import CancelTaskRequest, GetTaskRequest

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.jobs.parked import ParkedHoldCleaning
from gateway.ledger import Ledger
from gateway.operations.accounts import create_account
from gateway.operations.audit import audit
from gateway.operations.keys import KeyMaker, create_key
from policies.catalog import ChargePer, MeterSpec, Platform, Price, Source, TaskRule
from tests.support.a2a import (
    BEGAN,
    CANCELED,
    COMPLETED,
    a2a_client,
    a2a_route,
    a2a_scene,
    charged,
    kept,
    nothing_kept,
    say,
    task_of,
)
from tests.support.gateway import CREDIT, PEPPER, Gateway
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from a2a.client import Client
    from a2a.types import Task

    from gateway.ledger.parked import ParkedHold
    from tests.support.a2a import A2AAgent

SHORT_LEASE = TaskRule(lease_ms=1_500)
# 0.1 for the task and 0.001 a token, of which 1000 are reserved: holds 1.1, and 30 cost 0.13.
METERED = Price(
    per_request_microcredits=CREDIT // 10,
    meters=(
        MeterSpec(
            "token",
            (
                Source("response.json", "/result/artifacts/0/metadata/tokens"),
                Source("response.json", "/result/task/artifacts/0/metadata/tokens"),
            ),
            picocredits_per_unit=10**9,
            reserve_units=1_000,
        ),
    ),
)


@asynccontextmanager
async def another_worker(gateway: Gateway, redis_url: str, postgres_url: str) -> AsyncIterator[str]:
    """One more worker beside the gateway's; its URL."""
    config = GatewayConfig(redis_url=redis_url, postgres_url=postgres_url)
    async with run_worker(WorkerSettings(config, PEPPER)) as worker:
        listening = await asyncio.get_running_loop().create_server(worker.server, "127.0.0.1", 0)
        yield f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        listening.close()


@asynccontextmanager
async def client_of(gateway: Gateway, agent: A2AAgent, url: str) -> AsyncIterator[Client]:
    """A client that polls, of one worker."""
    agent.publish(url, "jsonrpc")
    async with a2a_client(gateway, url=url, polling=True) as client:
        yield client


async def over(client: Client, task: Task) -> bool:
    found = await client.get_task(GetTaskRequest(id=task.id))
    return found.status.state == COMPLETED


async def row_kept(gateway: Gateway) -> list[ParkedHold]:
    """The rows of parked holds, once there is one."""
    rows: list[ParkedHold] | None = await eventually(lambda: kept(gateway))
    assert rows
    return rows


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_task_begun_with_one_worker_is_finished_with_another(
    clean_redis_url: str, postgres_url: str, streaming: bool
) -> None:
    async with (
        a2a_scene(clean_redis_url, postgres_url, "jsonrpc") as (gateway, agent),
        another_worker(gateway, clean_redis_url, postgres_url) as other,
    ):
        async with a2a_client(gateway, streaming=streaming) as client:
            task = task_of(await say(client, "ask"))
        agent.publish(other, "jsonrpc")
        async with a2a_client(gateway, url=other, streaming=streaming) as client:
            await say(client, "work", to=task)
        (paid,) = await charged(gateway, 4)
        assert (paid.charged_microcredits, paid.ending) == (CREDIT, "completed")


async def test_a_task_outlives_the_worker_that_began_it(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc") as (gateway, agent):
        async with (
            another_worker(gateway, clean_redis_url, postgres_url) as first,
            client_of(gateway, agent, first) as client,
        ):
            task = task_of(await say(client, "wait"))
        assert [row.hold for row in await row_kept(gateway)] == [
            str(hold) for hold, _ in await gateway.holds()
        ]
        agent.worker.gate.set()
        async with (
            another_worker(gateway, clean_redis_url, postgres_url) as second,
            client_of(gateway, agent, second) as client,
        ):
            await eventually(lambda: over(client, task))
        (paid,) = await charged(gateway, len(agent.paths))
        assert paid.charged_microcredits == CREDIT


async def test_a_parked_hold_survives_the_loss_of_redis(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc") as (gateway, agent):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
            await row_kept(gateway)
            before = await gateway.holds()
            await gateway.counters.command("FLUSHALL")

            assert not await over(client, task)  # notices the loss, and waits for the rebuild
            assert await gateway.holds() == before
            assert await gateway.balance() == (BEGAN - CREDIT, CREDIT)
            agent.worker.gate.set()
            await eventually(lambda: over(client, task))
        (paid,) = await charged(gateway, len(agent.paths))
        assert (paid.charged_microcredits, paid.ending) == (CREDIT, "completed")


async def test_a_hold_that_postgres_does_not_have_yet_survives_the_loss_of_redis(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker tells of it like of a running call, and parks it anew."""
    postgres_is_back = asyncio.Event()
    real = Ledger.add_parked_hold

    async def slow(ledger: Ledger, row: ParkedHold) -> None:
        await postgres_is_back.wait()
        await real(ledger, row)

    monkeypatch.setattr(Ledger, "add_parked_hold", slow)
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc") as (gateway, agent):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
            await gateway.counters.command("FLUSHALL")
            assert not await over(client, task)
            assert await gateway.balance() == (BEGAN - CREDIT, CREDIT)
            postgres_is_back.set()

            async def parked_again() -> bool:
                return [hold.parked for hold, _ in await gateway.holds()] == [True]

            await eventually(parked_again)
            agent.worker.gate.set()
            await eventually(lambda: over(client, task))
        (paid,) = await charged(gateway, len(agent.paths))
        assert paid.charged_microcredits == CREDIT


async def test_an_abandoned_task_ends_with_its_lease(
    clean_redis_url: str, postgres_url: str
) -> None:
    """At what was due of it by then, and is corrected if its end is seen later."""
    async with a2a_scene(
        clean_redis_url, postgres_url, "jsonrpc", lease_s=2, price=METERED, task=SHORT_LEASE
    ) as (gateway, agent):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
            await row_kept(gateway)
            assert await gateway.balance() == (BEGAN - 1_100_000, 1_100_000)

            async def ended() -> bool:
                return await gateway.reap() == 1

            await eventually(ended)
            rows = await gateway.settlements(2)
            paid = next(row for row in rows if row.held_microcredits)
            assert (paid.charged_microcredits, paid.ending) == (100_000, "unknown")
            assert await gateway.balance() == (BEGAN - 100_000, 0)
            assert await ParkedHoldCleaning(gateway.ledger).clean() == 1

            agent.worker.gate.set()
            await eventually(lambda: over(client, task))
            await gateway.settled_late()
            assert await gateway.balance() == (BEGAN - 130_000, 0)
        assert (await audit(gateway.ledger, gateway.counters)).findings == []


async def test_a_task_that_is_heard_of_outlives_its_lease(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc", lease_s=2, task=SHORT_LEASE) as (
        gateway,
        agent,
    ):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
            for _ in range(9):
                await asyncio.sleep(SHORT_LEASE.lease_ms / 1000 / 3)
                assert not await over(client, task)
                assert await gateway.reap() == 0
            agent.worker.gate.set()
            await eventually(lambda: over(client, task))
        (paid,) = await charged(gateway, len(agent.paths))
        assert paid.ending == "completed"


async def test_many_who_see_the_end_at_once_charge_it_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        a2a_scene(clean_redis_url, postgres_url, "jsonrpc") as (gateway, agent),
        another_worker(gateway, clean_redis_url, postgres_url) as other,
        client_of(gateway, agent, other) as second,
        client_of(gateway, agent, gateway.url) as first,
    ):
        for _ in range(5):
            agent.worker.gate.clear()
            task = task_of(await say(first, "wait"))
            agent.worker.gate.set()
            await asyncio.gather(*(over(client, task) for client in (first, second) * 8))
            assert await over(first, task)
        await gateway.settled_late()
        paid = await charged(gateway, len(agent.paths))
        assert [row.charged_microcredits for row in paid] == [CREDIT] * 5


async def test_a_task_leaves_room_for_the_calls_that_end_it(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Of an account that may have one call at a time."""
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc") as (gateway, _):
        async with a2a_client(gateway) as client:
            await gateway.amend(conc=1)
            tasks = [task_of(await say(client, "ask")) for _ in range(3)]
            for task in tasks:
                await say(client, "work", to=task)
        paid = await charged(gateway, 7)
        assert [row.charged_microcredits for row in paid] == [CREDIT] * 3
        assert (await audit(gateway.ledger, gateway.counters)).findings == []


async def test_a_task_is_settled_at_the_price_at_which_it_began_and_by_the_key_that_began_it(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc", price=METERED) as (
        gateway,
        agent,
    ):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
        dearer = Price(per_request_microcredits=7 * CREDIT)
        await gateway.ledger.apply_catalog(Platform("demo"), [], [a2a_route(agent, price=dearer)])
        maker = KeyMaker("dev", PEPPER)
        other = await create_key(gateway.ledger, gateway.counters, gateway.account, maker)
        agent.worker.gate.set()
        async with a2a_client(gateway, key=other.text, polling=True) as client:
            await eventually(lambda: over(client, task))
        (paid,) = await charged(gateway, len(agent.paths))
        assert (paid.key_id, paid.ending) == (gateway.key.key_id, "completed")
        # Tokens are not metered any more, so the reserve counts.
        assert paid.charged_microcredits in {130_000, 1_100_000}


async def test_the_tokens_of_the_answer_that_shows_the_end_are_charged(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc", price=METERED) as (
        gateway,
        agent,
    ):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
            agent.worker.gate.set()
            await eventually(lambda: over(client, task))
        async with a2a_client(gateway) as client:
            await say(client, "work")
        paid = await charged(gateway, len(agent.paths))
        assert [row.charged_microcredits for row in paid] == [130_000, 130_000]
        assert [row.units for row in paid] == ["token=30", "token=30"]
        every = await gateway.settlements(len(agent.paths))
        assert sum(row.units != "" for row in every) == 2


async def test_nobody_settles_or_continues_the_task_of_another_account(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc") as (gateway, _):
        async with a2a_client(gateway) as client:
            task = task_of(await say(client, "ask"))
        stranger = await create_account(
            gateway.ledger, gateway.account.platform_id, "stranger", microcredits=CREDIT
        )
        key = await create_key(
            gateway.ledger, gateway.counters, stranger.account, KeyMaker("dev", PEPPER)
        )
        async with a2a_client(gateway, key=key.text) as client:
            await client.cancel_task(CancelTaskRequest(id=task.id))
        assert await gateway.balance() == (BEGAN - CREDIT, CREDIT)
        async with a2a_client(gateway) as client:
            found = await client.get_task(GetTaskRequest(id=task.id))
            assert found.status.state == CANCELED
        (paid,) = await charged(gateway, 4)
        assert paid.charged_microcredits == CREDIT


# Who can't pay.


async def test_a_client_without_credits_reads_why_in_its_error(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc", microcredits=CREDIT // 2) as (
        gateway,
        agent,
    ):
        for streaming in (False, True):
            async with a2a_client(gateway, streaming=streaming) as client:
                with pytest.raises(A2AClientError) as refused:
                    await say(client, "work")
            assert "credits" in str(refused.value)
            assert "0.5" in str(refused.value)
        assert agent.worker.began == 0


async def test_a_client_over_http_sees_the_status_of_a_refusal(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "rest", microcredits=CREDIT // 2) as (
        gateway,
        agent,
    ):
        async with a2a_client(gateway) as client:
            with pytest.raises(A2AClientError, match="402"):
                await say(client, "work")
        assert agent.worker.began == 0


async def test_who_has_spent_all_can_still_end_what_is_paid_for(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc", microcredits=CREDIT) as (
        gateway,
        _,
    ):
        async with a2a_client(gateway) as client:
            task = task_of(await say(client, "ask"))
            with pytest.raises(A2AClientError, match="credits"):
                await say(client, "work")
            answer = task_of(await say(client, "work", to=task))
            assert answer.status.state == COMPLETED
        assert await gateway.balance() == (0, 0)


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_callers_bound_has_to_cover_what_a_task_may_cost(
    clean_redis_url: str, postgres_url: str, streaming: bool
) -> None:
    """It can't be stopped on its way, and a small bound must not make it cheap."""
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc", price=METERED) as (
        gateway,
        agent,
    ):
        async with a2a_client(gateway, streaming=streaming, **{"X-Max-Credits": "0.12"}) as client:
            with pytest.raises(A2AClientError, match=r"costs 1\.1 credits, more than the 0\.12"):
                await say(client, "ask")
        assert agent.worker.began == 0
        async with a2a_client(gateway, streaming=streaming, **{"X-Max-Credits": "1.1"}) as client:
            task = task_of(await say(client, "ask"))
            await say(client, "work", to=task)
        (paid,) = await charged(gateway, 4)
        assert paid.charged_microcredits in {130_000, 1_100_000}


# By the message.


async def test_each_message_costs_where_messages_are_sold(
    clean_redis_url: str, postgres_url: str
) -> None:
    rule = TaskRule(ChargePer.MESSAGE)
    async with a2a_scene(clean_redis_url, postgres_url, "jsonrpc", task=rule) as (gateway, _):
        async with a2a_client(gateway) as client:
            task = task_of(await say(client, "ask"))
            await say(client, "ask", to=task)
            assert not await over(client, task)
            await say(client, "work", to=task)
            assert await over(client, task)
        async with a2a_client(gateway, streaming=True) as client:
            await say(client, "fail")
            await say(client, "hello")
        paid = await charged(gateway, 9)
        assert [row.charged_microcredits for row in paid] == [CREDIT, CREDIT, CREDIT, 0, CREDIT]
        assert [row.ending for row in paid][3] == "upstream_error"
        assert await nothing_kept(gateway)

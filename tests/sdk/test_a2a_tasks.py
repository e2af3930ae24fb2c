"""Tasks of an agent made with the A2A SDK, called with the SDK's client: one price for each task.

Both unmodified, through the gateway, in every way in which the SDK speaks: JSON-RPC and HTTP+JSON
of protocol 1.0, and both of 0.3. A task costs one credit.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    SubscribeToTaskRequest,
)

from tests.support.a2a import (
    BEGAN,
    CANCELED,
    COMPLETED,
    FAILED,
    INPUT_REQUIRED,
    WAYS,
    WORKING,
    a2a_client,
    a2a_scene,
    charged,
    message,
    say,
    task_of,
)
from tests.support.gateway import CREDIT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from a2a.client import Client
    from a2a.types import Task, TaskState

    from tests.support.a2a import A2AAgent
    from tests.support.gateway import Gateway


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def state_of(client: Client, task: Task) -> TaskState:
    return (await client.get_task(GetTaskRequest(id=task.id))).status.state


# One task, its calls.


async def test_a_task_that_is_over_at_once_costs_its_price(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, _):
        async with a2a_client(gateway) as client:
            assert task_of(await say(client, "work")).status.state == COMPLETED
        (paid,) = await charged(gateway, 2)
        assert (paid.charged_microcredits, paid.ending) == (CREDIT, "completed")


async def test_a_stream_to_the_end_of_its_task_costs_its_price(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, agent):
        async with a2a_client(gateway, streaming=True) as client:
            events = await say(client, "work")
        assert events[-1].status_update.status.state == COMPLETED
        assert agent.encodings == {"identity"}
        (paid,) = await charged(gateway, 2)
        assert paid.charged_microcredits == CREDIT
        assert not await gateway.counters.command("KEYS", "tk:*:t:*")


async def test_a_task_that_is_polled_costs_its_price_once(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, agent):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
            assert await gateway.balance() == (BEGAN - CREDIT, CREDIT)
            for _ in range(3):
                assert await state_of(client, task) == WORKING
            assert await gateway.balance() == (BEGAN - CREDIT, CREDIT)
            agent.worker.gate.set()
            await _until_over(client, task)
            assert await gateway.balance() == (BEGAN - CREDIT, 0)
            assert await state_of(client, task) == COMPLETED
        (paid,) = await charged(gateway, len(agent.paths))
        assert (paid.charged_microcredits, paid.ending) == (CREDIT, "completed")


@pytest.mark.parametrize("streaming", [False, True])
async def test_a_task_that_asks_its_client_back_costs_its_price_once(
    clean_redis_url: str, postgres_url: str, way: str, streaming: bool
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, agent):
        async with a2a_client(gateway, streaming=streaming) as client:
            task = task_of(await say(client, "ask"))
            for question in ("ask", "login"):
                assert await gateway.balance() == (BEGAN - CREDIT, CREDIT)
                await say(client, question, to=task)
            events = await say(client, "work", to=task)
            last = events[-1].status_update if streaming else events[-1].task
            assert last.status.state == COMPLETED
        assert agent.worker.began == 4
        (paid,) = await charged(gateway, 5)
        assert (paid.charged_microcredits, paid.ending) == (CREDIT, "completed")


async def test_a_canceled_task_costs_what_its_client_leaving_costs(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, _):
        async with a2a_client(gateway, polling=True) as client:
            task = task_of(await say(client, "wait"))
            canceled = await client.cancel_task(CancelTaskRequest(id=task.id))
            assert canceled.status.state == CANCELED
        (paid,) = await charged(gateway, 3)
        assert (paid.charged_microcredits, paid.ending) == (CREDIT, "client_disconnect")


@pytest.mark.parametrize("told", ["fail", "reject"])
async def test_a_task_that_the_agent_fails_costs_nothing(
    clean_redis_url: str, postgres_url: str, way: str, told: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, _):
        async with a2a_client(gateway) as client:
            task = task_of(await say(client, told))
            assert (await state_of(client, task)) == task.status.state
        (paid,) = await charged(gateway, 3)
        assert (paid.charged_microcredits, paid.ending) == (0, "upstream_error")


async def test_a_task_that_fails_after_its_first_call_costs_nothing(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, _):
        async with a2a_client(gateway) as client:
            task = task_of(await say(client, "ask"))
            answer = task_of(await say(client, "fail", to=task))
            assert answer.status.state == FAILED
        (paid,) = await charged(gateway, 3)
        assert (paid.charged_microcredits, paid.ending) == (0, "upstream_error")


async def test_an_error_begins_no_task_and_costs_nothing(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, agent):
        async with a2a_client(gateway) as client:
            task = task_of(await say(client, "work"))
            unknown = type(task)(id="unknown", context_id=task.context_id)
            with pytest.raises(Exception, match="not found"):
                await say(client, "work", to=unknown)
        assert agent.worker.began == 1
        paid, refused = await charged(gateway, 3)
        assert paid.charged_microcredits == CREDIT
        assert (refused.charged_microcredits, refused.ending) == (0, "client_error")


async def test_an_answer_without_a_task_is_charged_at_once(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, _):
        for streaming in (False, True):
            async with a2a_client(gateway, streaming=streaming) as client:
                (event,) = await say(client, "hello")
                assert event.HasField("message")
        paid = await charged(gateway, 4)
        assert [row.charged_microcredits for row in paid] == [CREDIT, CREDIT]


async def test_a_stream_that_is_taken_up_again_sees_its_task_to_the_end(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, agent):
        async with a2a_client(gateway, streaming=True, polling=True) as client:
            task = await _begun_and_left(client)
            await eventually(lambda: _parked(gateway))
            following = asyncio.create_task(_follow(client, task))
            await eventually(lambda: _calls(agent, 3))
            agent.worker.gate.set()
            assert COMPLETED in await following
        (paid,) = await charged(gateway, 3)
        assert (paid.charged_microcredits, paid.ending) == (CREDIT, "completed")


@pytest.mark.parametrize("way", ["jsonrpc", "rest"])
async def test_a_list_of_tasks_settles_those_that_are_over(
    clean_redis_url: str, postgres_url: str, way: str
) -> None:
    async with a2a_scene(clean_redis_url, postgres_url, way) as (gateway, agent):
        async with a2a_client(gateway, polling=True) as client:
            for _ in range(2):
                await say(client, "wait")
            await say(client, "ask")
            assert await gateway.balance() == (BEGAN - 3 * CREDIT, 3 * CREDIT)
            agent.worker.gate.set()

            async def two_over() -> bool:
                listed = await client.list_tasks(ListTasksRequest())
                return [task.status.state for task in listed.tasks].count(COMPLETED) == 2

            await eventually(two_over)
            assert await gateway.balance() == (BEGAN - 3 * CREDIT, CREDIT)
            (asking,) = (await client.list_tasks(ListTasksRequest(status=INPUT_REQUIRED))).tasks
            await client.cancel_task(CancelTaskRequest(id=asking.id))
        paid = await charged(gateway, len(agent.paths))
        assert [row.charged_microcredits for row in paid] == [CREDIT] * 3


async def _until_over(client: Client, task: Task) -> None:
    async def over() -> bool:
        return await state_of(client, task) == COMPLETED

    await eventually(over)


async def _begun_and_left(client: Client) -> Task:
    """Begin a task in a stream, and leave that with its first event."""
    request = message("wait")
    stream = client.send_message(request)
    async for event in stream:
        task = event.task
        break
    await stream.aclose()  # type: ignore[attr-defined]
    return task


async def _follow(client: Client, task: Task) -> list[TaskState]:
    stream = client.subscribe(SubscribeToTaskRequest(id=task.id))
    return [event.status_update.status.state async for event in stream]


async def _parked(gateway: Gateway) -> bool:
    return [hold.parked for hold, _ in await gateway.holds()] == [True]


async def _calls(agent: A2AAgent, count: int) -> bool:
    return len(agent.paths) == count

"""An agent made with the A2A SDK, unmodified, and the SDK's clients of it through a gateway.

What a message says decides what the agent does; see `Worker.execute`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import uvicorn
from a2a.client import ClientConfig, ClientFactory
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import (
    create_agent_card_routes,
    create_jsonrpc_routes,
    create_rest_routes,
)
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette

from policies.catalog import ErrorStyle, Protocol, Route, TaskRule
from tests.support.gateway import CREDIT, CREDIT_PRICE, running_gateway
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from a2a.client import Client
    from a2a.server.agent_execution import RequestContext
    from a2a.server.events import EventQueue

    from gateway.ledger import SettlementRow
    from gateway.ledger.parked import ParkedHold
    from tests.support.gateway import Gateway

PREFIX = "/a2a"
BEGAN = 100 * CREDIT
# binding and protocol version of each way to speak to the agent
WAYS = {
    "jsonrpc": ("JSONRPC", "1.0"),
    "jsonrpc-0.3": ("JSONRPC", "0.3"),
    "rest": ("HTTP+JSON", "1.0"),
    "rest-0.3": ("HTTP+JSON", "0.3"),
}
COMPLETED = TaskState.TASK_STATE_COMPLETED
CANCELED = TaskState.TASK_STATE_CANCELED
FAILED = TaskState.TASK_STATE_FAILED
INPUT_REQUIRED = TaskState.TASK_STATE_INPUT_REQUIRED
WORKING = TaskState.TASK_STATE_WORKING


class Worker(AgentExecutor):
    """Does what it is told; `gate` is what "wait" waits for, `began` counts executions."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.began = 0

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        self.began += 1
        told = context.get_user_input()
        if told == "hello":  # an answer without a task
            await event_queue.enqueue_event(new_text_message("hello", role=Role.ROLE_AGENT))
            return
        updater = TaskUpdater(event_queue, str(context.task_id), str(context.context_id))
        if context.current_task is None:
            await event_queue.enqueue_event(_submitted(context))
        await updater.start_work()
        if told == "ask":
            await updater.requires_input(updater.new_agent_message([Part(text="which one?")]))
        elif told == "login":
            await updater.requires_auth()
        elif told == "fail":
            await updater.failed()
        elif told == "reject":
            await updater.reject()
        elif told == "crash":
            raise RuntimeError("the agent has a bug")
        else:
            if told == "wait":
                await self.gate.wait()
            await updater.add_artifact([Part(text="done")], metadata={"tokens": 30})
            await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        await TaskUpdater(event_queue, str(context.task_id), str(context.context_id)).cancel()


class A2AAgent:
    """The running agent. It tells its clients to speak to `public_url`, once that is known."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.worker = Worker()
        self.card = AgentCard(
            name="worker",
            description="Does what it is told",
            version="1.0.0",
            capabilities=AgentCapabilities(streaming=True, push_notifications=False),
            default_input_modes=["text/plain"],
            default_output_modes=["text/plain"],
            skills=[AgentSkill(id="work", name="work", description="works", tags=["work"])],
        )
        self.paths: list[str] = []  # of every request, with its method
        self.encodings: set[str | None] = set()  # that it was asked for

    def publish(self, url: str, *ways: str) -> None:
        """Offer these ways to speak, under the gateway's URL."""
        del self.card.supported_interfaces[:]
        for way in ways:
            binding, version = WAYS[way]
            path = f"{url}{PREFIX}/rpc" if binding == "JSONRPC" else f"{url}{PREFIX}"
            self.card.supported_interfaces.append(
                AgentInterface(url=path, protocol_binding=binding, protocol_version=version)
            )

    def app(self) -> Any:
        handler = DefaultRequestHandlerV2(self.worker, InMemoryTaskStore(), self.card)
        card_url = f"{PREFIX}/.well-known/agent-card.json"
        routes = [
            *create_agent_card_routes(self.card, card_url=card_url),
            *create_jsonrpc_routes(handler, rpc_url=f"{PREFIX}/rpc", enable_v0_3_compat=True),
            *create_rest_routes(handler, path_prefix=PREFIX, enable_v0_3_compat=True),
        ]
        inner = Starlette(routes=routes)

        async def listening(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                self.paths.append(f"{scope['method']} {scope['path']}")
                headers = dict(scope["headers"])
                asked = headers.get(b"accept-encoding")
                self.encodings.add(asked.decode() if asked is not None else None)
            await inner(scope, receive, send)

        return listening


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # they are the tests'


@asynccontextmanager
async def a2a_agent() -> AsyncIterator[A2AAgent]:
    """The agent on a free port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        agent = A2AAgent(listening.getsockname()[1])
        config = uvicorn.Config(agent.app(), log_level="warning", timeout_graceful_shutdown=1)
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:  # noqa: ASYNC110 - it has no event for that
            await asyncio.sleep(0.01)
        try:
            yield agent
        finally:
            agent.worker.gate.set()
            server.should_exit = True
            await serving


@asynccontextmanager
async def a2a_scene(
    redis_url: str,
    postgres_url: str,
    *ways: str,
    microcredits: int = BEGAN,
    lease_s: int = 30,
    **changes: Any,
) -> AsyncIterator[tuple[Gateway, A2AAgent]]:
    """A gateway before the agent, which offers these ways; the account has `microcredits`.

    `lease_s` is that of calls; `changes` are to the route.
    """
    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(a2a_agent())
        routes = [a2a_route(agent, **changes)]
        gateway = await stack.enter_async_context(
            running_gateway(
                redis_url, postgres_url, routes, microcredits=microcredits, lease_s=lease_s
            )
        )
        agent.publish(gateway.url, *ways)
        yield gateway, agent


async def charged(gateway: Gateway, calls: int) -> list[SettlementRow]:
    """What of so many calls held something, oldest first.

    Nothing more is held by anything, what is left is exact in Redis and Postgres, and no hold is
    kept for any task.
    """
    rows = await gateway.settlements(calls)
    assert len(rows) == calls
    left = BEGAN - sum(row.charged_microcredits for row in rows)
    assert await gateway.balance() == (left, 0)
    lots = await gateway.ledger.grants(gateway.account.account_id)
    assert sum(lot.amount_microcredits - lot.settled_microcredits for lot in lots) == left
    await eventually(lambda: nothing_kept(gateway))
    return [row for row in reversed(rows) if row.held_microcredits]


async def nothing_kept(gateway: Gateway) -> bool:
    """Whether Postgres keeps no hold for a task of the account's shard."""
    return not await kept(gateway)


async def kept(gateway: Gateway) -> list[ParkedHold]:
    """The holds that Postgres keeps for tasks of the account's shard."""
    return await gateway.ledger.parked_holds(
        gateway.counters.keys(gateway.account.account_id).shard
    )


def a2a_route(agent: A2AAgent, **changes: Any) -> Route:
    """All of the agent's paths, one credit a task."""
    fields: dict[str, Any] = {
        "methods": (),
        "pattern": f"{PREFIX}/**",
        "price": CREDIT_PRICE,
        "errors": ErrorStyle.JSONRPC,
        "task": TaskRule(),
        **changes,
    }
    return Route(name="worker", upstream=agent.url, protocol=Protocol.A2A, **fields)


@asynccontextmanager
async def a2a_client(
    gateway: Gateway,
    *,
    key: str = "",
    url: str = "",
    streaming: bool = False,
    polling: bool = False,
    **headers: str,
) -> AsyncIterator[Client]:
    """The SDK's client, made from the card that the agent shows through the gateway.

    `url` is another worker's; `headers` are sent with each request.
    """
    headers = {"Authorization": f"Bearer {key or gateway.key.text}", **headers}
    async with httpx.AsyncClient(headers=headers, timeout=30) as http:
        config = ClientConfig(
            streaming=streaming,
            polling=polling,
            httpx_client=http,
            supported_protocol_bindings=["JSONRPC", "HTTP+JSON"],
        )
        yield await ClientFactory(config).create_from_url(f"{url or gateway.url}{PREFIX}")


def message(text: str, to: Task | None = None) -> SendMessageRequest:
    """A message, perhaps to a task there is."""
    told = Message(role=Role.ROLE_USER, message_id=uuid4().hex, parts=[Part(text=text)])
    if to is not None:
        told.task_id, told.context_id = to.id, to.context_id
    return SendMessageRequest(message=told)


async def say(client: Client, text: str, *, to: Task | None = None) -> list[StreamResponse]:
    """Send a message and hear all of the answer."""
    return [event async for event in client.send_message(message(text, to))]


def task_of(events: list[StreamResponse]) -> Task:
    """The task that an answer began with."""
    assert events[0].HasField("task"), events
    return events[0].task


def _submitted(context: RequestContext) -> Task:
    status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
    return Task(id=context.task_id, context_id=context.context_id, status=status)

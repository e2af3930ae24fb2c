"""An agent of the Agent2Agent protocol: a courier, made with the protocol's own SDK.

python agent.py --port 9105
"""

from __future__ import annotations

import argparse
import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import uvicorn
from a2a.helpers import new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandlerV2
from a2a.server.routes import create_agent_card_routes, create_jsonrpc_routes, create_rest_routes
from a2a.server.tasks import InMemoryTaskStore, TaskUpdater
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    AgentInterface,
    AgentSkill,
    Part,
    Role,
    Task,
    TaskState,
    TaskStatus,
)
from starlette.applications import Starlette

if TYPE_CHECKING:
    from a2a.server.agent_execution import RequestContext
    from a2a.server.events import EventQueue

PREFIX = "/courier"
KM = {"lisbon": 1_500, "oslo": 2_200}
public_host: ContextVar[str] = ContextVar("public_host")


class Courier(AgentExecutor):
    """Asks where to, if it was not told, and delivers there. Pianos are too heavy."""

    async def execute(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Answer one message."""
        said = context.get_user_input().lower()
        if "hello" in said:
            await event_queue.enqueue_event(
                new_text_message("At your service.", role=Role.ROLE_AGENT)
            )
            return
        updater = TaskUpdater(event_queue, str(context.task_id), str(context.context_id))
        if context.current_task is None:
            status = TaskStatus(state=TaskState.TASK_STATE_SUBMITTED)
            task = Task(id=context.task_id, context_id=context.context_id, status=status)
            await event_queue.enqueue_event(task)
        if "piano" in said:
            await updater.reject(updater.new_agent_message([Part(text="Too heavy.")]))
            return
        city = next((city for city in KM if city in said), None)
        if city is None:
            await updater.requires_input(updater.new_agent_message([Part(text="Where to?")]))
            return
        for step in ("picked up", "on its way"):
            await updater.update_status(
                TaskState.TASK_STATE_WORKING, updater.new_agent_message([Part(text=step)])
            )
            await asyncio.sleep(0.05)
        await updater.add_artifact([Part(text=f"delivered in {city}")], metadata={"km": KM[city]})
        await updater.complete()

    async def cancel(self, context: RequestContext, event_queue: EventQueue) -> None:
        """Give a task up."""
        await TaskUpdater(event_queue, str(context.task_id), str(context.context_id)).cancel()


def card_at(host: str) -> AgentCard:
    """The card of the agent, to be spoken to at this host."""
    url = f"http://{host}{PREFIX}"
    return AgentCard(
        name="courier",
        description="Delivers parcels",
        version="1.0.0",
        supported_interfaces=[
            AgentInterface(url=f"{url}/rpc", protocol_binding="JSONRPC", protocol_version="1.0"),
            AgentInterface(url=url, protocol_binding="HTTP+JSON", protocol_version="1.0"),
        ],
        capabilities=AgentCapabilities(streaming=True, push_notifications=False),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[AgentSkill(id="deliver", name="deliver", description="delivers", tags=["parcel"])],
    )


async def public_card(_: AgentCard) -> AgentCard:
    """The card for this client: it is to speak to the gateway, which says its name."""
    return card_at(public_host.get())


def build_app() -> Any:
    """The agent as an ASGI application."""
    card = card_at("127.0.0.1:8080")
    handler = DefaultRequestHandlerV2(Courier(), InMemoryTaskStore(), card)
    card_url = f"{PREFIX}/.well-known/agent-card.json"
    app = Starlette(
        routes=[
            *create_agent_card_routes(card, card_modifier=public_card, card_url=card_url),
            *create_jsonrpc_routes(handler, rpc_url=f"{PREFIX}/rpc", enable_v0_3_compat=True),
            *create_rest_routes(handler, path_prefix=PREFIX, enable_v0_3_compat=True),
        ]
    )

    async def forwarded(scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        host = headers.get(b"x-forwarded-host") or headers.get(b"host", b"")
        public_host.set(host.decode())
        await app(scope, receive, send)

    return forwarded


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=9105)
    uvicorn.run(build_app(), host="127.0.0.1", port=parser.parse_args().port, log_level="warning")


if __name__ == "__main__":
    main()

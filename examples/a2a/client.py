"""What a customer runs: the client of the A2A SDK, with the gateway's address and a key.

export TOLLKEEPER_URL=http://127.0.0.1:8080 TOLLKEEPER_API_KEY=tk_dev_...
python client.py            # a task that asks back, one that is canceled, one that is rejected
python client.py --spend    # tasks until the credits are used up
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    StreamResponse,
    Task,
    TaskState,
)

if TYPE_CHECKING:
    from a2a.client import Client


async def tell_cost(answer: httpx.Response) -> None:
    """Print what the gateway says of a call, where that is more than nothing."""
    for what in ("reserved", "charged"):
        amount = answer.headers.get(f"X-Credits-{what}", "0")
        if amount != "0":
            print(f"  {what} {amount} credits, {answer.headers['X-Credits-Remaining']} are left")


async def say(client: Client, text: str, task: Task | None = None) -> list[StreamResponse]:
    """Send a message, perhaps to a task there is, and print what becomes of it."""
    message = Message(role=Role.ROLE_USER, message_id=uuid4().hex, parts=[Part(text=text)])
    if task is not None:
        message.task_id, message.context_id = task.id, task.context_id
    print(f"> {text}")
    events = []
    async for event in client.send_message(SendMessageRequest(message=message)):
        events.append(event)
        status = event.task.status if event.HasField("task") else event.status_update.status
        words = [part.text for part in (*event.message.parts, *status.message.parts)]
        words += [part.text for part in event.artifact_update.artifact.parts]
        for word in words:
            print(word)
    return events


async def deliver(http: httpx.AsyncClient, url: str) -> None:
    """Three tasks: one over several calls, one that is canceled, one that the agent rejects."""
    streaming = await ClientFactory(ClientConfig(httpx_client=http)).create_from_url(url)
    waiting = await ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create_from_url(
        url
    )

    task = (await say(waiting, "Deliver a parcel"))[0].task
    await say(streaming, "To Lisbon, please", task)
    found = await streaming.get_task(GetTaskRequest(id=task.id))
    print(TaskState.Name(found.status.state))

    task = (await say(waiting, "Deliver a letter"))[0].task
    canceled = await waiting.cancel_task(CancelTaskRequest(id=task.id))
    print(TaskState.Name(canceled.status.state))

    await say(waiting, "Deliver a piano")


async def spend(http: httpx.AsyncClient, url: str) -> None:
    """Begin tasks until one can't be paid."""
    client = await ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create_from_url(
        url
    )
    try:
        while True:
            await say(client, "Deliver a parcel to Oslo")
    except A2AClientError as error:
        print(error)


async def main() -> None:
    """Do what the command line says."""
    url = f"{os.environ['TOLLKEEPER_URL']}/courier"
    headers = {"Authorization": f"Bearer {os.environ['TOLLKEEPER_API_KEY']}"}
    hooks = {"response": [tell_cost]}
    async with httpx.AsyncClient(headers=headers, event_hooks=hooks, timeout=60) as http:
        await (spend if "--spend" in sys.argv else deliver)(http, url)


if __name__ == "__main__":
    asyncio.run(main())

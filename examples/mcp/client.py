"""What a customer runs: a client of the MCP package with the gateway's address and a key.

export TOLLKEEPER_URL=http://127.0.0.1:8080 TOLLKEEPER_API_KEY=tk_dev_...
python client.py            # lists the tools and uses each
python client.py --spend    # designs hats until the credits are used up
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

URL = os.environ["TOLLKEEPER_URL"] + "/mcp"
HEADERS = {"Authorization": f"Bearer {os.environ['TOLLKEEPER_API_KEY']}"}


async def use(client: Client, tool: str, **arguments: str) -> bool:
    """Call a tool and print what it says; whether it did not fail."""

    async def progress(done: float, total: float | None, message: str | None) -> None:
        print(f"  {done:.0f} of {total:.0f}: {message}")

    result = await client.call_tool(tool, arguments, progress_callback=progress)
    text = ", ".join(part.text for part in result.content if part.type == "text")
    print(f"{tool}: {'failed: ' if result.is_error else ''}{text}")
    return not result.is_error


async def tell_cost(response: httpx2.Response) -> None:
    """What a call cost is in the headers, unless its answer was a stream."""
    charged = response.headers.get("X-Credits-Charged", "0")
    if charged != "0":
        print(f"  charged {charged} credits, {response.headers['X-Credits-Remaining']} are left")


async def main(arguments: list[str]) -> None:
    """Use it all, or spend it all."""
    hooks: dict[str, Any] = {"response": [tell_cost]}
    async with (
        httpx2.AsyncClient(headers=HEADERS, timeout=60, event_hooks=hooks) as http,
        Client(streamable_http_client(URL, http_client=http)) as client,
    ):
        if "--spend" in arguments:
            while await use(client, "design_hat", idea="a cloud"):
                pass
            return
        tools = (await client.list_tools()).tools
        print("tools:", ", ".join(tool.name for tool in tools))
        await use(client, "find_hats", colour="red")
        await use(client, "design_hat", idea="a chimney")
        await use(client, "order_hat", hat="sombrero")
        await use(client, "order_hat", hat="fez")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))

"""A server of the Model Context Protocol: a hatter with three tools, made with its own SDK.

python agent.py --port 9104
"""

from __future__ import annotations

import argparse
import asyncio

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError

HATS = {"bowler": "black", "fez": "red", "beret": "red", "boater": "yellow"}
STEPS = ("measure", "cut", "sew")

server = MCPServer("hatter", instructions="Finds, designs and orders hats.")


@server.tool()
def find_hats(colour: str) -> list[str]:
    """The hats in stock of one colour."""
    return [hat for hat, its_colour in HATS.items() if its_colour == colour]


@server.tool()
async def design_hat(idea: str, ctx: Context) -> str:
    """A new hat for an idea. Tells its progress."""
    for done, step in enumerate(STEPS, 1):
        await asyncio.sleep(0.05)
        await ctx.report_progress(done, len(STEPS), step)
    return f"a hat like {idea}"


@server.tool()
def order_hat(hat: str) -> str:
    """Orders a hat that is in stock."""
    if hat not in HATS:
        raise ToolError(f"There is no {hat} in stock.")
    return f"One {HATS[hat]} {hat} is on its way."


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9104)
    server.run("streamable-http", port=parser.parse_args().port)


if __name__ == "__main__":
    main()

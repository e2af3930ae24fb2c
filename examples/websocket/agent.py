"""An agent that one talks to over a WebSocket: it repeats what you say.

It speaks the subprotocol `parrot.v1`, and also answers clients that ask for none.

    python agent.py --port 9106
"""

from __future__ import annotations

import argparse
import asyncio
from typing import TYPE_CHECKING

from websockets.asyncio.server import serve

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.asyncio.server import ServerConnection
    from websockets.typing import Subprotocol

SUBPROTOCOL = "parrot.v1"
MESSAGE_BYTES_MAX = 64 * 1024


async def talk(connection: ServerConnection) -> None:
    """One conversation, until either side closes it; "bye" is answered by closing."""
    async for message in connection:
        if message == "bye":
            await connection.close(1000, "it was nice to meet you")
            return
        await connection.send(f"You said: {message}" if isinstance(message, str) else message)


def choose(_connection: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """The subprotocol that is spoken, if the client offers it."""
    return next((name for name in offered if name == SUBPROTOCOL), None)


async def run(port: int) -> None:
    """Serve until interrupted."""
    async with serve(
        talk, "127.0.0.1", port, select_subprotocol=choose, max_size=MESSAGE_BYTES_MAX
    ) as server:
        await server.serve_forever()


def main() -> None:
    """Read the options, and serve."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, default=9106)
    asyncio.run(run(parser.parse_args().port))


if __name__ == "__main__":
    main()

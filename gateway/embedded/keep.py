"""A server of ours that is started again when it dies, at the same address."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from gateway.embedded.spawn import Child, EmbeddedError, log_tail

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

RESTART_DELAY_S = 0.5
LISTENING_DEADLINE_S = 15.0
POLL_INTERVAL_S = 0.01

log = logging.getLogger("tollkeeper.embedded")


class Server:
    """A running server: where it listens, and which process it is now."""

    def __init__(self, name: str, url: str, child: Child) -> None:
        self.name = name
        self.url = url
        self.child = child

    @property
    def pid(self) -> int:
        """The process id, which changes when the server had to be started again."""
        return self.child.pid


@contextlib.asynccontextmanager
async def kept(server: Server, restart: Callable[[], Awaitable[Child]]) -> AsyncIterator[Server]:
    """Keeps the server running as long as the context lasts, then stops it cleanly."""
    keeper = asyncio.create_task(_keep(server, restart))
    try:
        yield server
    finally:
        keeper.cancel()
        await asyncio.wait([keeper])
        await server.child.stop()


async def _keep(server: Server, restart: Callable[[], Awaitable[Child]]) -> None:
    while True:
        status = await server.child.wait()
        log.warning("%s ended with status %d: starting it again", server.name, status)
        while not server.child.running:
            await asyncio.sleep(RESTART_DELAY_S)
            try:
                server.child = await restart()
            except EmbeddedError as error:
                log.warning("%s", error)


async def listening(name: str, host: str, port: int, log_file: Path) -> None:
    """Wait until a child accepts connections.

    Raises: EmbeddedError, with the end of its log, when it does not.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LISTENING_DEADLINE_S
    while loop.time() < deadline:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(host, port)
            writer.close()
            return
        await asyncio.sleep(POLL_INTERVAL_S)
    raise EmbeddedError(f"{name} does not start: {log_tail(log_file)} ({log_file})")

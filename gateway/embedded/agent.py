"""The sample agent beside `tollkeeper dev`: examples/agent/agent.py, run as a child."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.embedded.keep import Server, kept
from gateway.embedded.spawn import EmbeddedError, log_tail, spawn

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from policies.catalog import Route

SAMPLE_AGENT_HOST = "127.0.0.1"
SAMPLE_AGENT_PORT = 9100
SAMPLE_AGENT_DEADLINE_S = 15.0
POLL_INTERVAL_S = 0.01


class SampleAgent:
    """The running agent; call `ready` before relying on it."""

    def __init__(self, server: Server, port: int, log: Path) -> None:
        self.url = server.url
        self._server = server
        self._port = port
        self._log = log

    async def ready(self) -> None:
        """Waits until it accepts connections. Raises: EmbeddedError when it does not."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SAMPLE_AGENT_DEADLINE_S
        while loop.time() < deadline:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(SAMPLE_AGENT_HOST, self._port)
                writer.close()
                return
            await asyncio.sleep(POLL_INTERVAL_S)
        raise EmbeddedError(f"the sample agent does not start: {log_tail(self._log)} ({self._log})")


def route_to_sample_agent(routes: Sequence[Route]) -> str | None:
    """The name of a route that counts on the agent's usual address."""
    for route in routes:
        parts = urlsplit(route.upstream)
        if parts.hostname in {SAMPLE_AGENT_HOST, "localhost"} and parts.port == SAMPLE_AGENT_PORT:
            return route.name
    return None


@contextlib.asynccontextmanager
async def sample_agent(port: int, *, log: Path) -> AsyncIterator[SampleAgent]:
    """Starts the agent on a port, keeps it running, and stops it at the end."""
    start = functools.partial(
        spawn,
        "the sample agent",
        [sys.executable, "-m", "gateway.embedded.sample_agent", f"--port={port}"],
        log=log,
        user=None,
        stop_signal=signal.SIGTERM,
        own_environment=False,
    )
    server = Server("the sample agent", f"http://{SAMPLE_AGENT_HOST}:{port}", await start())
    async with kept(server, start):
        yield SampleAgent(server, port, log)

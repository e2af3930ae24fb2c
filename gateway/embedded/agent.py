"""The sample agent beside `tollkeeper dev`: examples/agent/agent.py, run as a child."""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.embedded.keep import Server, kept, listening
from gateway.embedded.spawn import spawn
from gateway.ports import held_port, share

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from socket import socket

    from policies.catalog import Route

SAMPLE_AGENT_HOST = "127.0.0.1"
SAMPLE_AGENT_PORT = 9100


class SampleAgent:
    """The running agent; call `ready` before relying on it."""

    def __init__(self, server: Server, port: int, log: Path) -> None:
        self.url = server.url
        self._server = server
        self._port = port
        self._log = log

    async def ready(self) -> None:
        """Waits until it accepts connections. Raises: EmbeddedError when it does not."""
        await listening("the sample agent", SAMPLE_AGENT_HOST, self._port, self._log)


def route_to_sample_agent(routes: Sequence[Route]) -> str | None:
    """The name of a route that counts on the agent's usual address."""
    for route in routes:
        parts = urlsplit(route.upstream)
        if parts.hostname in {SAMPLE_AGENT_HOST, "localhost"} and parts.port == SAMPLE_AGENT_PORT:
            return route.name
    return None


@contextlib.asynccontextmanager
async def sample_agent(held: socket, *, log: Path) -> AsyncIterator[SampleAgent]:
    """Starts the agent on a port that is held, keeps it running, and stops it at the end."""
    share(held)
    port = held_port(held)
    start = functools.partial(
        spawn,
        "the sample agent",
        [sys.executable, "-m", "gateway.embedded.sample_agent", f"--port={port}", "--reuse-port"],
        log=log,
        user=None,
        stop_signal=signal.SIGTERM,
        own_environment=False,
    )
    server = Server("the sample agent", f"http://{SAMPLE_AGENT_HOST}:{port}", await start())
    async with kept(server, start):
        yield SampleAgent(server, port, log)

"""Routes of `tollkeeper dev` that forward to this machine, to where nothing listens."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.ports import listen_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.catalog import Route

# Loopback answers at once; what drops packets there has an owner who knows why.
ANSWER_DEADLINE_S = 0.5
PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


async def unheard_upstreams(routes: Sequence[Route]) -> dict[str, str]:
    """The loopback addresses ("host:port") that refuse connections, with a route to each."""
    named: dict[tuple[str, int], str] = {}
    for route in routes:
        if (address := _loopback_address(route.upstream)) is not None:
            named.setdefault(address, route.name)
    refusals = await asyncio.gather(*(_refuses(*address) for address in named))
    return {
        listen_text(*address): name
        for (address, name), refused in zip(named.items(), refusals, strict=True)
        if refused
    }


def _loopback_address(upstream: str) -> tuple[str, int] | None:
    parts = urlsplit(upstream)
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 0)
    if host == "localhost":
        return host, port
    try:
        return (host, port) if ip_address(host).is_loopback else None
    except ValueError:  # a name
        return None


async def _refuses(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(ANSWER_DEADLINE_S):
            _, writer = await asyncio.open_connection(host, port)
    except TimeoutError:
        return False
    except OSError:
        return True
    writer.close()
    return False

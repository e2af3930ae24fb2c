"""Calls to a nasty upstream, as short as tests want them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.upstream import Origin
from policies.catalog import Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.upstream import Answer, UpstreamClient
    from gateway.upstream.protocol import Connection
    from tests.support.nasty_upstream import Agent

OK = b"HTTP/1.1 200 OK\r\n"
HI = OK + b"Content-Length: 2\r\n\r\nhi"


def origin_of(agent: Agent, *, connections_max: int = 8, **timeouts_ms: int) -> Origin:
    """The agent's origin; timeouts by phase, as in `idle=50`, in milliseconds."""
    timeouts = Timeouts(**{f"{phase}_ms": value for phase, value in timeouts_ms.items()})
    return Origin.parse(agent.url, connections_max=connections_max, timeouts=timeouts)[0]


async def get(
    client: UpstreamClient, agent: Agent, origin: Origin | None = None, *, method: bytes = b"GET"
) -> Answer:
    """A call without a body."""
    head = method + b" / HTTP/1.1\r\nHost: a\r\n\r\n"
    return await client.send(origin or origin_of(agent), head, method=method, safe=True)


async def post(
    client: UpstreamClient,
    agent: Agent,
    body: bytes | AsyncIterator[bytes],
    origin: Origin | None = None,
    *,
    length: int | None = None,
    expect_continue: Callable[[], object] | None = None,
) -> Answer:
    """A call with a body; chunked when it comes in pieces without a `length`."""
    if isinstance(body, bytes):
        length = len(body)
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    return await client.send(
        origin or origin_of(agent),
        b"POST / HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n",
        body,
        method=b"POST",
        safe=False,
        chunked=length is None,
        expect_continue=expect_continue,
    )


async def whole(answer: Answer) -> bytes:
    """The body, read to its end."""
    body = b""
    while chunk := await answer.read():
        body += chunk
    return body


def connections_of(client: UpstreamClient) -> list[Connection]:
    """Every open connection; pools that have none come and go."""
    return [each for pool in client._pools.values() for each in pool.connections]


def idle_of(client: UpstreamClient) -> list[Connection]:
    """Connections that wait for a call, the next to be used last."""
    return [each for pool in client._pools.values() for each in pool.idle]


def waiting_in(client: UpstreamClient) -> int:
    """Calls that wait for a connection or open one."""
    return sum(len(pool._waiters) + pool._dialing for pool in client._pools.values())

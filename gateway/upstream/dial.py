"""Opening connections: resolve, try the addresses in a staggered race (RFC 8305), then TLS.

Of an origin with `networks` each address is judged before it is tried, and again as what the socket
is connected to. What a name meant earlier, or means to somebody else, does not matter: nothing is
resolved again between the look and the connection.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from asyncio import get_running_loop as running_loop
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from gateway.upstream.errors import UpstreamForbidden, UpstreamTimeout, UpstreamUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.upstream.origin import Origin

# RFC 8305, section 5: the recommended delay before the next address is tried as well.
ATTEMPT_DELAY_S = 0.25
ADDRESSES_MAX = 8

# (family, type, proto, canonical name, address) as getaddrinfo gives them.
Address = tuple[int, int, int, str, Any]


async def dial(
    origin: Origin, protocol_factory: Callable[[], asyncio.Protocol], timeout_s: float
) -> asyncio.Protocol:
    """A protocol with a connected transport (TLS done and verified).

    Raises: UpstreamUnreachable (UpstreamForbidden when an address is refused), or UpstreamTimeout
    in phase `connect` when all of it together took longer than `timeout_s`.
    """
    try:
        async with asyncio.timeout(timeout_s):
            return await _connect(origin, protocol_factory, timeout_s)
    except TimeoutError as error:
        raise UpstreamTimeout("connect", sent=False) from error
    except (OSError, ssl.SSLError, ssl.CertificateError, UnicodeError) as error:
        raise UpstreamUnreachable(f"{origin.host}:{origin.port}: {error}") from error


async def resolve(origin: Origin) -> list[Address]:
    """The addresses of an origin, in the order to try them; at least one.

    One that is refused refuses them all: a name that is both here and there is up to something.

    Raises: UpstreamForbidden; OSError or UnicodeError when there is none.
    """
    addresses = await running_loop().getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    for *_, where in addresses:
        _judge(origin, where)
    return _interleaved(addresses)


def _judge(origin: Origin, where: Sequence[Any]) -> None:
    if origin.networks is not None and origin.networks.refusal(where[0]) is not None:
        raise UpstreamForbidden(origin.host, origin.port)


async def _connect(
    origin: Origin, protocol_factory: Callable[[], asyncio.Protocol], timeout_s: float
) -> asyncio.Protocol:
    loop = running_loop()
    sock = await _race((await resolve(origin))[:ADDRESSES_MAX])
    try:
        if origin.networks is not None:
            _judge(origin, sock.getpeername())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if origin.tls is None:
            _, protocol = await loop.create_connection(protocol_factory, sock=sock)
        else:
            _, protocol = await loop.create_connection(
                protocol_factory,
                sock=sock,
                ssl=origin.tls,
                server_hostname=origin.host,
                ssl_handshake_timeout=timeout_s,
            )
    except BaseException:
        sock.close()
        raise
    return protocol


def _interleaved(addresses: Sequence[Address]) -> list[Address]:
    """Families taking turns, the resolver's first choice first (RFC 8305, section 4)."""
    first = [each for each in addresses if each[0] == addresses[0][0]]
    other = [each for each in addresses if each[0] != addresses[0][0]]
    return [each for pair in zip_longest(first, other) for each in pair if each is not None]


async def _race(addresses: list[Address]) -> socket.socket:
    """The first socket to connect; the others are closed."""
    if len(addresses) == 1:
        return await _open(addresses[0])
    tasks: list[asyncio.Task[socket.socket]] = []
    waiting = list(addresses)
    errors: list[BaseException] = []
    winner: socket.socket | None = None
    try:
        while winner is None:
            running = {task for task in tasks if not task.done()}
            if waiting:
                task = asyncio.ensure_future(_open(waiting.pop(0)))
                tasks.append(task)
                running.add(task)
            elif not running:
                raise errors[0]
            done, _ = await asyncio.wait(
                running,
                timeout=ATTEMPT_DELAY_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            winner = _first_connected(done, errors)
    finally:
        for task in tasks:
            task.add_done_callback(lambda each: _close_loser(each, winner))
            task.cancel()
    return winner


def _first_connected(
    done: set[asyncio.Task[socket.socket]], errors: list[BaseException]
) -> socket.socket | None:
    winner = None
    for task in done:
        error = task.exception()
        if error is not None:
            errors.append(error)
        elif winner is None:
            winner = task.result()
    return winner


def _close_loser(task: asyncio.Task[socket.socket], winner: socket.socket | None) -> None:
    if not task.cancelled() and task.exception() is None and task.result() is not winner:
        task.result().close()


async def _open(address: Address) -> socket.socket:
    family, kind, proto, _, where = address
    sock = socket.socket(family, kind, proto)
    try:
        sock.setblocking(False)  # noqa: FBT003  # the standard library's signature
        await running_loop().sock_connect(sock, where)
    except BaseException:
        sock.close()
        raise
    return sock

"""Where a node listens: its addresses are its own from before it starts until it has stopped."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

from gateway.config import parse_listen
from gateway.mistakes import StartError
from gateway.ports import held_port, hold, listen_text, port_problem, share

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator, Sequence

    from gateway.config import Config

# Waiting for what a killed run is just letting go of.
PORT_PATIENCE_S = 2.0
POLL_INTERVAL_S = 0.05


class Address(NamedTuple):
    """Something to listen on; port 0 is any free one.

    `purpose` and `advice` are for a person, if it is taken: before and behind what is the matter.
    """

    host: str
    port: int
    purpose: str = ""
    advice: str = ""
    only_ipv6: bool = False


class Held(NamedTuple):
    """Bound sockets: the control plane listens on its own, workers bind the proxy's beside it.

    `config` has the ports that were given for 0; `others` are in the order in which they were
    asked for.
    """

    config: Config
    control: socket.socket
    others: tuple[socket.socket, ...]


@contextlib.asynccontextmanager
async def held_addresses(config: Config, others: Sequence[Address] = ()) -> AsyncIterator[Held]:
    """Holds everything that a node listens on as long as the context lasts.

    Raises: StartError naming every address that stays taken.
    """
    gateway = config.gateway
    own = [
        Address(*parse_listen(gateway.proxy_listen)),
        Address(*parse_listen(gateway.control_listen), only_ipv6=True),
    ]
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(held) for held in await _hold([*own, *others])]
        proxy, control, *rest = sockets
        share(proxy)
        proxy_listen, control_listen = (
            listen_text(address.host, held_port(held))
            for address, held in zip(own, (proxy, control), strict=True)
        )
        gateway = dataclasses.replace(
            gateway, proxy_listen=proxy_listen, control_listen=control_listen
        )
        yield Held(dataclasses.replace(config, gateway=gateway), control, tuple(rest))


def url_of(listen: str) -> str:
    """Where a client on this machine finds an address that is listened on."""
    host, port = parse_listen(listen)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - replaced, not bound
    return f"http://{listen_text(host, port)}"


async def _hold(addresses: Sequence[Address]) -> list[socket.socket]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PORT_PATIENCE_S
    while True:
        sockets, problems = [], []
        for host, port, purpose, advice, only_ipv6 in addresses:
            try:
                sockets.append(hold(host, port, only_ipv6=only_ipv6))
            except OSError as error:
                where = listen_text(host, port)
                problem = port_problem(error, port)
                problems.append(f"{purpose}can't listen on {where}: {problem}{advice}")
        if not problems:
            return sockets
        for held in sockets:
            held.close()
        if loop.time() > deadline:
            raise StartError(*problems)
        await asyncio.sleep(POLL_INTERVAL_S)

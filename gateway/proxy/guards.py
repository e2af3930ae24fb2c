"""What a key may be used for: routes by name, and networks that it may be used from.

A worker keeps the guard with the principal, so it may be older than what people have decided since.
It is checked before a call is admitted, and the admit script is told its version: if the key's is
another by now, the script says so, the key is read again, and the call is checked once more. Before
a call is refused the script is asked, too. So a change binds the very next call of every worker,
and keys without a guard pay nothing.

Where a call comes from is its socket's peer. A proxy that the operator trusts says it in
X-Forwarded-For, to whose right end each proxy adds whom it heard: the last address there that is no
trusted proxy's is the client's, and what stands before it anybody could have written.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from ipaddress import IPv4Network, IPv6Network

    from gateway.ledger import KeyRow
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.offers import Offer
    from gateway.proxy.server import Call
    from policies.decision import GuardChanged

    Address = IPv4Address | IPv6Address
    Network = IPv4Network | IPv6Network

_FORWARDED_FOR = b"x-forwarded-for"
_NOT_THIS_ROUTE = Refusal(403, "forbidden", "This API key may not be used for this route.")
_NOT_FROM_HERE = Refusal(403, "forbidden", "This API key may not be used from this address.")


class Guard(NamedTuple):
    """One version of what a key may be used for; None: for every route, from everywhere."""

    routes: frozenset[str] | None
    networks: tuple[Network, ...] | None


def guard_of(row: KeyRow, claimed: frozenset[str] | None = None) -> Guard | None:
    """The guard of a key, narrowed to the routes that a token claims; None: there is none."""
    routes = frozenset(row.routes) if row.routes else None
    if claimed is not None:
        routes = claimed if routes is None else routes & claimed
    networks = tuple(map(ip_network, row.addresses)) or None
    return None if routes is None and networks is None else Guard(routes, networks)


class KeyDirectory(Protocol):
    """Where keys are looked up."""

    async def find_key(self, digest: bytes) -> KeyRow | None:
        """The key of this digest, or None."""


class Guards:
    """Checks calls of guarded keys."""

    def __init__(self, directory: KeyDirectory, trusted_proxies: Iterable[str] = ()) -> None:
        """`trusted_proxies` are networks whose X-Forwarded-For is believed."""
        self._directory = directory
        self._trusted = tuple(map(ip_network, trusted_proxies))

    def refusal(self, principal: Principal, offer: Offer, call: Call | None) -> Refusal | None:
        """Why a call is not what its key is for."""
        guard = principal.guard
        if guard is None:
            return None
        routes, networks = guard
        if routes is not None and offer.route.name not in routes:
            return _NOT_THIS_ROUTE
        if networks is None:
            return None
        address = self.client_address(call) if call is not None else None
        if address is not None and _is_in(address, networks):
            return None
        return _NOT_FROM_HERE

    async def renew(self, principal: Principal, changed: GuardChanged) -> None:
        """Read a key's guard again.

        It may be newer than the version that Redis asks for, while people's change is being told:
        then it binds already. If it is older, nothing changes. Raises: the directory's errors.
        """
        row = await self._directory.find_key(principal.digest)
        if row is not None and row.guard_version >= changed.version:
            principal.guard = guard_of(row, principal.claimed_routes)
            principal.guard_version = changed.version

    def client_address(self, call: Call) -> Address | None:
        """Where a call comes from; None: that can't be told."""
        transport = call.connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        address = _address(peer[0]) if isinstance(peer, tuple) else None
        if address is None or not _is_in(address, self._trusted):
            return address
        values = [
            value for name, value in call.message.raw_headers if name.lower() == _FORWARDED_FOR
        ]
        if not values:
            return address
        for text in reversed(b",".join(values).decode("latin-1").split(",")):
            address = _address(text.strip())
            if address is None or not _is_in(address, self._trusted):
                break
        return address


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> Address | None:
    """An address as sockets and proxies write it, some of them with the port; None: it is none."""
    host = text
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        host = text.partition(":")[0]
    try:
        address = ip_address(host)
    except ValueError:
        return None
    # IPv4 clients of a socket that listens to both are the same as they are of one for IPv4.
    return getattr(address, "ipv4_mapped", None) or address

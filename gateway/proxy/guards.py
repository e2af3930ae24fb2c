"""What a key may be used for: routes by name, and networks that it may be used from.

A worker keeps the guard with the principal, so it may be older than what people have decided since.
It is checked before a call is admitted, and the admit script is told its version: if the key's is
another by now, the script says so, the key is read again, and the call is checked once more. Before
a call is refused the script is asked, too. So a change binds the very next call of every worker,
and keys without a guard pay nothing.
"""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.errors import Refusal
from gateway.peers import Peers, is_in

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.ledger import KeyRow
    from gateway.peers import Address, Network
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.offers import Offer
    from gateway.proxy.server import Call
    from policies.decision import GuardChanged

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
        self._peers = Peers(trusted_proxies)

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
        if address is not None and is_in(address, networks):
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

    async def is_closed(self, principal: Principal) -> bool:
        """Whether there is no such key any more. Raises: the directory's errors."""
        return await self._directory.find_key(principal.digest) is None

    def client_address(self, call: Call) -> Address | None:
        """Where a call comes from; None: that can't be told."""
        transport = call.connection.transport
        peer = transport.get_extra_info("peername") if transport is not None else None
        values = [
            value.decode("latin-1")
            for name, value in call.message.raw_headers
            if name.lower() == _FORWARDED_FOR
        ]
        return self._peers.client(peer, values)

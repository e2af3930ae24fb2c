"""Where a request comes from.

That is its socket's peer. A proxy that the operator trusts says it in X-Forwarded-For, to whose
right end each proxy adds whom it heard: the last address there that is no trusted proxy's is the
client's, and what stands before it anybody could have written.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Peers:
    """Tells clients from the proxies before the gateway."""

    def __init__(self, trusted_proxies: Iterable[str] = ()) -> None:
        """`trusted_proxies` are networks whose X-Forwarded-For is believed."""
        self._trusted = tuple(map(ip_network, trusted_proxies))

    def client(self, peername: object, forwarded_for: Sequence[str]) -> Address | None:
        """Where a request comes from; None: that can't be told.

        `peername` is the socket's; `forwarded_for` are the values of all such lines, in order.
        """
        address = address_of(peername[0]) if isinstance(peername, tuple) else None
        if address is None or not is_in(address, self._trusted) or not forwarded_for:
            return address
        for text in reversed(",".join(forwarded_for).split(",")):
            address = address_of(text.strip())
            if address is None or not is_in(address, self._trusted):
                break
        return address


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    """Whether an address is of one of these networks."""
    return any(address in network for network in networks)


def address_of(text: str) -> Address | None:
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

"""Which addresses an upstream may have that an owner gave, not the operator: public ones.

Whoever may name an upstream could otherwise make the gateway call what only the gateway can reach:
its Redis, its neighbours, its cloud's metadata service, which hands out credentials. Names and
spellings decide nothing here. What is judged is an address that is about to be dialled.

Only what is plainly a public host's passes. Python's `is_global` is no help: it takes multicast,
site-local and most embeddings of IPv4 addresses for global. The blocks are those of IANA's
registries of special-purpose addresses (RFC 6890), and those of which clouds make their own use.

The operator can allow more (`[gateway] private_upstreams`). A wide network in there is about hosts:
it opens neither metadata services, nor the ways that lead back into IPv4. Those have to be named.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_NOT_PUBLIC = "not a public address"
_METADATA = "the address of a cloud's own services"
_TRANSLATED = "an address that is translated to IPv4"
_PRIVATE = "a private address"
_LINK_LOCAL = "a link-local address"
_DOCUMENTATION = "an address for documentation"

# All global unicast there is (RFC 4291, section 2.4, and IANA's registry).
_UNICAST = IPv6Network("2000::/3")

# The first block that has an address says what it is.
_BLOCKS: tuple[tuple[str, str], ...] = (
    ("168.63.129.16/32", _METADATA),  # Azure, and public by its number
    ("100.100.100.200/32", _METADATA),  # Alibaba
    ("192.0.0.192/32", _METADATA),  # Oracle
    ("169.254.0.0/16", _LINK_LOCAL),  # most others', at 169.254.169.254 and around
    ("0.0.0.0/8", "an unspecified address"),  # 0.0.0.0 reaches this machine
    ("10.0.0.0/8", _PRIVATE),
    ("100.64.0.0/10", "an address that a carrier shares out"),
    ("127.0.0.0/8", "a loopback address"),
    ("172.16.0.0/12", _PRIVATE),
    ("192.0.0.0/24", "an address of a protocol"),
    ("192.0.2.0/24", _DOCUMENTATION),
    ("192.31.196.0/24", _NOT_PUBLIC),  # AS112
    ("192.52.193.0/24", _NOT_PUBLIC),  # automatic multicast tunnels
    ("192.88.99.0/24", _NOT_PUBLIC),  # relays of 6to4
    ("192.168.0.0/16", _PRIVATE),
    ("192.175.48.0/24", _NOT_PUBLIC),  # AS112
    ("198.18.0.0/15", "an address for benchmarks"),
    ("198.51.100.0/24", _DOCUMENTATION),
    ("203.0.113.0/24", _DOCUMENTATION),
    ("224.0.0.0/4", "a multicast address"),
    ("240.0.0.0/4", "a reserved address"),  # and the broadcast address
    ("fd00:ec2::/32", _METADATA),  # AWS
    ("fd20:ce::254/128", _METADATA),  # Google
    ("fd00:c1::a9fe:a9fe/128", _METADATA),  # Oracle
    ("fd00:42::42/128", _METADATA),  # Scaleway
    ("fd00:100::100:200/128", _METADATA),  # Alibaba
    ("fd00:a9fe:a9fe::1/128", _METADATA),  # Akamai
    ("::/128", "an unspecified address"),
    ("::1/128", "a loopback address"),
    ("::ffff:0:0:0/96", _TRANSLATED),  # RFC 2765
    ("64:ff9b::/96", _TRANSLATED),  # NAT64
    ("64:ff9b:1::/48", _TRANSLATED),  # NAT64 within a network, RFC 8215
    ("2001::/32", "an address of a tunnel"),  # Teredo
    ("2001::/23", "an address of a protocol"),
    ("2001:db8::/32", _DOCUMENTATION),
    ("2002::/16", "an address of a tunnel"),  # 6to4
    ("2620:4f:8000::/48", _NOT_PUBLIC),  # AS112
    ("3fff::/20", _DOCUMENTATION),
    ("fc00::/7", _PRIVATE),
    ("fe80::/10", _LINK_LOCAL),
    ("fec0::/10", "a site-local address"),
    ("ff00::/8", "a multicast address"),
)
_SPECIAL: tuple[tuple[Network, str], ...] = tuple((ip_network(text), why) for text, why in _BLOCKS)

_IPV4_MASK = 0xFFFF_FFFF
_LOCAL_NAT64 = IPv6Network("64:ff9b:1::/48")
# Where the IPv4 addresses are to which packets for an address may be carried on.
_EMBEDDINGS: tuple[tuple[IPv6Network, Callable[[int], tuple[int, ...]]], ...] = (
    (IPv6Network("::ffff:0:0:0/96"), lambda number: (number,)),
    (IPv6Network("64:ff9b::/96"), lambda number: (number,)),
    (_LOCAL_NAT64, lambda number: (number,)),  # of a /96: see `_NAMED`
    (IPv6Network("2002::/16"), lambda number: (number >> 80,)),  # RFC 3056
    (IPv6Network("2001::/32"), lambda number: (number >> 64, ~number)),  # RFC 4380: server, client
)

# Blocks that only a network within them opens, if it is at least that narrow. Where a NAT64 prefix
# of RFC 8215 holds the IPv4 address depends on its length: it is the end for a /96, the usual one.
_NAMED: tuple[tuple[Network, int], ...] = (
    *((block, 0) for block, why in _SPECIAL if why in {_METADATA, _LINK_LOCAL}),
    *((block, 0) for block, _ in _EMBEDDINGS),
    (_LOCAL_NAT64, 96),
)


@dataclass(frozen=True, slots=True)
class Networks:
    """Where a guarded upstream may be: in public networks if `public`, and in `allowed` ones."""

    allowed: tuple[Network, ...] = ()
    public: bool = True

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Public networks, and those of these CIDRs.

        Raises: ValueError when a text is none.
        """
        return cls(tuple(ip_network(text) for text in texts))

    def only_allowed(self) -> Networks:
        """The same without public networks."""
        return replace(self, public=False)

    def refusal(self, address: str) -> str | None:
        """Why this address may not be dialled, as in "it is ..."; None: it may."""
        try:
            parsed = ip_address(address)
        except ValueError:
            return "not an address"
        if isinstance(parsed, IPv6Address):
            if parsed.scope_id is not None:
                return "an address with a zone"
            if parsed.ipv4_mapped is not None:
                parsed = parsed.ipv4_mapped  # for the kernel it is the same
        return self._refusal(parsed)

    def _refusal(self, address: Address) -> str | None:
        special = _special(address)
        if not self._allows(address):
            return special if special is not None or self.public else "not an allowed address"
        for embedded in _embedded(address):
            refusal = self._refusal(embedded)
            if refusal is not None:
                return refusal
        return None

    def _allows(self, address: Address) -> bool:
        return any(address in network and _means(network, address) for network in self.allowed)


def _special(address: Address) -> str | None:
    """What an address is that is not a public host's."""
    for network, why in _SPECIAL:
        if address in network:
            return why
    return _NOT_PUBLIC if address.version == 6 and address not in _UNICAST else None


def _embedded(address: Address) -> list[IPv4Address]:
    number = int(address)
    return [
        IPv4Address(each & _IPV4_MASK)
        for network, read in _EMBEDDINGS
        if address in network
        for each in read(number)
    ]


def _means(network: Network, address: Address) -> bool:
    """Whether an allowed network that has this address is narrow enough to be about it.

    Both have it, so a network that is no wider than a block is within it.
    """
    return all(
        network.prefixlen >= max(least, block.prefixlen)
        for block, least in _NAMED
        if address in block
    )

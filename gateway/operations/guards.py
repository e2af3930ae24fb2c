"""Guards and metadata of keys as people give them: checked, and in one canonical form.

Guards say what a key may be used for: routes by name, and networks it may be used from. They bind
on the very next call (`guard_version`); a key without any costs a call nothing.
"""

from __future__ import annotations

from difflib import get_close_matches
from ipaddress import ip_network
from typing import TYPE_CHECKING

from gateway.ledger.rows import Guards
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from gateway.ledger import Ledger

GUARD_ROUTES_MAX = 100
GUARD_NETWORKS_MAX = 100
METADATA_PAIRS_MAX = 20
METADATA_NAME_CHARACTERS_MAX = 40
METADATA_VALUE_CHARACTERS_MAX = 500


async def check_guards(ledger: Ledger, platform_id: int, guards: Guards) -> Guards:
    """The guards in canonical form, each part once and in order.

    Raises: UsageError for too many, for a route that the platform does not have, or for what is no
    network.
    """
    routes: Collection[str] = sorted(set(guards.routes))
    if routes:
        check_routes(routes, [stored.route.name for stored in await ledger.routes(platform_id)])
    return Guards(tuple(routes), check_addresses(guards.addresses))


def check_routes(routes: Collection[str], known: Collection[str]) -> None:
    """Raises: UsageError when there are too many, or one that is not known."""
    if len(routes) > GUARD_ROUTES_MAX:
        raise UsageError(f"a key names at most {GUARD_ROUTES_MAX} routes")
    for name in routes:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f': did you mean "{near[0]}"?' if near else ""
            raise UsageError(f'there is no route "{name}"{hint}')


def check_addresses(addresses: Iterable[str]) -> tuple[str, ...]:
    """Networks as `10.0.0.0/8` and `2001:db8::/32`; a single address is a network of one.

    Raises: UsageError when there are too many, or one that is none. An address with host bits, as
    `10.0.0.1/8`, can be meant in two ways.
    """
    texts = list(addresses)
    if len(texts) > GUARD_NETWORKS_MAX:
        raise UsageError(f"a key names at most {GUARD_NETWORKS_MAX} networks")
    found = set()
    for text in texts:
        try:
            network = ip_network(text)
        except ValueError:
            raise UsageError(
                f'"{text}" is not a network like 10.0.0.0/8 or 2001:db8::/32'
            ) from None
        if "%" in text:
            raise UsageError(f'"{text}" names an interface, which only its own machine knows')
        if network.version == 6 and network.network_address.ipv4_mapped is not None:
            raise UsageError(f'"{text}" is of IPv4 addresses: write them as such')
        found.add(network)
    order = sorted(found, key=lambda each: (each.version, each.network_address, each.prefixlen))
    return tuple(map(str, order))


def check_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """What an owner notes about a key, by name. It means nothing to the gateway.

    Raises: UsageError for too many, an empty or long name, or a long value.
    """
    if len(metadata) > METADATA_PAIRS_MAX:
        raise UsageError(f"metadata has at most {METADATA_PAIRS_MAX} pairs")
    for name, value in metadata.items():
        if not 0 < len(name) <= METADATA_NAME_CHARACTERS_MAX or not name.isprintable():
            raise UsageError(
                f"a name in metadata is 1 to {METADATA_NAME_CHARACTERS_MAX} printable characters"
            )
        if len(value) > METADATA_VALUE_CHARACTERS_MAX or not value.isprintable():
            raise UsageError(
                f'"{name}" in metadata has at most {METADATA_VALUE_CHARACTERS_MAX} printable '
                "characters"
            )
    return dict(metadata)

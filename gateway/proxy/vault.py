"""What owners keep as secrets and their routes show to agents: opened here, and only here."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from gateway.config import resolve_secret
from gateway.config.references import secret_name
from gateway.identity.seal import Sealer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.catalog import Route

_NONE: Mapping[str, bytes] = MappingProxyType({})
_NO_SEALER = Sealer(())


class Vault:
    """The secrets of one platform, sealed."""

    __slots__ = ("_sealed", "_sealer")

    def __init__(self, sealer: Sealer = _NO_SEALER, sealed: Mapping[str, bytes] = _NONE) -> None:
        self._sealer = sealer
        self._sealed = sealed

    def headers_of(self, route: Route) -> list[tuple[bytes, bytes]]:
        """Names and values of the headers that a route gives to its agent.

        A route of the config refers to what its operator has, and one of an owner to the platform's
        secrets: neither to what the other has.

        Raises: ConfigError, LookupError, CannotOpenError, NotConfiguredError; none shows a secret.
        """
        reveal = self._revealed if route.guarded else resolve_secret
        return [
            (name.encode("latin-1"), reveal(value).encode("latin-1"))
            for name, value in route.headers
        ]

    def _revealed(self, value: str) -> str:
        name = secret_name(value)
        if name is None:
            return value
        if name not in self._sealed:
            raise LookupError(f'there is no secret "{name}" on this platform')
        return self._sealer.open(self._sealed[name]).decode("latin-1")

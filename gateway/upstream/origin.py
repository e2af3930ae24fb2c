"""Where an agent lives: scheme, host, port, and how calls to it are bounded."""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.upstream.tls import client_context
from policies.catalog import Timeouts

if TYPE_CHECKING:
    import ssl

    from gateway.upstream.networks import Networks

DEFAULT_PORTS = {"http": 80, "https": 443}
CONNECTIONS_MAX_DEFAULT = 512


@dataclass(frozen=True, slots=True)
class Origin:
    """One upstream server. Equal origins share a pool of connections; timeouts belong to calls."""

    scheme: str  # "http" or "https"
    host: str  # a name or an address, IPv6 without brackets
    port: int
    host_header: bytes = field(compare=False)
    tls: ssl.SSLContext | None = None
    connections_max: int = CONNECTIONS_MAX_DEFAULT
    networks: Networks | None = None  # where it may be; None: anywhere, the operator named it
    timeouts: Timeouts = field(default=Timeouts(), compare=False)
    _hash: int = field(init=False, repr=False, compare=False, default=0)

    def __post_init__(self) -> None:
        # Looked up on every call: hashed once.
        parts = (self.scheme, self.host, self.port, self.connections_max, self.networks)
        object.__setattr__(self, "_hash", hash(parts))

    def __hash__(self) -> int:
        return self._hash

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        tls: ssl.SSLContext | None = None,
        tls_ca_file: str | None = None,
        connections_max: int = CONNECTIONS_MAX_DEFAULT,
        networks: Networks | None = None,
        timeouts: Timeouts | None = None,
    ) -> tuple[Origin, bytes]:
        """The origin of an upstream's URL and its base path (b"" when it has none).

        For https without `tls` a verifying context is made from `tls_ca_file` or the system's CAs.
        Making one costs milliseconds, and origins share a pool only when they share the context, so
        callers with many routes to one server should pass theirs.

        Raises: ValueError when the URL is not a plain http or https URL of a server and a path.
        """
        parts = urlsplit(url)
        if parts.scheme not in DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f'"{url}" is not an http:// or https:// URL with a host')
        if parts.username is not None or parts.query or parts.fragment or "?" in url or "#" in url:
            raise ValueError(f'"{url}" must not carry a user, a query or a fragment')
        if not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise ValueError(f'"{url}" must be ASCII without spaces or backslashes')
        port = parts.port if parts.port is not None else DEFAULT_PORTS[parts.scheme]
        if not port:
            raise ValueError(f'"{url}" has no usable port')
        secure = parts.scheme == "https"
        host = parts.hostname
        shown = f"[{IPv6Address(host)}]" if ":" in host else host
        if port != DEFAULT_PORTS[parts.scheme]:
            shown = f"{shown}:{port}"
        origin = cls(
            scheme=parts.scheme,
            host=host,
            port=port,
            host_header=shown.encode("ascii"),
            tls=(tls or client_context(tls_ca_file)) if secure else None,
            connections_max=connections_max,
            networks=networks,
            timeouts=timeouts or Timeouts(),
        )
        return origin, parts.path.rstrip("/").encode("ascii")

"""The [gateway] table: addresses, servers, bounds."""

from __future__ import annotations

import re
from ipaddress import IPv6Network, ip_network
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.config.problems import ConfigError
from gateway.config.references import is_reference, parse_reference, resolve_secret
from gateway.config.values import EMBEDDED, GatewayConfig

if TYPE_CHECKING:
    from ipaddress import IPv4Network
    from pathlib import Path

    from gateway.config.section import Section

_DEFAULT = GatewayConfig()
_VISIBLE = re.compile(r"[!-~]+")
_REDIS_SCHEMES = ("redis", "rediss", "unix")
_POSTGRES_SCHEMES = ("postgresql", "postgres")
_MAPPED = IPv6Network("::ffff:0:0/96")


def read_gateway(section: Section, folder: Path) -> GatewayConfig:
    """The [gateway] table; `folder` is where relative paths start."""
    proxy = section.parsed("proxy_listen", _listen, "", _DEFAULT.proxy_listen)
    control = section.parsed("control_listen", _listen, "", _DEFAULT.control_listen)
    if proxy and proxy == control and not proxy.endswith(":0"):
        section.complain("control_listen", f"is the same address as proxy_listen, {proxy}")
    config = GatewayConfig(
        proxy_listen=proxy,
        control_listen=control,
        workers=section.integer("workers", _DEFAULT.workers, least=1, most=256),
        redis_url=_server_url(section, "redis_url", _REDIS_SCHEMES, folder),
        postgres_url=_server_url(section, "postgres_url", _POSTGRES_SCHEMES, folder),
        key_pepper=_secret(section, "key_pepper", folder),
        master_key=_secret(section, "master_key", folder),
        shards=section.integer("shards", _DEFAULT.shards, least=1, most=4_096),
        header_timeout_s=section.seconds("header_timeout_s", _DEFAULT.header_timeout_s),
        body_timeout_s=section.seconds("body_timeout_s", _DEFAULT.body_timeout_s),
        keepalive_timeout_s=section.seconds("keepalive_timeout_s", _DEFAULT.keepalive_timeout_s),
        connections_max=section.integer(
            "connections_max", _DEFAULT.connections_max, least=1, most=1_000_000
        ),
        header_bytes_max=section.integer(
            "header_bytes_max", _DEFAULT.header_bytes_max, least=1_024, most=1_048_576
        ),
        redis_deadline_ms=section.integer(
            "redis_deadline_ms", _DEFAULT.redis_deadline_ms, least=10, most=60_000
        ),
        shutdown_deadline_s=section.seconds("shutdown_deadline_s", _DEFAULT.shutdown_deadline_s),
        backlog_rows_max=section.integer(
            "backlog_rows_max", _DEFAULT.backlog_rows_max, least=1_000, most=100_000_000
        ),
        backlog_minutes_max=section.integer(
            "backlog_minutes_max", _DEFAULT.backlog_minutes_max, least=1, most=10_080
        ),
        # Renewed every third of it: under 2 s a busy loop would lose holds of running calls.
        lease_s=section.integer("lease_s", _DEFAULT.lease_s, least=2, most=3_600),
        private_upstreams=_networks(section, "private_upstreams"),
        trusted_proxies=_networks(section, "trusted_proxies"),
    )
    section.close()
    return config


def parse_listen(text: str) -> tuple[str, int]:
    """Host and port of an address to listen on: "127.0.0.1:8080", "[::1]:8080"; port 0 is any.

    Raises: ValueError saying what is wrong.
    """
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{text}": put an IPv6 address in brackets, as in "[::1]:8080"')
    number = int(port) if port.isascii() and port.isdecimal() and len(port) <= 5 else -1
    if not colon or not host or not 0 <= number <= 65_535:
        raise ValueError(f'"{text}" must be a host and a port, such as "127.0.0.1:8080"')
    return host, number


def _listen(text: str) -> str:
    parse_listen(text)
    return text


def _networks(section: Section, key: str) -> tuple[str, ...]:
    """A list of networks and addresses, each as a CIDR."""
    networks = []
    for text in section.texts(key):
        try:
            networks.append(str(_network(text)))
        except ValueError as error:
            section.complain(key, str(error))
    return tuple(networks)


def _network(text: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(text if "%" not in text else "")  # zones are no part of a network
    except ValueError:
        raise ValueError(f'"{text}" is no network, such as "10.0.0.0/8" or "fd00::/8"') from None
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        raise ValueError(f'"{text}" stands for IPv4 addresses: write them as such')
    return network


def _server_url(section: Section, key: str, schemes: tuple[str, ...], folder: Path) -> str:
    """The URL of a server, resolved if it is a reference. Messages never show it: passwords."""

    def parse(text: str) -> str:
        if text == EMBEDDED:
            return text
        try:
            url = resolve_secret(parse_reference(text, folder))
        except ConfigError as error:
            raise ValueError(str(error)) from None
        if url == EMBEDDED:
            return url
        try:
            parts = urlsplit(url)
            _ = parts.port  # raises for a port that is no port
        except ValueError:
            raise ValueError("is not a valid URL") from None
        if not _VISIBLE.fullmatch(url):
            raise ValueError("must be visible ASCII without spaces; percent-encode the rest")
        if parts.scheme not in schemes:
            kinds = ", ".join(f"{scheme}://" for scheme in schemes)
            raise ValueError(f'must be "{EMBEDDED}" or a URL that begins with {kinds}')
        if parts.scheme == "unix" and not parts.path.strip("/"):
            raise ValueError("needs the path of a socket: unix:///run/redis.sock")
        if parts.scheme in {"redis", "rediss"} and not parts.hostname:
            raise ValueError(f"needs a host: {parts.scheme}://127.0.0.1:6379/0")
        return url

    return section.parsed(key, parse, EMBEDDED, EMBEDDED)


def _secret(section: Section, key: str, folder: Path) -> str | None:
    """A reference to a secret, which is read when it is needed."""
    if key not in section:
        return None

    def parse(text: str) -> str:
        if not is_reference(text):
            raise ValueError('is a secret: refer to it as "env:NAME" or "file:PATH"')
        return parse_reference(text, folder)

    return section.parsed(key, parse, None)

"""Upstreams that owners give: whether one may be saved, and whether it can be reached now.

Both tell people early. What binds is the look at the address on every dial (gateway/upstream): a
name may mean something else by then.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlsplit

from gateway.config import parse_upstream
from gateway.upstream import Origin, UpstreamError, UpstreamForbidden, UpstreamTimeout
from gateway.upstream.dial import dial, resolve

if TYPE_CHECKING:
    from gateway.upstream import Networks

RESOLVE_TIMEOUT_S = 5.0
REACH_TIMEOUT_S = 5.0
NAME_CHARACTERS_MAX = 253
LABEL_CHARACTERS_MAX = 63

# Others are other services': mail, shells, names. What they would make of a request is theirs.
_PORTS = {80, 443}
_PORT_LEAST = 1_024
_OPERATORS = "only the operator can allow it (private_upstreams)"
# Ends of names that mean something else in each network: RFC 6761, RFC 6762 and its appendix G,
# RFC 8375, and what ICANN keeps free.
_LOCAL_ENDS = (
    *(".localhost", ".localdomain", ".local", ".internal", ".intranet", ".private", ".corp"),
    *(".home", ".lan", ".home.arpa"),
)
# A host that ends in a number is an address to every resolver, whatever else is in it.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


class Reach(NamedTuple):
    """What came of a connection."""

    ok: bool
    ms: int
    tls: str | None  # "TLSv1.3"; None: without
    problem: str | None


async def check_upstream(url: str, networks: Networks) -> list[str]:
    """Why an owner's upstream can't be saved, each for a person; none: it can.

    Its name is resolved. Whether it does not, or means an address that is refused, is not told
    apart: nobody is to find out so which names there are in the gateway's own network.
    """
    try:
        parts = urlsplit(parse_upstream(url))
    except ValueError as error:
        return [str(error)]
    host, port = parts.hostname or "", parts.port
    problems = [_problem_of_port(port), _problem_of_host(host)]
    if not any(problems):
        problems = [await _problem_of_place(host, networks)]
    return [problem for problem in problems if problem is not None]


async def reach(
    url: str,
    networks: Networks | None,
    *,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = REACH_TIMEOUT_S,
) -> Reach:
    """Connect to an upstream, with TLS if it has it, and leave again: no agent runs by that.

    `networks` None: the operator named it, so it may be anywhere. For https without `tls` a
    context is made, as in `Origin.parse`.
    """
    loop = asyncio.get_running_loop()
    started = loop.time()

    def failed(problem: str) -> Reach:
        return Reach(ok=False, ms=_ms(loop.time() - started), tls=None, problem=problem)

    if networks is not None:
        problems = await check_upstream(url, networks)
        if problems:
            return failed("; ".join(problems))
    try:
        origin, _ = Origin.parse(url, tls=tls, networks=networks)
    except ValueError as error:
        return failed(str(error))
    visit = _Visit()
    try:
        await dial(origin, lambda: visit, timeout_s)
    except UpstreamTimeout:
        return failed(f"no connection within {timeout_s:g} s")
    except UpstreamForbidden:
        return failed(_unresolved(origin.host))
    except UpstreamError as error:
        return failed(_told(error.__cause__))
    return Reach(ok=True, ms=_ms(loop.time() - started), tls=visit.leave(), problem=None)


class _Visit(asyncio.Protocol):
    """A connection that nothing is sent on."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def leave(self) -> str | None:
        """Close it, at once; answers the version of TLS."""
        secured = self._transport.get_extra_info("ssl_object")
        version = None if secured is None else secured.version()
        self._transport.abort()
        return version


def _problem_of_port(port: int | None) -> str | None:
    if port is None or port in _PORTS or port >= _PORT_LEAST:
        return None
    return f"port {port} is another service's: use 80, 443, or {_PORT_LEAST} and above"


def _problem_of_host(host: str) -> str | None:
    """What is wrong with how a host is written."""
    if ":" in host:
        return _problem_of_ipv6(host)
    labels = host.removesuffix(".").split(".")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            IPv4Address(host)
        except ValueError:
            return f'"{host}" is an ambiguous address: write four decimal numbers, as in 192.0.2.1'
        return None
    if len(host) > NAME_CHARACTERS_MAX or not all(
        0 < len(label) <= LABEL_CHARACTERS_MAX for label in labels
    ):
        return f'"{host}" is no name of a host'
    return None


def _problem_of_ipv6(host: str) -> str | None:
    try:
        mapped = IPv6Address(host).ipv4_mapped
    except ValueError:
        return f'"[{host}]" is no IPv6 address'
    return None if mapped is None else f'"[{host}]" is an ambiguous address: write {mapped}'


async def _problem_of_place(host: str, networks: Networks) -> str | None:
    """What is wrong with where a host is."""
    if ":" in host or _NUMBER.fullmatch(host.rpartition(".")[2]):
        why = networks.refusal(host)
        return None if why is None else f"{host} is {why}; {_OPERATORS}"
    name = host.removesuffix(".")
    local = "." not in name or name.endswith(_LOCAL_ENDS)
    problem = f'"{host}" is a name within a network; {_OPERATORS}' if local else _unresolved(host)
    if local:
        networks = networks.only_allowed()
        if not networks.allowed:
            return problem  # and not even asked about
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            await resolve(Origin("http", host, 80, b"", networks=networks))
    except (UpstreamForbidden, OSError, UnicodeError):  # TimeoutError is an OSError
        return problem
    return None


def _unresolved(host: str) -> str:
    return (
        f'"{host}" must resolve, and to public addresses only; '
        "the operator can allow others (private_upstreams)"
    )


def _told(cause: BaseException | None) -> str:
    """A failure of the network, without the addresses that its own text may name."""
    match cause:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not accepted: {cause.verify_message}"
        case ssl.SSLError():
            return "it does not speak TLS as it should"
        case socket.gaierror() | UnicodeError():
            return "its name does not resolve"
        case OSError(errno=int(number)):
            return os.strerror(number)  # such as "Connection refused"
        case _:
            return "it can't be reached"


def _ms(seconds: float) -> int:
    return round(seconds * 1000)

"""The [[routes]]: what is matched, where it goes, what it costs."""

from __future__ import annotations

import re
import ssl
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.config.bounds import read_caps, read_limits
from gateway.config.match import calls_of, parse_match
from gateway.config.prices import read_price
from gateway.config.problems import did_you_mean
from gateway.config.protocols import read_speech
from gateway.config.references import is_reference, parse_reference, secret_name
from gateway.config.selling import parse_slug
from gateway.config.websockets import check_websocket, default_timeouts
from policies.catalog import DEFAULT_RULES, Caps, Ending, Route, Rule, Timeouts
from policies.pricing import least_ceiling
from policies.units import format_credits

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gateway.config.section import Section
    from policies.catalog import Limits, Price

BODY_MAX_BYTES_MAX = 2**40
CONNECTIONS_MAX_MAX = 65_535
HEADER_VALUE_BYTES_MAX = 8_190
_DEFAULTS = Route("", (), "/", "", None)
_NO_MATCH: tuple[tuple[str, ...], str] = ((), "")
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
_VISIBLE = re.compile(r"[!-~]*")
_HEADER_VALUE = re.compile(r"[ -~]*")
# The gateway writes these itself: they frame the message or belong to one connection.
_OWN_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# What is said in these is a credential, and so is what begins like this.
_CREDENTIAL_HEADERS = frozenset(
    {"api-key", "authorization", "cookie", "x-api-key", "x-auth-token", "x-goog-api-key"}
)
_CREDENTIAL_VALUE = re.compile(r"(?i:basic|bearer|token) |(?:sk|tk|tt)[-_]")
_ADVICE = 'keep the value as a secret, PUT /v1/secrets/NAME, and write "secret:NAME" here'
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\]")
_UPSTREAM_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,=:@-]+)*/?")


def read_routes(sections: Iterable[Section], folder: Path) -> tuple[Route, ...]:
    """The [[routes]]; `folder` is where relative paths start."""
    routes: list[Route] = []
    names: set[str] = set()
    served: dict[tuple[str, str], str] = {}
    for section in sections:
        route = read_route(section, folder)
        if route.name and route.name in names:
            section.complain("name", f'"{route.name}" is already the name of another route')
        names.add(route.name)
        if route.pattern:
            _note_clash(section, route, served)
        routes.append(route)
    return tuple(routes)


def _note_clash(section: Section, route: Route, served: dict[tuple[str, str], str]) -> None:
    for call in calls_of(route.methods, route.pattern):
        other = served.setdefault(call, route.name)
        if other != route.name:
            section.complain("match", f'matches the same calls as the route "{other}"')
            return


def read_route(section: Section, folder: Path | None) -> Route:
    """One route; without a folder it is an owner's, who must not name what is on this machine."""
    methods, pattern = section.parsed("match", parse_match, _NO_MATCH)
    upstream = section.parsed("upstream", parse_upstream, "")
    before = section.problems_so_far()
    price = _price(section, pattern)
    priced = section.problems_so_far() == before
    held = least_ceiling(price) if price is not None and priced else 0
    speech = read_speech(section, price)
    check_websocket(section, speech.protocol, methods, price)
    timeouts = default_timeouts(speech.protocol)
    route = Route(
        name=section.parsed("name", parse_slug, ""),
        methods=methods,
        pattern=pattern,
        upstream=upstream,
        price=price,
        timeouts=Timeouts(
            connect_ms=section.milliseconds("connect_timeout_s", timeouts.connect_ms),
            first_byte_ms=section.milliseconds("first_byte_timeout_s", timeouts.first_byte_ms),
            idle_ms=section.milliseconds("idle_timeout_s", timeouts.idle_ms),
            total_ms=section.milliseconds("timeout_s", timeouts.total_ms),
        ),
        errors=speech.errors,
        headers=_headers(section.table("headers"), folder),
        rules=_rules(section.table("on")),
        body_max_bytes=section.integer(
            "body_max_bytes", _DEFAULTS.body_max_bytes, least=0, most=BODY_MAX_BYTES_MAX
        ),
        connections_max=section.integer(
            "connections_max", _DEFAULTS.connections_max, least=1, most=CONNECTIONS_MAX_MAX
        ),
        tls_ca_file=_ca_file(section, upstream, folder),
        limits=_limits(section.table("limits")),
        caps=_caps(section, price, held),
        trust_microcredits=_trust(section, held),
        protocol=speech.protocol,
        ensure_usage=speech.ensure_usage,
        task=speech.task,
        websocket=speech.websocket,
    )
    section.close()
    return route


def _price(section: Section, pattern: str) -> Price | None:
    free = section.flag("free")
    if "price" not in section:
        if not free:
            section.complain("price", "is missing: no price, no service; or say free = true")
        return None
    if free:
        section.complain("free", "this route also has a price; keep one of the two")
    return read_price(section.table("price"), pattern)


def _limits(section: Section) -> Limits:
    limits = read_limits(section)
    section.close()
    return limits


def _caps(route: Section, price: Price | None, held: int) -> Caps:
    section = route.table("caps")
    if "caps" in route and "free" in route and price is None:
        route.complain("caps", "are of no use: this route is free")
    caps = read_caps(section, sessions=False)
    for window, cap in (("day", caps.day), ("month", caps.month), ("total", caps.total)):
        if 0 < cap < held:
            section.complain(window, _too_little(held))
    return caps


def _trust(route: Section, held: int) -> int:
    """What may be used on trust while Redis is away; 0 for nothing."""
    before = route.problems_so_far()
    section = route.table("when_redis_is_down")
    written = "when_redis_is_down" in route and route.problems_so_far() == before
    allowed = section.amount("allow", default=None if written else "0")
    section.close()
    if 0 < allowed < held:
        section.complain("allow", _too_little(held))
    return allowed


def _too_little(held: int) -> str:
    return f'lets no call pass: one holds "{format_credits(held)}"'


def parse_upstream(text: str) -> str:
    """An upstream's URL, without a slash at its end.

    Raises: ValueError saying what is wrong.
    """
    if not _VISIBLE.fullmatch(text):  # urlsplit would drop line ends and tabs without a word
        raise ValueError("must be visible ASCII without spaces")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(f'"{text}" is not a valid URL') from None
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f'"{text}" must be http:// or https:// and a host')
    if "@" in parts.netloc:
        raise ValueError("has a user or password in it; put credentials into its headers")
    host = parts.netloc.removesuffix(f":{port}") if port is not None else parts.netloc
    if not _HOST.fullmatch(host) or port == 0:
        raise ValueError(f'"{text}" has no proper host and port')
    if "?" in text or "#" in text:
        raise ValueError(f'"{text}" must end with its path: no "?" and no "#"')
    segments = parts.path.split("/")
    if not _UPSTREAM_PATH.fullmatch(parts.path) or "." in segments or ".." in segments:
        raise ValueError(f'"{text}" has a path with escapes, dot segments or "//"')
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _headers(section: Section, folder: Path | None) -> tuple[tuple[str, str], ...]:
    headers: dict[str, tuple[str, str]] = {}
    for name in section.take_keys():
        value = section.parsed(name, partial(_header_value, name, folder), "")
        if not _HEADER_NAME.fullmatch(name):
            section.complain(name, 'is not a header name: letters, digits, "-", no "_"')
        elif name.lower() in _OWN_HEADERS:
            section.complain(name, "is written by the gateway itself")
        elif name.lower() in headers:
            section.complain(name, "is there twice: header names ignore case")
        headers[name.lower()] = (name, value)
    return tuple(headers.values())


def _header_value(name: str, folder: Path | None, text: str) -> str:
    # The text itself stays out of the message: it may be a secret that should be a reference.
    if not _HEADER_VALUE.fullmatch(text) or text != text.strip():
        raise ValueError("must be one line of printable ASCII without spaces around it")
    if len(text) > HEADER_VALUE_BYTES_MAX:
        raise ValueError(f"is longer than {HEADER_VALUE_BYTES_MAX} bytes")
    return _owners_value(name, text) if folder is None else parse_reference(text, folder)


def _owners_value(name: str, text: str) -> str:
    """A value that an owner gave: everybody who may look at routes sees it."""
    if is_reference(text):
        raise ValueError(f"would read from the gateway's own machine; {_ADVICE}")
    secret = secret_name(text)
    if secret is not None:
        parse_slug(secret)
    elif name.lower() in _CREDENTIAL_HEADERS or _CREDENTIAL_VALUE.match(text):
        raise ValueError(f"is a credential that others would see; {_ADVICE}")
    return text


def _rules(section: Section) -> dict[Ending, Rule]:
    rules = dict(DEFAULT_RULES)
    endings = [ending.value for ending in Ending]
    for word in section.take_keys():
        if word in endings:
            ending = Ending(word)
            rules[ending] = section.choice(word, Rule, rules[ending])
        else:
            section.complain(word, f"is not an ending of a call; {did_you_mean(word, endings)}")
    return rules


def _ca_file(section: Section, upstream: str, folder: Path | None) -> str | None:
    text = section.optional_text("tls_ca_file")
    if not text:
        return None
    if folder is None:
        section.complain("tls_ca_file", "is a file on the gateway's machine: for its operator only")
        return None
    path = (folder / text).absolute()
    if upstream.startswith("http://"):
        section.complain("tls_ca_file", "is of no use: the upstream is http://, not https://")
    else:
        try:
            ssl.create_default_context(cafile=path)
        except OSError as error:  # ssl.SSLError is one, too
            reason = error.strerror if isinstance(error, FileNotFoundError) else error
            section.complain("tls_ca_file", f"{path} can't be used: {reason}")
    return str(path)

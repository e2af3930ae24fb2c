"""What is on offer, ready for the hot path: a tree of routes per platform, all computed.

An `Offer` is a route as the proxy uses it. Offers are immutable; a change of the catalogue
replaces the whole `Offers` between two calls, so a call is priced by one version from its ceiling
to its settlement.
"""

from __future__ import annotations

import logging
from copy import copy
from dataclasses import replace
from typing import TYPE_CHECKING

import orjson

from gateway.proxy.jsonrpc import mistake_in_head, rpc_prices_of
from gateway.proxy.match import RouteTree
from gateway.proxy.traffic import RouteTraffic
from gateway.proxy.vault import Vault
from gateway.upstream.networks import Networks
from gateway.upstream.origin import Origin
from gateway.upstream.tls import client_context
from policies.catalog import ChargePer, Ending, ErrorStyle, Protocol, Rule
from policies.limits import route_rules_text
from policies.meters import MeterPlan, metered_headers
from policies.meters.facts import RequestFacts
from policies.pricing import needs_request, terms_of
from policies.terms import Terms

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from gateway.identity.seal import Sealer
    from gateway.ledger import PlatformRoutes, PlatformRow
    from gateway.proxy.heads import RequestHead
    from policies.catalog import Price, Route

# Agents answer in a handful of content types; the bound is against one that makes them up.
ANSWER_KINDS_MAX = 256
# Of streams that cost nothing, on connections of their own, so that calls never wait for one.
LISTENERS_MAX = 8_192
LISTEN_MS_MAX = 24 * 3_600_000
_EVENT_STREAM = b"text/event-stream"
_PLAIN = frozenset({b"", b"identity"})
_PUBLIC = Networks()
_NO_SECRETS = Vault()
_NO_TERMS = Terms(None, (), 0, 0)

log = logging.getLogger("tollkeeper.proxy")


class AnswerKind:
    """What is decided by an answer's content type and encoding: how it is metered and ended."""

    __slots__ = ("event_stream", "media_type", "meter_plan")

    def __init__(self, price: Price | None, content_type: bytes, content_encoding: bytes) -> None:
        # Of an answer that something can be added to; else b"".
        self.media_type = (
            content_type.partition(b";")[0].strip().lower() if content_encoding in _PLAIN else b""
        )
        self.event_stream = self.media_type == _EVENT_STREAM
        self.meter_plan = (
            MeterPlan(price, content_type.decode("latin-1"), content_encoding.decode("latin-1"))
            if price is not None and (price.meters or price.rpc is not None)
            else None
        )


class Offer:
    """One route, precomputed."""

    __slots__ = (
        "answer_kinds",
        "base_path",
        "context_suffix",
        "costs_its_hold",
        "has_tasks",
        "hidden_names",
        "injected",
        "injected_names",
        "metered",
        "needs_request",
        "origin",
        "patient",
        "plain",
        "reads_body",
        "route",
        "rpc",
        "rule_if_lost",
        "rules",
        "sells_tasks",
        "tail_segments",
        "terms",
        "traffic",
        "upgrade_url",
    )

    def __init__(
        self,
        route: Route,
        tls: ssl.SSLContext | None,
        upgrade_url: str | None = None,
        traffic: RouteTraffic | None = None,
        *,
        networks: Networks = _PUBLIC,
        vault: Vault = _NO_SECRETS,
    ) -> None:
        self.route = route
        self.traffic = traffic or RouteTraffic()
        self.upgrade_url = upgrade_url  # told to clients whose credits ran out
        self.origin, self.base_path = Origin.parse(
            route.upstream,
            tls=tls,
            connections_max=route.connections_max,
            networks=networks if route.guarded else None,
            timeouts=route.timeouts,
        )
        price = route.price
        self.rule_if_lost = route.rules[Ending.UNKNOWN]
        # Whether a call that goes well costs what was held for it, whatever it used.
        self.costs_its_hold = route.rules[Ending.COMPLETED] is Rule.RESERVED
        # Whether what a call may cost can be said only when its request is read.
        # By what its JSON-RPC calls are priced; None: it is not looked for any.
        self.rpc = rpc_prices_of(route)
        # Whether calls belong to tasks, or pay by the message.
        self.has_tasks = route.protocol is Protocol.A2A and price is not None
        self.needs_request = (
            (price is not None and needs_request(price))
            or self.rpc is not None
            or self.has_tasks
            or route.errors is ErrorStyle.JSONRPC  # whose refusals answer the request's ids
        )
        self.sells_tasks = self.has_tasks and route.task.per is ChargePer.TASK
        # Whether the body is read before it is sent on.
        self.reads_body = self.needs_request or bool(route.ensure_usage)
        # Whether nothing but the price and the agent's answer matters: most routes.
        self.plain = route.protocol is Protocol.HTTP and not self.reads_body
        # Of a call whose request does not matter, for an account without a discount.
        terms = terms_of(price, self.rule_if_lost, None)
        # A price whose table has no case for such a call needs each call's request.
        self.terms = terms if isinstance(terms, Terms) else _NO_TERMS
        self.rules = route_rules_text(route.id, route.limits, route.caps).encode()
        self.metered = price is not None and (bool(price.meters) or price.rpc is not None)
        # Headers that meters read: they are between the agent and the gateway.
        self.hidden_names = metered_headers(price) if price is not None else frozenset()
        self.answer_kinds: dict[tuple[bytes, bytes], AnswerKind] = {}
        # Behind it comes the call's session.
        self.context_suffix = b",%d,%d," % (route.id, price.version if price else 0)
        headers = vault.headers_of(route)
        self.injected = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        self.injected_names = frozenset(name.lower() for name, _ in headers)
        # Where what `/**` stands for begins, when the upstream has a path of its own.
        self.tail_segments = route.pattern.count("/") if route.pattern.endswith("/**") else None

        # The same for streams whose agent may be silent for as long as it likes.
        self.patient = self
        if route.protocol is Protocol.MCP:
            self.patient = copy(self)
            timeouts = replace(route.timeouts, idle_ms=LISTEN_MS_MAX, total_ms=LISTEN_MS_MAX)
            self.patient.origin = replace(
                self.origin, timeouts=timeouts, connections_max=LISTENERS_MAX
            )

    def answer_kind(self, kind: tuple[bytes, bytes]) -> AnswerKind:
        """How an answer of this content type and encoding is treated."""
        known = self.answer_kinds.get(kind)
        if known is None:
            known = AnswerKind(self.route.price, *kind)
            if len(self.answer_kinds) < ANSWER_KINDS_MAX:
                self.answer_kinds[kind] = known
        return known

    def facts_of(self, head: RequestHead, body: bytes | None) -> RequestFacts:
        """What prices can ask of a request; `body` is None when it is too long to be read."""
        size = head.content_length if body is None else len(body)
        plain = not body or mistake_in_head(head) is None
        return self.facts_about(head.method, head.path, head.query, body, size, plain=plain)

    def facts_about(
        self,
        method: str,
        path: str,
        query: str,
        body: bytes | None,
        size: int | None,
        *,
        plain: bool = True,
    ) -> RequestFacts:
        """The same of a request that need not have been made; see `RequestFacts`."""
        pattern = self.route.pattern
        return RequestFacts(orjson.loads, method, path, pattern, query, body, size, plain=plain)

    def upstream_path(self, path: str) -> bytes:
        """The path the agent is asked for: the call's own, unless the upstream has one.

        An upstream's path stands for the pattern's; what a `/**` tail matched is appended.
        """
        if not self.base_path:
            return path.encode()
        if self.tail_segments is None:
            return self.base_path
        return self.base_path + b"/" + path.split("/", self.tail_segments)[-1].encode()


class PlatformOffers:
    """The routes of one platform."""

    __slots__ = ("find", "upgrade_url")

    def __init__(self, platform: PlatformRow, offers: Sequence[Offer]) -> None:
        self.upgrade_url = platform.upgrade_url
        tree = RouteTree((offer.route.methods, offer.route.pattern, offer) for offer in offers)
        self.find = tree.find


def build_offers(
    catalogue: Iterable[PlatformRoutes],
    traffic: Callable[[int], RouteTraffic],
    networks: Networks,
    sealer: Sealer,
) -> dict[int, PlatformOffers]:
    """The offers of every platform, by platform id, from its active routes.

    `traffic` answers where a route's calls are counted. In `networks` guarded upstreams may be;
    `sealer` opens the secrets of platforms. A route of an owner that can't be offered is left out:
    it is nobody else's trouble.

    Raises: ValueError when a secret that a route of the config names can't be resolved, or a CA
    file can't be read.
    """
    contexts: dict[str | None, ssl.SSLContext] = {}

    def offer(route: Route, upgrade_url: str | None, vault: Vault) -> Offer:
        tls = None
        if route.upstream.startswith("https:"):
            # One context per CA file: origins share connections only when they share theirs.
            if route.tls_ca_file not in contexts:
                contexts[route.tls_ca_file] = client_context(route.tls_ca_file)
            tls = contexts[route.tls_ca_file]
        return Offer(route, tls, upgrade_url, traffic(route.id), networks=networks, vault=vault)

    def offers(platform: PlatformRow, routes: Iterable[Route], vault: Vault) -> Iterator[Offer]:
        for route in routes:
            try:
                yield offer(route, platform.upgrade_url, vault)
            except Exception:
                if not route.guarded:
                    raise
                log.exception("%s: the route %s can't be offered", platform.slug, route.name)

    return {
        platform.platform_id: PlatformOffers(
            platform, list(offers(platform, routes, Vault(sealer, secrets)))
        )
        for platform, routes, secrets in catalogue
    }

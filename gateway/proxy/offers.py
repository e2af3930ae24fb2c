"""What is on offer, ready for the hot path: a tree of routes per platform, all computed.

An `Offer` is a route as the proxy uses it. Offers are immutable; a change of the catalogue
replaces the whole `Offers` between two calls, so a call is priced by one version from its ceiling
to its settlement.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import resolve_secret
from gateway.proxy.match import RouteTree
from gateway.upstream.origin import Origin
from gateway.upstream.tls import client_context
from policies.catalog import Ending
from policies.limits import route_rules_text
from policies.meters import MeterPlan
from policies.pricing import ceiling
from policies.settlement import due_if_lost

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Sequence

    from gateway.ledger import PlatformRoutes, PlatformRow
    from policies.catalog import Price, Route

# Agents answer in a handful of content types; the bound is against one that makes them up.
ANSWER_KINDS_MAX = 256
_EVENT_STREAM = b"text/event-stream"
_PLAIN = frozenset({b"", b"identity"})


class AnswerKind:
    """What is decided by an answer's content type and encoding: how it is metered and ended."""

    __slots__ = ("event_stream", "meter_plan")

    def __init__(self, price: Price | None, content_type: bytes, content_encoding: bytes) -> None:
        # Whether lines can be added to it.
        self.event_stream = (
            content_encoding in _PLAIN
            and content_type[: len(_EVENT_STREAM)].lower() == _EVENT_STREAM
        )
        self.meter_plan = (
            MeterPlan(price, content_type.decode("latin-1"), content_encoding.decode("latin-1"))
            if price is not None and price.meters
            else None
        )


class Offer:
    """One route, precomputed."""

    __slots__ = (
        "answer_kinds",
        "base_path",
        "ceiling",
        "context_suffix",
        "due",
        "injected",
        "injected_names",
        "metered",
        "origin",
        "route",
        "rules",
        "tail_segments",
    )

    def __init__(self, route: Route, tls: ssl.SSLContext | None) -> None:
        self.route = route
        self.origin, self.base_path = Origin.parse(
            route.upstream,
            tls=tls,
            connections_max=route.connections_max,
            timeouts=route.timeouts,
        )
        price = route.price
        self.ceiling = ceiling(price) if price else 0
        # Of a call that was sent on and never heard of again.
        unseen = (None,) * len(price.meters) if price else ()
        self.due = due_if_lost(price, route.rules[Ending.UNKNOWN], self.ceiling, unseen)
        self.rules = route_rules_text(route.id, route.limits, route.caps).encode()
        self.metered = price is not None and bool(price.meters)
        self.answer_kinds: dict[tuple[bytes, bytes], AnswerKind] = {}
        # Behind it comes the call's session.
        self.context_suffix = b",%d,%d," % (route.id, price.version if price else 0)
        headers = [(name.encode("latin-1"), resolve_secret(value)) for name, value in route.headers]
        self.injected = b"".join(
            name + b": " + value.encode("latin-1") + b"\r\n" for name, value in headers
        )
        self.injected_names = frozenset(name.lower() for name, _ in headers)
        # Where what `/**` stands for begins, when the upstream has a path of its own.
        self.tail_segments = route.pattern.count("/") if route.pattern.endswith("/**") else None

    def answer_kind(self, kind: tuple[bytes, bytes]) -> AnswerKind:
        """How an answer of this content type and encoding is treated."""
        known = self.answer_kinds.get(kind)
        if known is None:
            known = AnswerKind(self.route.price, *kind)
            if len(self.answer_kinds) < ANSWER_KINDS_MAX:
                self.answer_kinds[kind] = known
        return known

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


def build_offers(catalogue: Iterable[PlatformRoutes]) -> dict[int, PlatformOffers]:
    """The offers of every platform, by platform id, from its active routes.

    Raises: ValueError when a secret that a route names can't be resolved, or a CA file can't be
    read.
    """
    contexts: dict[str | None, ssl.SSLContext] = {}

    def offer(route: Route) -> Offer:
        if not route.upstream.startswith("https:"):
            return Offer(route, None)
        # One context per CA file: origins share connections only when they share their context.
        if route.tls_ca_file not in contexts:
            contexts[route.tls_ca_file] = client_context(route.tls_ca_file)
        return Offer(route, contexts[route.tls_ca_file])

    return {
        platform.platform_id: PlatformOffers(platform, [offer(route) for route in routes])
        for platform, routes in catalogue
    }

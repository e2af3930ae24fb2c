"""`GET /metrics`: the node's figures in Prometheus' text format, for whoever watches it.

Open to everybody where the control plane listens on loopback only, as a scraper on the same machine
expects; elsewhere it takes the admin token, like all that is not for strangers. It names checks,
never platforms, accounts or keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway.control.access import authorized, unauthenticated
from gateway.control.node import Figures

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prometheus_client import Metric

    from gateway.control.node import Node

PATH: Final = "/metrics"


class Metrics:
    """What the node counts. Jobs are given its methods; the rest is asked for at each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._drift = Gauge(
            "tollkeeper_drift_findings",
            "Disagreements of Redis and Postgres at the last look at each shard, by check.",
            ["check"],
            registry=self.registry,
        )
        self._reconciled = Counter(
            "tollkeeper_reconciled_accounts",
            "Accounts of which Redis and Postgres were compared.",
            registry=self.registry,
        )
        self._expired = Counter(
            "tollkeeper_expired_holds",
            "Holds that this node ended because their lease was over.",
            registry=self.registry,
        )
        self._received = Counter(
            "tollkeeper_stripe_events_received",
            "Events of Stripe's that this node kept, by shape; `again`: they had come before.",
            ["shape", "again"],
            registry=self.registry,
        )
        self._refused = Counter(
            "tollkeeper_stripe_events_refused",
            "Events of Stripe's that this node refused, by reason.",
            ["reason"],
            registry=self.registry,
        )
        self.asked = _AskedCollector()
        self.registry.register(self.asked)
        self._checks: set[str] = set()

    def reconciled(self, accounts: int) -> None:
        """So many accounts were compared."""
        self._reconciled.inc(accounts)

    def drift(self, findings: Mapping[str, int]) -> None:
        """How many disagreements there are now, by check. What is not named any more is 0."""
        self._checks |= findings.keys()
        for check in self._checks:
            self._drift.labels(check).set(findings.get(check, 0))

    def expired_holds(self, holds: int) -> None:
        """So many holds were ended for their lease."""
        self._expired.inc(holds)

    def stripe_event_received(self, shape: str, *, is_new: bool) -> None:
        """An event is kept, or was."""
        self._received.labels(shape, "false" if is_new else "true").inc()

    def stripe_event_refused(self, reason: str) -> None:
        """An event was refused."""
        self._refused.labels(reason).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _AskedCollector(Collector):
    """What is asked for at a scrape; no sample for what could not be."""

    def __init__(self) -> None:
        self.now = Figures(None, None, None)

    def collect(self) -> Iterator[Metric]:
        """The samples of one scrape."""
        yield GaugeMetricFamily(
            "tollkeeper_late_settlements",
            "Calls that ended while Redis could not be asked, and are not charged there yet.",
            value=self.now.late_settlements,
        )
        yield GaugeMetricFamily(
            "tollkeeper_outbox_entries",
            "Settlements and changes in Redis that are not acknowledged by Postgres yet.",
            value=self.now.outbox_entries,
        )
        yield CounterMetricFamily(
            "tollkeeper_rebuilds",
            "Rebuilds of lost shards that were begun, by any process of the deployment.",
            value=self.now.rebuilds,
        )
        yield GaugeMetricFamily(
            "tollkeeper_stripe_events_waiting",
            "Events of Stripe's that are kept, and to be worked on.",
            value=self.now.stripe_events_waiting,
        )
        yield GaugeMetricFamily(
            "tollkeeper_stripe_events_parked",
            "Events of Stripe's that could not be worked on, and wait for a person.",
            value=self.now.stripe_events_parked,
        )


def add_metrics(
    app: web.Application, node: Node, metrics: Metrics, admin_token: str | None, *, is_open: bool
) -> None:
    """Registers it; `is_open` lets in everybody."""

    async def scrape(request: web.Request) -> web.Response:
        if not is_open and not authorized(request, admin_token):
            return unauthenticated()
        metrics.asked.now = await node.figures()
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get(PATH, scrape)

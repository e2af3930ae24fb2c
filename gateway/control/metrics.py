"""`GET /metrics`: the node's figures in Prometheus' text format, for whoever watches it.

Open to everybody where the control plane listens on loopback only, as a scraper on the same machine
expects; elsewhere it takes the admin token, like all that is not for strangers. It names checks,
never platforms, accounts or keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from gateway.control.access import authorized, unauthenticated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gateway.control.node import Node, Waiting

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
        self._rebuilds = Counter(
            "tollkeeper_rebuilds",
            "Shards that this node closed, rebuilt and opened.",
            registry=self.registry,
        )
        self.waiting = _WaitingCollector()
        self.registry.register(self.waiting)
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

    def rebuilt(self, shards: int = 1) -> None:
        """So many shards were rebuilt."""
        self._rebuilds.inc(shards)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)


class _WaitingCollector(Collector):
    """What waits for Postgres or for Redis; no sample for what could not be asked."""

    def __init__(self) -> None:
        self.now: Waiting | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The samples of one scrape."""
        now = self.now
        yield GaugeMetricFamily(
            "tollkeeper_late_settlements",
            "Calls that ended while Redis could not be asked, and are not charged there yet.",
            value=now.late_settlements if now else None,
        )
        yield GaugeMetricFamily(
            "tollkeeper_outbox_entries",
            "Settlements and changes in Redis that are not acknowledged by Postgres yet.",
            value=now.outbox_entries if now else None,
        )


def add_metrics(
    app: web.Application, node: Node, metrics: Metrics, admin_token: str | None, *, is_open: bool
) -> None:
    """Registers it; `is_open` lets in everybody."""

    async def scrape(request: web.Request) -> web.Response:
        if not is_open and not authorized(request, admin_token):
            return unauthenticated()
        metrics.waiting.now = await node.waiting()
        return web.Response(body=metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app.router.add_get(PATH, scrape)

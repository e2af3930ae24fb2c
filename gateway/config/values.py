"""The config as frozen values, with the defaults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.config.stripe import StripeTable
    from policies.catalog import Pack, Plan, Platform, Route

EMBEDDED = "embedded"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """How this deployment runs.

    Plain JSON values only: the supervisor hands it to its workers as `GatewayConfig(**json)`. The
    URLs are resolved (no `env:` or `file:`) and may hold passwords, so they are kept out of `repr`.
    """

    proxy_listen: str = "127.0.0.1:8080"
    control_listen: str = "127.0.0.1:8081"
    workers: int = 1
    redis_url: str = field(default=EMBEDDED, repr=False)
    postgres_url: str = field(default=EMBEDDED, repr=False)
    key_pepper: str | None = None  # a reference, "env:X" or "file:P"; None: `dev` makes its own
    master_key: str | None = None  # the same; seals what owners and the gateway keep in Postgres
    shards: int = 64  # fixed at a deployment's first start
    header_timeout_s: float = 10
    body_timeout_s: float = 30  # between two reads of a request's body
    keepalive_timeout_s: float = 75
    connections_max: int = 10_000  # of clients, per worker
    header_bytes_max: int = 32_768
    redis_deadline_ms: int = 250
    shutdown_deadline_s: float = 30
    backlog_rows_max: int = 1_000_000  # settlements a worker keeps while Postgres is away
    backlog_minutes_max: int = 60  # how old the oldest of them may become
    lease_s: int = 30  # how long a hold outlives its worker
    # CIDRs that upstreams may be in which owners give by the API; public ones always may.
    private_upstreams: tuple[str, ...] = ()
    # CIDRs of proxies before this one, whose X-Forwarded-For says who the client is.
    trusted_proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("private_upstreams", "trusted_proxies"):
            object.__setattr__(self, name, tuple(getattr(self, name)))  # in JSON they are lists


@dataclass(frozen=True, slots=True)
class Config:
    """A whole config file."""

    gateway: GatewayConfig
    platform: Platform
    plans: tuple[Plan, ...]
    routes: tuple[Route, ...]
    packs: tuple[Pack, ...] = ()
    stripe: StripeTable | None = None

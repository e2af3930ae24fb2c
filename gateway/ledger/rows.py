"""What the ledger's look-ups answer. Times are milliseconds since the epoch, 0 is "never"."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.catalog import Route


# Who describes what is sold: the config's file, people by the API, or a product of Stripe.
BY_CONFIG, BY_API, BY_STRIPE = "config", "api", "stripe"
# What is left of guards that have no route in common: no route has this name.
NO_ROUTE = ("",)


class Guards(NamedTuple):
    """What a key may be used for: route names, and networks as `10.0.0.0/8`. Empty: all."""

    routes: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()


class KeyRow(NamedTuple):
    """An API key and whose it is. Whether it may call is decided in Redis, on every call.

    `key_status` and `expires_ms` are those of the first to end, of the key and its ancestors.
    """

    key_id: int
    key_name: str
    key_status: str  # active | revoked
    expires_ms: int
    digest: bytes
    account_id: int
    account_name: str
    account_status: str  # active | suspended
    platform_id: int
    platform_slug: str
    discount: int  # of the account, in basis points; Redis knows of a change first
    kind: str  # key | delegated | issuer
    routes: tuple[str, ...]  # which it is for, ancestors' guards included; empty: all
    addresses: tuple[str, ...]  # networks it may be used from, as ancestors say; empty: all
    guard_version: int  # grows whenever routes or addresses change, an ancestor's too


class PlatformRow(NamedTuple):
    """A tenant of this deployment."""

    platform_id: int
    slug: str
    name: str
    upgrade_url: str | None


class PlatformRoutes(NamedTuple):
    """A platform with its active routes, as the proxy serves them, and its sealed secrets.

    Of two routes for the same calls the later is served: those of the config come last.
    """

    platform: PlatformRow
    routes: tuple[Route, ...]
    secrets: Mapping[str, bytes] = MappingProxyType({})


class CatalogueSnapshot(NamedTuple):
    """What the proxy serves by at an instant, and which changes that holds."""

    version: int
    platforms: Sequence[PlatformRoutes]


class AccountRow(NamedTuple):
    """A customer of a platform."""

    account_id: int
    platform_id: int
    name: str
    plan_slug: str | None
    status: str
    created_ms: int
    discount_basis_points: int | None  # off every price, its own; None: its plan's
    plan_discount_basis_points: int
    renewed_by: str = "clock"  # clock | subscription
    payment_suspended: bool = False  # for want of payment, whatever its status
    debt_microcredits: int = 0  # spent, although their payment was given back


class KeyListRow(NamedTuple):
    """An API key as people see it."""

    key_id: int
    account_id: int
    account_name: str
    kind: str
    parent_key_id: int | None  # of a delegated key, as is its budget
    budget_microcredits: int | None
    name: str
    prefix: str
    last4: str
    status: str
    expires_ms: int
    created_ms: int
    revoked_ms: int
    limits: Limits
    caps: Caps
    guards: Guards  # its own; an ancestor may allow less
    guard_version: int
    metadata: Mapping[str, str]

    @property
    def facts(self) -> KeyFacts:
        """What of it can be changed."""
        return KeyFacts(
            self.name, self.expires_ms, self.limits, self.caps, self.guards, self.metadata
        )


class KeyFacts(NamedTuple):
    """What of an API key people decide, and can decide otherwise later."""

    name: str
    expires_ms: int = 0
    limits: Limits = Limits()
    caps: Caps = Caps()
    guards: Guards = Guards()
    metadata: Mapping[str, str] = MappingProxyType({})


class GrantRow(NamedTuple):
    """A lot of credits."""

    grant_id: int
    account_id: int
    source: str
    amount_microcredits: int
    settled_microcredits: int
    expired_microcredits: int
    revoked_microcredits: int
    effective_ms: int
    expires_ms: int
    priority: int
    note: str
    created_ms: int
    credited_microcredits: int = 0
    revoked_ms: int = 0
    rollovers: int = 0


class SettlementRow(NamedTuple):
    """A call as Postgres keeps it."""

    call_id: str
    account_id: int
    key_id: int
    route_id: int
    price_version: int
    admitted_ms: int
    settled_ms: int
    ending: str
    status: int
    units: str
    flags: str
    held_microcredits: int
    charged_microcredits: int
    uncollected_microcredits: int
    session: str


class GrantDrift(NamedTuple):
    """A lot whose sums are not those of its ledger entries, or that paid more than it had."""

    grant_id: int
    account_id: int
    amount_microcredits: int
    credited_microcredits: int
    settled_microcredits: int
    expired_microcredits: int
    revoked_microcredits: int
    granted_by_ledger: int
    credited_by_ledger: int
    settled_by_ledger: int
    expired_by_ledger: int
    revoked_by_ledger: int


class ChangeDrift(NamedTuple):
    """A change and its ledger entries that are not alike, or a call that got more than it paid.

    `wrong`: "unrecorded" (entries without a change), "unlike" (a change without its entries, or
    with others), "returned" (`id` is the call's).
    """

    id: str
    account_id: int
    wrong: str
    microcredits: int


class CallDrift(NamedTuple):
    """A call whose charge is not what its ledger entries took; None: there is no settlement."""

    call_id: str
    account_id: int
    charged_microcredits: int | None
    posted_microcredits: int


class UsageDrift(NamedTuple):
    """An hour of the roll-ups that is not the sum of its settlements."""

    account_id: int
    route_id: int
    key_id: int
    hour_ms: int
    calls: int
    calls_rolled: int
    charged_microcredits: int
    charged_rolled_microcredits: int


class RollupDrift(NamedTuple):
    """An hour or day of a coarser roll-up that is not the sum of the hours of accounts."""

    rollup: str
    platform_id: int
    account_id: int  # 0: all of the platform's
    part: str  # route | account | key
    part_id: int
    since_ms: int
    calls: int
    calls_rolled: int
    charged_microcredits: int
    charged_rolled_microcredits: int

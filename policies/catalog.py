"""What can be sold: routes, prices, meters, plans, packs, as frozen values.

Written by the config and the database, read by the call's way. Nothing here decides; `pricing` and
`settlement` do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.money import Money, OveragePrice


class Ending(StrEnum):
    """How a call ended. Exactly one per settlement."""

    COMPLETED = "completed"
    CLIENT_ERROR = "client_error"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    CLIENT_DISCONNECT = "client_disconnect"
    EXHAUSTED = "exhausted"
    UNKNOWN = "unknown"


class Rule(StrEnum):
    """What an ending costs."""

    ACTUAL = "actual"
    RESERVED = "reserved"
    MINIMUM = "minimum"
    NOTHING = "nothing"


class ErrorStyle(StrEnum):
    """The shape of the gateway's own error answers on a route."""

    PROBLEM = "problem"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    JSONRPC = "jsonrpc"


class Protocol(StrEnum):
    """What a route's clients and agents speak, where that decides what is paid for."""

    HTTP = "http"
    MCP = "mcp"
    A2A = "a2a"
    WEBSOCKET = "websocket"


class OnMissing(StrEnum):
    """What a unit costs that could not be read from the answer."""

    RESERVED = "reserved"  # as many as were reserved
    MINIMUM = "minimum"  # none: what the price asks at least
    ESTIMATE = "estimate"  # as many as what passed suggests, at most those reserved


class ChargePer(StrEnum):
    """What a price of an A2A route is for."""

    MESSAGE = "message"
    TASK = "task"


class QuotaWindow(StrEnum):
    """The month that a plan's `requests_per_month` counts."""

    CALENDAR = "calendar"  # UTC
    BILLING = "billing"  # the account's period


class RefundExpired(StrEnum):
    """What a refund does with the part that lots paid which have expired since."""

    GRANT = "grant"  # gives it back as a new lot
    NOTHING = "nothing"


DEFAULT_RULES: Mapping[Ending, Rule] = {
    Ending.COMPLETED: Rule.ACTUAL,
    Ending.CLIENT_ERROR: Rule.NOTHING,
    Ending.UPSTREAM_ERROR: Rule.NOTHING,
    Ending.UPSTREAM_TIMEOUT: Rule.NOTHING,
    Ending.CLIENT_DISCONNECT: Rule.ACTUAL,
    Ending.EXHAUSTED: Rule.ACTUAL,
    Ending.UNKNOWN: Rule.MINIMUM,
}


@dataclass(frozen=True, slots=True)
class Source:
    """Where units are read: a registered kind of meter and its argument.

    Written `response.json:/usage/total_tokens`.
    """

    kind: str
    argument: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.argument}" if self.argument else self.kind


@dataclass(frozen=True, slots=True)
class Tier:
    """A price per unit up to (and with) a unit of the billing period; None: for all beyond."""

    up_to: int | None
    picocredits_per_unit: int


@dataclass(frozen=True, slots=True)
class MeterSpec:
    """One priced unit of a route. The first source that yields a value in this call counts.

    `tiers`, if there are any, stand in for `picocredits_per_unit`: graduated over what an account
    uses on the route in its billing period. `included_units` of each call cost nothing.
    `reserve_from` are sources in the request; without a value `reserve_units` are reserved.
    """

    unit: str
    sources: tuple[Source, ...]
    picocredits_per_unit: int
    reserve_units: int
    tiers: tuple[Tier, ...] = ()
    included_units: int = 0
    reserve_from: tuple[Source, ...] = ()
    # None: RESERVED for an answer that was complete, ESTIMATE for one that was cut.
    on_missing: OnMissing | None = None
    # What suggests how many units have passed; None: what the kind of answer does (see meters).
    estimate_from: Source | None = None
    estimate_per_unit: int = 1  # how many of what `estimate_from` counts make one unit


def named_sources(meter: MeterSpec) -> tuple[Source, ...]:
    """All sources that a meter reads of an answer, those of its estimate included."""
    if meter.estimate_from is None:
        return meter.sources
    return (*meter.sources, meter.estimate_from)


@dataclass(frozen=True, slots=True)
class RpcPrices:
    """What JSON-RPC calls cost in microcredits, beside the rest of the price; others are free."""

    tools: Mapping[str, int] = field(default_factory=dict)  # of `tools/call`, by the tool's name
    default_tool: int = 0
    methods: Mapping[str, int] = field(default_factory=dict)
    tool_error: Rule = Rule.NOTHING  # what a call costs whose answer is an error, or `isError`


@dataclass(frozen=True, slots=True)
class Price:
    """`per_request + sum of units x unit price`, kept between minimum and maximum (None: none)."""

    version: int = 0
    per_request_microcredits: int = 0
    minimum_microcredits: int = 0
    maximum_microcredits: int | None = None
    meters: tuple[MeterSpec, ...] = ()
    table: Table | None = None
    rpc: RpcPrices | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Prices by a value of the request; each case is a whole price, with the same units in order.

    A value without a case costs what the price around the table says, or is refused.
    """

    source: Source
    cases: Mapping[str, Price]
    listed_only: bool = False


@dataclass(frozen=True, slots=True)
class TaskRule:
    """How an A2A route charges; a hold of a task lasts `lease_ms` after the task was heard of."""

    per: ChargePer = ChargePer.TASK
    lease_ms: int = 3_600_000


@dataclass(frozen=True, slots=True)
class WebSocketRule:
    """Bounds of a WebSocket, and how often its caller's credits and key are looked at."""

    message_max_bytes: int = 1_048_576
    check_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Milliseconds that each phase of an upstream call may take."""

    connect_ms: int = 5_000
    first_byte_ms: int = 60_000
    idle_ms: int = 60_000
    total_ms: int = 120_000


@dataclass(frozen=True, slots=True)
class Limits:
    """How often calls may come and how many may run at once; 0: no limit.

    `burst` is how many may come together under the rate per second or, where there is none, under
    the rate per minute; 0: as many as the rate allows in its second or minute.
    """

    requests_per_second: int = 0
    requests_per_minute: int = 0
    burst: int = 0
    requests_per_month: int = 0
    concurrency: int = 0


@dataclass(frozen=True, slots=True)
class Caps:
    """Most that may be spent, in microcredits; 0: no cap. A running call counts what it holds.

    Days and months are UTC's. A session is what calls name in `X-Session-Id`.
    """

    day: int = 0
    month: int = 0
    total: int = 0
    session: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """A method and path pattern, an upstream, a price (None: `free = true`)."""

    name: str
    methods: tuple[str, ...]  # empty: any method
    pattern: str  # "/v1/chat/completions", "/agents/{id}/runs", "/files/**"
    upstream: str  # "http://host:port" (path kept) or with a path (prefix of the call's path)
    price: Price | None
    id: int = 0  # the database's; 0 before `apply`
    timeouts: Timeouts = Timeouts()
    errors: ErrorStyle = ErrorStyle.PROBLEM
    headers: tuple[tuple[str, str], ...] = ()  # injected; literals or env: / file: references
    rules: Mapping[Ending, Rule] = field(default_factory=lambda: DEFAULT_RULES)
    body_max_bytes: int = 2**31
    connections_max: int = 512  # per worker
    tls_ca_file: str | None = None
    limits: Limits = Limits()  # of each account on this route
    caps: Caps = Caps()  # of each account on this route; it has none per session
    # What an account may use on trust, per worker, while Redis is away. 0: calls are refused then.
    trust_microcredits: int = 0
    protocol: Protocol = Protocol.HTTP
    ensure_usage: str = ""  # "openai": streams are asked to report their usage
    task: TaskRule = TaskRule()  # of an A2A route
    websocket: WebSocketRule = WebSocketRule()
    # Whether its upstream may only be where the operator lets owners' upstreams be. Not in the
    # stored spec: it follows from who manages the route.
    guarded: bool = False


@dataclass(frozen=True, slots=True)
class PlanPrice:
    """What a plan costs for so many months."""

    months: int
    currency: str
    unit_amount: int  # in minor units


@dataclass(frozen=True, slots=True)
class Plan:
    """What an account of this plan gets: credits per period, and limits (0: none)."""

    slug: str
    credits_microcredits: int
    period: str = "month"
    requests_per_minute: int = 0
    requests_per_month: int = 0
    concurrency: int = 0
    requests_per_second: int = 0
    burst: int = 0
    quota_window: QuotaWindow = QuotaWindow.CALENDAR
    caps: Caps = Caps()  # of the account; `session` holds for each of its sessions
    overage_cap_microcredits: int = 0  # what a period may use beyond its grants; 0: nothing
    rollover_microcredits_max: int | None = 0  # what a period's rest may leave; None: all of it
    rollover_periods: int = 1  # how long it then lasts
    low_credits_microcredits: int = 0  # the mark below which the account is told; 0: none
    refund_expired: RefundExpired = RefundExpired.GRANT
    discount_basis_points: int = 0  # taken off every price; 10 000 is all of it
    prices: tuple[PlanPrice, ...] = ()  # none: it can't be bought, or Stripe's own prices hold
    trial_days: int = 0  # that its subscription begins with, unpaid; 0: none
    trial_microcredits: int | None = None  # given for these days; None: as for a period
    overage_price: OveragePrice | None = None  # None: what goes beyond the grants is not billed
    features: tuple[str, ...] = ()  # what else it has, for people

    @property
    def gives_nothing(self) -> bool:
        """Whether who paid for it could use nothing: it has no credits, and overage is blocked."""
        return not self.credits_microcredits and not self.overage_cap_microcredits

    @property
    def limits(self) -> Limits:
        """The plan's limits together."""
        return Limits(
            self.requests_per_second,
            self.requests_per_minute,
            self.burst,
            self.requests_per_month,
            self.concurrency,
        )


@dataclass(frozen=True, slots=True)
class Pack:
    """Credits that are sold once, in any number."""

    slug: str
    name: str
    credits_microcredits: int
    validity_days: int | None = None  # from when they were paid; None: for ever
    prices: tuple[Money, ...] = ()  # none: Stripe's own prices hold


@dataclass(frozen=True, slots=True)
class Platform:
    """A tenant of the gateway."""

    slug: str
    name: str = ""
    upgrade_url: str | None = None
    signup_plan: str | None = None  # of accounts made without one, and of those whose paid one ends
    trial_microcredits: int = 0  # given with the signup plan, for `trial_days`
    trial_days: int = 3

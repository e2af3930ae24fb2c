"""What the shard's scripts answer, as values: an admission, a settlement, or why neither came.

Denials are values, matched exhaustively by their type; only failures are exceptions. `allocation`
and `postings` stay the text that Redis replied ("12:1000 15:3"), because the hot path only passes
them on; `settlement.parse_postings` decodes them. `epoch` and `seq` are what the shard replied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple


class Admitted(NamedTuple):
    """The call may run.

    `remaining` is what another call could take now, negative in overage; the rpm values are 0
    without a rate limit; `counted` names the counters of caps and concurrency that it is in.
    """

    call_id: str
    epoch: int
    seq: int
    remaining: int
    allocation: str
    admitted_ms: int
    rpm_limit: int
    rpm_remaining: int
    counted: str = ""


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The key, or one that it was carved from, is revoked or expired, whatever a cache says."""


@dataclass(frozen=True, slots=True)
class AccountSuspended:
    """The account may not make calls."""


class RateLimited(NamedTuple):
    """More calls than allowed per second or minute; `source` is whose limit it is.

    A source is "account", "key", "route" (of an account on a route) or "session".
    """

    limit: int
    retry_after_ms: int
    source: str


class QuotaExceeded(NamedTuple):
    """The calls of this month or billing period are used up; it ends in `retry_after_ms`."""

    limit: int
    retry_after_ms: int
    source: str


class ConcurrencyLimited(NamedTuple):
    """As many calls as allowed at once are running."""

    limit: int
    source: str


class SpendCapReached(NamedTuple):
    """The call could spend more than a cap allows, counting what running calls hold.

    `window` is day, month (UTC), total or session; `retry_after_ms` 0 where time does not help.
    """

    source: str
    window: str
    limit: int
    spent: int
    retry_after_ms: int


class InsufficientCredits(NamedTuple):
    """The valid lots do not have `needed` microcredits available.

    Of a hold that can't be raised, `needed` is what it lacks, and `held` what other calls hold.
    """

    needed: int
    available: int
    held: int

    @property
    def in_flight(self) -> bool:
        """Whether running calls hold what is missing, so that trying again later can succeed."""
        return self.available + self.held >= self.needed


class TermsChanged(NamedTuple):
    """The account's discount is another than was assumed: compute its terms again, and ask again.

    `discount` in ten-thousandths.
    """

    discount: int


class GuardChanged(NamedTuple):
    """The key's guards have another version than was checked: read and check them, and ask again.

    `version` is that of the key now; 0: it has none any more.
    """

    version: int


class NotLoaded(NamedTuple):
    """The shard does not know this account or key yet: read it from Postgres and load it.

    The load must name this `seq`, which was replied before Postgres is read; see `lua/load.lua`.
    """

    epoch: int
    seq: int


class ShardLost(NamedTuple):
    """The shard is empty or of another epoch (STALE), has lost writes (REGRESSED), or is CLOSED.

    Closed is what it is while it is rebuilt.
    """

    kind: Literal["STALE", "REGRESSED", "CLOSED"]
    epoch: int
    seq: int


class Settled(NamedTuple):
    """The one settlement of a call, the same however often it is asked for."""

    charged: int
    uncollected: int
    remaining: int
    postings: str
    outbox_id: str
    settled_ms: int
    admitted_ms: int


class Moved(NamedTuple):
    """Not settled: the account stands elsewhere in graduated tiers than was assumed.

    `positions` are the units that it has used before in this billing period, one for each step that
    was told, in their order. Compute again what is owed, and settle again.
    """

    positions: tuple[int, ...]


class ExpiredFirst(NamedTuple):
    """Too late to settle: the hold had run out, and this is the settlement that it ended with."""

    settled: Settled


@dataclass(frozen=True, slots=True)
class AlreadySettled:
    """Too late to void or admit: this call id has been settled."""


class Voided(NamedTuple):
    """The hold is undone; nothing was charged."""

    remaining: int


@dataclass(frozen=True, slots=True)
class HoldGone:
    """The shard has no such hold: acknowledged, voided, or lost with an older epoch."""


class Raised(NamedTuple):
    """The call goes on, and holds so much now: no less than before, whatever was asked for.

    `remaining`, `allocation` and `counted` are those of an admission, as they are now.
    """

    held: int
    remaining: int
    allocation: str
    counted: str


@dataclass(frozen=True, slots=True)
class LeaseRunning:
    """Too early to expire this hold."""


class Parked(NamedTuple):
    """The hold lives with its task from now on; its text, if its call has ended, else ""."""

    text: str


@dataclass(frozen=True, slots=True)
class TaskTaken:
    """The task has another call's hold, which is live."""


class Touched(NamedTuple):
    """The record of a task, and whether the hold that it names is live, with its lease renewed."""

    record: str
    live: bool


class Withdrawn(NamedTuple):
    """What was taken from lots apart from a call; `outbox_id` is "" when there was nothing."""

    taken: int
    remaining: int
    postings: str
    outbox_id: str


@dataclass(frozen=True, slots=True)
class Carved:
    """The delegated key may make calls; its budget counts in its parent's cap."""


class CarveRefused(NamedTuple):
    """The parent's cap in total has less left than the budget: so much."""

    available_microcredits: int


@dataclass(frozen=True, slots=True)
class ChainTooLong:
    """The key would have more ancestors than `delegation.DELEGATION_DEPTH_MAX`."""


class GivenBack(NamedTuple):
    """What the key had not used is back with its parent.

    `counted_microcredits` still count there: what was charged, and what calls that still run hold.
    """

    counted_microcredits: int


@dataclass(frozen=True, slots=True)
class KeyAlive:
    """Too early to give back: neither the key nor one above it is revoked or expired."""


Admission = (
    Admitted
    | KeyRefused
    | AccountSuspended
    | RateLimited
    | QuotaExceeded
    | ConcurrencyLimited
    | SpendCapReached
    | InsufficientCredits
    | TermsChanged
    | GuardChanged
    | NotLoaded
    | ShardLost
    | AlreadySettled
)
Raising = (
    Raised
    | KeyRefused
    | AccountSuspended
    | InsufficientCredits
    | SpendCapReached
    | HoldGone
    | ShardLost
)
Settling = Settled | ExpiredFirst | HoldGone | ShardLost
Voiding = Voided | HoldGone | AlreadySettled | ShardLost
Expiring = Settled | Voided | LeaseRunning | HoldGone | ShardLost
LateSettling = Settled | ExpiredFirst | NotLoaded | ShardLost
Parking = Parked | TaskTaken | HoldGone | ShardLost
Withdrawing = Withdrawn | NotLoaded | ShardLost
Carving = (
    Carved | CarveRefused | ChainTooLong | KeyRefused | AccountSuspended | NotLoaded | ShardLost
)
GivingBack = GivenBack | KeyAlive | NotLoaded | ShardLost

"""What the shard's scripts answer, as values: an admission, a settlement, or why neither came.

Denials are values, matched exhaustively by their type; only failures are exceptions. `allocation`
and `postings` stay the text that Redis replied ("12:1000 15:3"), because the hot path only passes
them on; `settlement.parse_postings` decodes them. `epoch` and `seq` are what the shard replied.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.settlement import Posting


class Admitted(NamedTuple):
    """The call may run.

    `remaining` is what another call could take now; the rpm values are 0 without a rate limit.
    """

    call_id: str
    epoch: int
    seq: int
    remaining: int
    allocation: str
    admitted_ms: int
    rpm_limit: int
    rpm_remaining: int


@dataclass(frozen=True, slots=True)
class KeyRefused:
    """The key is revoked or expired, whatever a cache says."""


@dataclass(frozen=True, slots=True)
class AccountSuspended:
    """The account may not make calls."""


class RateLimited(NamedTuple):
    """More calls than the plan's per minute."""

    limit: int
    retry_after_ms: int


class QuotaExceeded(NamedTuple):
    """The calls of this calendar month (UTC) are used up; it ends in `retry_after_ms`."""

    limit: int
    retry_after_ms: int


class ConcurrencyLimited(NamedTuple):
    """As many calls as the plan allows at once are running."""

    limit: int


class InsufficientCredits(NamedTuple):
    """The valid lots do not have `needed` microcredits available."""

    needed: int
    available: int
    held: int

    @property
    def in_flight(self) -> bool:
        """Whether running calls hold what is missing, so that trying again later can succeed."""
        return self.available + self.held >= self.needed


class NotLoaded(NamedTuple):
    """The shard does not know this account or key yet: read it from Postgres and load it.

    The load must name this `seq`, which was replied before Postgres is read; see `lua/load.lua`.
    """

    epoch: int
    seq: int


class ShardLost(NamedTuple):
    """The shard is empty or of another epoch (STALE), or has lost writes (REGRESSED)."""

    kind: Literal["STALE", "REGRESSED"]
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


@dataclass(frozen=True, slots=True)
class AlreadySettled:
    """Too late to void or admit: this call id has been settled."""


class Voided(NamedTuple):
    """The hold is undone; nothing was charged."""

    remaining: int


@dataclass(frozen=True, slots=True)
class HoldGone:
    """The shard has no such hold: acknowledged, voided, or lost with an older epoch."""


@dataclass(frozen=True, slots=True)
class LeaseRunning:
    """Too early to expire this hold."""


Admission = (
    Admitted
    | KeyRefused
    | AccountSuspended
    | RateLimited
    | QuotaExceeded
    | ConcurrencyLimited
    | InsufficientCredits
    | NotLoaded
    | ShardLost
    | AlreadySettled
)
Settling = Settled | HoldGone | ShardLost
Voiding = Voided | HoldGone | AlreadySettled | ShardLost
Expiring = Settled | LeaseRunning | HoldGone | ShardLost


def format_postings(postings: Iterable[Posting]) -> str:
    """Postings as the scripts write them: "12:1000 15:3"."""
    return " ".join([f"{grant_id}:{microcredits}" for grant_id, microcredits in postings])

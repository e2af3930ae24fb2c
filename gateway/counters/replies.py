"""What the scripts' replies mean, as the values of `policies.decision` and a few of our own.

Every reply is `[status, epoch, seq, …]`; `policies/lua/*.lua` say what follows. The two hot ones,
an admitted and a settled call, are decoded in place by `Counters`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from gateway.counters.errors import CommandRefused
from policies.decision import (
    AccountSuspended,
    Admitted,
    AlreadySettled,
    ConcurrencyLimited,
    GuardChanged,
    HoldGone,
    InsufficientCredits,
    KeyRefused,
    NotLoaded,
    QuotaExceeded,
    Raised,
    RateLimited,
    ShardLost,
    SpendCapReached,
    TermsChanged,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.counters.keys import Shard
    from policies.decision import Admission, Raising

LOST: dict[bytes, Literal["STALE", "REGRESSED", "CLOSED"]] = {
    b"STALE": "STALE",
    b"REGRESSED": "REGRESSED",
    b"CLOSED": "CLOSED",
}


class Snapshot(NamedTuple):
    """One atomic look at an account: its hash, and its live holds' texts by call id.

    Epoch 0 says that the shard is empty.
    """

    epoch: int
    seq: int
    fields: dict[str, str]
    holds: dict[str, str]


class ServerFacts(NamedTuple):
    """What start-up checks ask of a Redis server."""

    version: str
    maxmemory_bytes: int
    maxmemory_policy: str
    aof_enabled: bool
    role: str


def admitted(call_id: str, reply: list[Any]) -> Admitted:
    """An admit's reply that is OK."""
    _, epoch, seq, remaining, allocation, now_ms, rpm_limit, rpm_remaining, *more = reply
    return Admitted(
        call_id,
        epoch,
        seq,
        remaining,
        allocation.decode(),
        now_ms,
        rpm_limit,
        rpm_remaining,
        more[0].decode() if more else "",
    )


def denial(reply: list[Any], state: Shard, needed: int) -> Admission:
    """An admit's reply that is not OK."""
    status = reply[0]
    if status == b"CREDITS":
        decision: Admission = InsufficientCredits(needed, reply[3], reply[4])
    elif status in _REFUSALS:
        decision = _REFUSALS[status](reply)
    elif status in _DENIALS:
        decision = _DENIALS[status](reply)
    else:
        return lost(reply)
    state.saw(reply[1], reply[2])
    return decision


def raising(reply: list[Any]) -> Raising:
    """A raise's reply."""
    status = reply[0]
    if status == b"OK":
        return Raised(reply[3], reply[4], reply[5].decode(), reply[6].decode())
    if status == b"CREDITS":
        return InsufficientCredits(reply[5], reply[3], reply[4])
    if status == b"GONE":
        return HoldGone()
    return _REFUSALS[status](reply) if status in _REFUSALS else lost(reply)


def not_loaded(reply: list[Any]) -> NotLoaded:
    """A LOAD reply: read the account from Postgres."""
    return NotLoaded(reply[1], reply[2])


def lost(reply: list[Any]) -> ShardLost:
    """A STALE, REGRESSED or CLOSED reply.

    Raises: CommandRefused when it is none of them: script and gateway are of different versions.
    """
    status, epoch, seq = reply[:3]
    if status not in LOST:
        raise CommandRefused(f"a script answered {status!r}, which this version does not know")
    return ShardLost(LOST[status], epoch, seq)


def snapshot(reply: list[Any]) -> Snapshot:
    """An inspect's reply."""
    epoch, seq, fields, holds = reply
    return Snapshot(epoch, seq, pairs(fields), pairs(holds))


def server_facts(info: bytes) -> ServerFacts:
    """The facts in an `INFO` text."""
    lines = (line.partition(":") for line in info.decode().splitlines() if ":" in line)
    facts = {name: value for name, _, value in lines}
    return ServerFacts(
        facts["redis_version"],
        int(facts["maxmemory"]),
        facts["maxmemory_policy"],
        facts["aof_enabled"] == "1",
        facts["role"],
    )


def pairs(flat: list[bytes]) -> dict[str, str]:
    """A flat list of names and values as a mapping."""
    return {
        name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)
    }


def _cap_reached(reply: list[Any]) -> SpendCapReached:
    _, _, _, source, window, limit, spent, retry_after_ms = reply
    return SpendCapReached(source.decode(), window.decode(), limit, spent, retry_after_ms)


# By status: what refuses a call both when it is admitted and when its hold is raised, and the rest.
_REFUSALS: dict[bytes, Callable[[list[Any]], KeyRefused | AccountSuspended | SpendCapReached]] = {
    b"KEY": lambda _: KeyRefused(),
    b"SUSPENDED": lambda _: AccountSuspended(),
    b"CAP": _cap_reached,
}
_DENIALS: dict[bytes, Callable[[list[Any]], Admission]] = {
    b"RATE": lambda reply: RateLimited(reply[3], reply[4], reply[5].decode()),
    b"QUOTA": lambda reply: QuotaExceeded(reply[3], reply[4], reply[5].decode()),
    b"CONCURRENCY": lambda reply: ConcurrencyLimited(reply[3], reply[4].decode()),
    b"TERMS": lambda reply: TermsChanged(reply[3]),
    b"GUARD": lambda reply: GuardChanged(reply[3]),
    b"LOAD": not_loaded,
    b"SETTLED": lambda _: AlreadySettled(),
}

"""Whether a Redis may be trusted with holds and balances, in sentences for whoever runs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.counters.replies import ServerFacts

VERSION_MIN = (6, 2)
NO_AOF = (
    "Redis keeps no append-only file: whenever it restarts, all accounts are read from Postgres "
    "again, and calls that ran lose their holds: set appendonly to yes"
)
NO_FSYNC = (
    "Redis leaves it to its host when the append-only file reaches the disk: should that host "
    "fail, some half minute of holds is lost: set appendfsync to everysec"
)


def refusal(facts: ServerFacts) -> str | None:
    """Why this server can't be used at all; None: it can.

    A `maxmemory` is nobody's mistake: where it is reached, new calls are refused and running ones
    still settle.
    """
    if tuple(map(int, facts.version.split(".")[:2])) < VERSION_MIN:
        return (
            f"Redis is {facts.version}, and 6.2 is the oldest version that can be used: update it"
        )
    if facts.role != "master":
        return (
            "this Redis is a replica, in which nothing can be reserved or charged: "
            "give the URL of its primary"
        )
    if facts.maxmemory_policy != "noeviction":
        return (
            f"Redis would evict holds and balances (maxmemory-policy {facts.maxmemory_policy}): "
            "set it to noeviction"
        )
    return None


def warnings(facts: ServerFacts, appendfsync: str | None) -> list[str]:
    """What makes losing data likelier than it has to be; `appendfsync` None: it is not told."""
    if not facts.aof_enabled:
        return [NO_AOF]
    return [NO_FSYNC] if appendfsync == "no" else []

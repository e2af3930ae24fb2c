"""Names in Redis: which shard an account lives in, and the keys of each script, packed once.

Every key of a shard carries its hash tag `{sNNN}`, so that a script touches one slot of a Redis
Cluster:

    tk:{s012}:meta       hash    epoch, seq, run (of the server that it was rebuilt on)
    tk:{s012}:a:<id>     hash    one account: limits, keys, lots, counters
    tk:{s012}:holds      hash    call id -> packed hold
    tk:{s012}:leases     zset    call id by 2 * deadline_ms + stage
    tk:{s012}:outbox     stream  settlements and other changes on their way to Postgres
    tk:{s012}:x:<id>:<session>   hash  what a session of an account spent
    tk:{s012}:t:<id>:<digest>    string  the call whose hold a task of an account has
    tk:{s012}:i:<id>:<digest>    hash    the call that has an idempotency key of an account
    tk:{s012}:ia:<id>:<digest>   string  its answer, for a while
    tk:{s012}:ib:<id>            string  bytes that answers of the account take
    tk:{s012}:old, :oldleases, :reports   of a shard that is being rebuilt
"""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING

from gateway.counters.resp import bulk, bulks

if TYPE_CHECKING:
    from gateway.counters.connection import Link


def shard_of(account_id: int, shards: int) -> int:
    """The shard of an account: fixed for ever, because `shards` is fixed at the first start."""
    return binascii.crc_hqx(b"%d" % account_id, 0) % shards


class Shard:
    """One shard as this process knows it: its names, its connection, the newest epoch and seq seen.

    Epoch 0 means that nothing is known yet. What is known only ever grows: a server that answers
    with less has lost data, and its scripts say so (`STALE`, `REGRESSED`).
    """

    __slots__ = (
        "epoch",
        "epoch_packed",
        "holds",
        "leases",
        "link",
        "meta",
        "number",
        "old",
        "oldleases",
        "outbox",
        "reports",
        "seq",
        "tag",
    )

    def __init__(self, number: int, link: Link) -> None:
        self.number = number
        self.link = link
        self.tag = f"tk:{{s{number:03d}}}"
        self.meta = f"{self.tag}:meta"
        self.holds = f"{self.tag}:holds"
        self.leases = f"{self.tag}:leases"
        self.outbox = f"{self.tag}:outbox"
        self.old = f"{self.tag}:old"
        self.oldleases = f"{self.tag}:oldleases"
        self.reports = f"{self.tag}:reports"
        self.epoch = 0
        self.epoch_packed = bulk(0)
        self.seq = 0

    def saw(self, epoch: int, seq: int) -> None:
        """Remember a script's answer, unless a newer one is known."""
        if epoch > self.epoch:
            self.epoch = epoch
            self.epoch_packed = bulk(epoch)
            self.seq = seq
        elif epoch == self.epoch and seq > self.seq:
            self.seq = seq


class AccountKeys:
    """The keys of one account's scripts, packed once; callers cache it with the account."""

    __slots__ = ("account_id", "five", "four", "leases", "name", "shard", "state", "two")

    def __init__(self, account_id: int, state: Shard) -> None:
        self.account_id = account_id
        self.shard = state.number
        self.state = state
        self.name = f"{state.tag}:a:{account_id}"
        self.two = bulks((state.meta, self.name))
        self.four = bulks((state.meta, self.name, state.holds, state.leases))
        self.five = self.four + bulk(state.outbox)
        self.leases = bulk(state.leases)

    def task(self, digest: str) -> str:
        """The key of what is known of one task of this account."""
        return f"{self.state.tag}:t:{self.account_id}:{digest}"

    def session(self, session: str) -> str:
        """The key of what one session of this account spent."""
        return f"{self.state.tag}:x:{self.account_id}:{session}"

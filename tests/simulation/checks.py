"""What must hold after every step, looked at in Redis itself: the shard and account just touched.

I1  per lot: available + held + settled + withdrawn is a total that the lot has had, and what is
    held is the sum of its calls' holds
I3  nothing below zero, so nothing is sold twice; no cap is passed by what calls hold and have spent
I4  every hold has a lease, every lease a hold, and none is over for more than 10 s while somebody
    was there to end it
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.simulation.cast import SHARDS
from tests.simulation.model import Lot, Violation
from tests.simulation.world import script_of

if TYPE_CHECKING:
    from tests.simulation.model import Account, Call
    from tests.simulation.world import World

LEASE_GRACE_MS = 10_000
# What the reaper and a loaded loop may add: its interval, and the steps of a round.
REAPER_MS = 3_000
# What a lot was given, in order: each sum is a total that it has had.
GIVEN = """
SELECT microcredits AS given FROM ledger_entries
WHERE grant_id = $1 AND account_id = $2 AND microcredits > 0
ORDER BY id
"""
DAY_MS = 86_400_000
OK = b"\r\nOK\r\n"
TAG = re.compile(rb"^(tk:\{s(\d+)\}):")


class HoldText(NamedTuple):
    """A live hold, as far as it is looked at."""

    account_id: int
    held: int
    due: int
    counted: str
    allocation: dict[int, int]


class Shard(NamedTuple):
    """A shard at one instant."""

    epoch: int
    seq: int | None
    holds: dict[str, HoldText]
    leases: dict[str, int]


class Checks:
    """Looks at what a command has touched."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._open_since_us: dict[int, int] = {}
        self._held_before: dict[int, set[str]] = {}
        self.calm_since_us = 0  # since when nothing keeps the reaper from its work

    def remember_holds(self) -> None:
        """Redis is about to lose its data: what it holds now must be there again afterwards."""
        for number in range(SHARDS):
            shard, _ = self._look(f"tk:{{s{number:03d}}}", [])
            if shard.seq is not None:
                self._held_before[number] = set(shard.holds)

    def _rebuilt(self, number: int, shard: Shard) -> None:
        """A shard was opened: the calls that lived through its loss hold what they held."""
        for call_id in self._held_before.pop(number, ()):
            call = self._world.model.calls[call_id]
            runs = call.process.runs and call.admitted_ms and call.owed is None
            if runs and not call.voided and call_id not in shard.holds:
                raise Violation(f"I3: a rebuilt shard lacks the hold of a running call: {call}")

    def disturb(self) -> None:
        """Somebody whose work is to end holds may be late from now on."""
        self.calm_since_us = self._world.loop.now_us

    def command(self, command: list[bytes], reply: bytes) -> None:
        """After a command of the product's."""
        script = script_of(command) if command[0] == b"EVALSHA" else ""
        if script == "extend":
            self._checkpoints(command[3 + int(command[2]) + 3 :], reply)
        if command[0] not in {b"EVALSHA", b"HDEL", b"ZREM", b"ZADD"}:
            return
        keys = command[3 : 3 + int(command[2])] if command[0] == b"EVALSHA" else command[1:2]
        match = TAG.match(keys[0])
        if match is None:
            return
        tag, number = match[1].decode(), int(match[2])
        shard, accounts = self._look(
            tag, [int(key.rpartition(b":")[2]) for key in keys if b":a:" in key]
        )
        if shard.seq is None or not shard.epoch:
            self._open_since_us.pop(number, None)
            return
        self._open_since_us.setdefault(number, self._world.loop.now_us)
        if script == "open" and OK in reply:
            self._rebuilt(number, shard)
        self._leases(shard, number)
        for account_id, fields in accounts.items():
            if fields and int(fields.get("epoch", 0)) == shard.epoch:
                self._account(account_id, fields, shard)
        if script in {"admit", "raise"} and OK in reply:
            self._caps(command[3 + int(command[2])].decode(), shard)

    def _checkpoints(self, calls: list[bytes], reply: bytes) -> None:
        """What is due from now on, should nothing more be heard of these calls."""
        if OK not in reply:
            return
        for call_id, _, due, _ in zip(*(iter(calls),) * 4, strict=True):
            call = self._world.model.calls[call_id.decode()]
            if due and call_id not in reply:
                call.checkpoint = int(due)

    def _look(self, tag: str, account_ids: list[int]) -> tuple[Shard, dict[int, dict[str, str]]]:
        meta, texts, scores, *hashes = self._world.redis.ask_all(
            [
                ("HMGET", f"{tag}:meta", "epoch", "seq"),
                ("HGETALL", f"{tag}:holds"),
                ("ZRANGE", f"{tag}:leases", 0, -1, "WITHSCORES"),
                *(("HGETALL", f"{tag}:a:{account_id}") for account_id in account_ids),
            ]
        )
        live = {
            call.decode(): parse_hold(text.decode())
            for call, text in _pairs(texts)
            if text.startswith(b"h|")
        }
        leases = {call.decode(): int(score) // 2 for call, score in _pairs(scores)}
        accounts = {
            account_id: {name.decode(): value.decode() for name, value in _pairs(fields)}
            for account_id, fields in zip(account_ids, hashes, strict=True)
        }
        seq = None if meta[1] is None else int(meta[1])
        return Shard(int(meta[0] or 0), seq, live, leases), accounts

    def _leases(self, shard: Shard, number: int) -> None:
        """I4."""
        if shard.holds.keys() != shard.leases.keys():
            odd = shard.holds.keys() ^ shard.leases.keys()
            raise Violation(f"I4: holds without lease or leases without hold: {odd}")
        late_us = (LEASE_GRACE_MS + REAPER_MS) * 1_000
        since_us = max(self.calm_since_us, self._open_since_us[number])
        for call_id, deadline_ms in shard.leases.items():
            if max(deadline_ms * 1_000, since_us) + late_us < self._world.loop.now_us:
                raise Violation(f"I4: the hold of {call_id} outlives its lease ({deadline_ms})")

    def _account(self, account_id: int, fields: dict[str, str], shard: Shard) -> None:
        """I1 and I3 of one loaded account."""
        mine = [hold for hold in shard.holds.values() if hold.account_id == account_id]
        if int(fields["running"]) != len(mine):
            raise Violation(f"account {account_id} runs {fields['running']} calls, not {len(mine)}")
        account = self._world.model.accounts[account_id]
        for token in fields["lots"].split():
            grant_id = int(token.rstrip("o"))
            held_by_calls = sum(hold.allocation.get(grant_id, 0) for hold in mine)
            a, h, s, w = (int(fields.get(f"{name}:{grant_id}", "0")) for name in "ahsw")
            if min(a, h, s, w) < 0:
                raise Violation(f"I3: grant {grant_id} has {a=} {h=} {s=} {w=}")
            if h != held_by_calls:
                raise Violation(f"I1: grant {grant_id} holds {h}, its calls {held_by_calls}")
            if a + h + s + w not in self._lot(account, grant_id).totals:
                self._learn(account, grant_id)
            if a + h + s + w not in (totals := self._lot(account, grant_id).totals):
                raise Violation(
                    f"I1: grant {grant_id} has {a=} {h=} {s=} {w=}, together {a + h + s + w}; "
                    f"it has had {totals}"
                )

    def _lot(self, account: Account, grant_id: int) -> Lot:
        lot = account.lots.get(grant_id)
        if lot is None:
            lot = account.lots[grant_id] = Lot(grant_id, account.account_id, [])
        return lot

    def _learn(self, account: Account, grant_id: int) -> None:
        """A lot may have been given, or added to, since it was last looked at in Postgres."""
        given = self._world.postgres.fetch(GIVEN, grant_id, account.account_id)
        if not given:
            raise Violation(f"account {account.account_id} has no grant {grant_id}")
        self._lot(account, grant_id).totals = list(accumulate(row["given"] for row in given))

    def _caps(self, call_id: str, shard: Shard) -> None:
        """I3: no cap is passed by what its calls hold and have cost, by the model's account."""
        model, now_ms = self._world.model, self._world.now_ms()
        call = model.calls[call_id]
        account = model.accounts[call.account_id]
        day_ms, month_ms = now_ms - now_ms % DAY_MS, month_begin_ms(now_ms)
        mine = [one for one in model.calls.values() if one.account_id == call.account_id]
        of_key = [one for one in mine if one.key_id == call.key_id]
        of_session = [one for one in mine if call.session and one.session == call.session]
        possible = account.key_caps[call.key_id]
        told_ms = account.key_caps_ms.get(call.key_id, 0)
        caps = (
            ("account day", account.caps.day, mine, day_ms),
            ("account month", account.caps.month, mine, month_ms),
            ("session", account.caps.session, of_session, 0),
            ("key total", _widest([total for total, _ in possible]), of_key, told_ms),
            ("key day", _widest([day for _, day in possible]), of_key, max(day_ms, told_ms)),
        )
        for name, cap, calls, since_ms in caps:
            spent = sum(_least(one, shard) for one in calls if one.admitted_ms >= since_ms)
            spent += shard.holds[call_id].held if not call.admitted_ms else 0
            if 0 < cap < spent:
                raise Violation(f"the cap {name} of {cap} is passed by {spent}: {call}")


def _least(call: Call, shard: Shard) -> int:
    """What a call counts in caps for certain: its hold, or what its caller was told that it cost.

    No more than it held: what a call costs beyond that is allowed to pass a cap.
    """
    hold = shard.holds.get(call.call_id)
    if hold is not None:
        return hold.held if call.admitted_ms else 0
    certain = call.told and not call.voided and not call.lost_data and not call.uncertain
    return min(call.told_charged, max(call.held, call.tariff.ceiling)) if certain else 0


def _widest(caps: list[int]) -> int:
    """The one that allows most; 0 is none."""
    return 0 if 0 in caps else max(caps)


def month_begin_ms(now_ms: int) -> int:
    """When this month began, UTC."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp() * 1000)


def parse_hold(text: str) -> HoldText:
    """A text that begins with h|."""
    _, account_id, _, held, due, _, counted, allocation, _ = text.split("|", 8)
    parts = (part.split(":") for part in allocation.split())
    return HoldText(
        int(account_id),
        int(held),
        int(due),
        counted,
        {int(token.rstrip("o")): int(amount) for token, amount in parts},
    )


def _pairs(flat: list[Any]) -> Any:
    return zip(flat[::2], flat[1::2], strict=True)

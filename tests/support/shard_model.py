"""What a shard's scripts must do, in plain Python: replies and complete state, for a given time.

Built on `policies.burndown` and `policies.limits`, so that these and the Lua are held against each
other. One method per script; arguments are those of the script, replies are its replies with text
for bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies import burndown, limits
from policies.burndown import Lot
from policies.decision import format_postings
from policies.settlement import Posting

if TYPE_CHECKING:
    from collections.abc import Mapping

Reply = list[int | str]


@dataclass
class Account:
    """A loaded account, or (`epoch` None) the note that it was amended while it was not loaded."""

    epoch: int | None = None
    amended: tuple[int, int] | None = None
    facts: dict[str, str] = field(default_factory=dict)
    order: list[int] = field(default_factory=list)
    lots: dict[int, Lot] = field(default_factory=dict)
    running: int = 0
    tat_us: int = 0
    month_end_ms: int = 0
    count: int = 0

    def in_order(self) -> list[Lot]:
        return [self.lots[grant_id] for grant_id in self.order]

    def change(self, grant_id: int, *, available: int = 0, held: int = 0, settled: int = 0) -> None:
        lot = self.lots[grant_id]
        self.lots[grant_id] = lot._replace(
            available=lot.available + available,
            held=lot.held + held,
            settled=lot.settled + settled,
        )

    def limit(self, name: str) -> int:
        return int(self.facts[name])


@dataclass(frozen=True)
class Hold:
    account_id: int
    admitted_ms: int
    held: int
    floor: int
    allocation: tuple[Posting, ...]
    context: str
    deadline_ms: int

    def text(self) -> str:
        parts = (self.account_id, self.admitted_ms, self.held, self.floor)
        return f"h|{'|'.join(map(str, parts))}|{format_postings(self.allocation)}|{self.context}"


@dataclass(frozen=True)
class SettledHold:
    reply: tuple[int | str, ...]  # from `charged` on

    def text(self) -> str:
        return "s|" + "|".join(map(str, self.reply))


@dataclass
class ShardModel:
    meta: tuple[int, int] | None = None
    accounts: dict[int, Account] = field(default_factory=dict)
    holds: dict[str, Hold | SettledHold] = field(default_factory=dict)
    outbox: dict[str, dict[str, str]] = field(default_factory=dict)
    now_us: int = 0

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    def open(self, epoch: int, lost: int) -> Reply:
        found = self.meta or (0, 0)
        if found[0] != lost:
            return ["KEPT", *found]
        self.meta = (epoch, 0)
        self.holds.clear()
        return ["OK", epoch, 0]

    def load(
        self, account_id: int, epoch: int, seq: int, force: int, fields: Mapping[str, str]
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        keys = {name: value for name, value in fields.items() if name.startswith("k:")}
        old = self.accounts.get(account_id, Account())
        if old.epoch == self._epoch:
            if not force:
                added = keys.keys() - old.facts.keys()
                old.facts.update({name: keys[name] for name in added})
                return self._wrote("KEPT") if added else self._reply("KEPT")
            if old.running:
                return self._reply("BUSY")
        if old.amended and old.amended[0] == self._epoch and old.amended[1] > seq:
            return self._reply("LOAD")
        order = [int(grant_id) for grant_id in fields["lots"].split()]
        month = fields.get("month")
        self.accounts[account_id] = Account(
            epoch=self._epoch,
            facts={name: fields[name] for name in ("status", "rpm", "rpmonth", "conc")} | keys,
            order=order,
            lots={
                grant_id: Lot(
                    grant_id=grant_id,
                    available=int(fields[f"a:{grant_id}"]),
                    held=0,
                    settled=int(fields[f"s:{grant_id}"]),
                    expires_ms=int(fields[f"e:{grant_id}"]),
                    effective_ms=int(fields[f"f:{grant_id}"]),
                    priority=0,
                    created_ms=0,
                )
                for grant_id in order
            },
            month_end_ms=_month_end_ms(int(month)) if month else 0,
            count=int(fields.get("count", "0")),
        )
        return self._wrote("OK")

    def amend(self, account_id: int, epoch: int, seq: int, fields: Mapping[str, str]) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account:
            return self._amended_unloaded(account_id)
        account.facts.update(fields)
        return self._wrote("OK")

    def grant(
        self,
        account_id: int,
        epoch: int,
        seq: int,
        grant_id: int,
        amount: int,
        expires_ms: int,
        effective_ms: int,
        order: list[int],
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account:
            return self._amended_unloaded(account_id)
        if grant_id in account.lots:
            return self._reply("KEPT")
        account.lots[grant_id] = Lot(grant_id, amount, 0, 0, expires_ms, effective_ms, 0, 0)
        known = [lot for lot in order if lot in account.lots]
        account.order = list(dict.fromkeys(known + account.order))
        return self._wrote("OK")

    def admit(
        self,
        account_id: int,
        call_id: str,
        epoch: int,
        seq: int,
        key_id: int,
        amount: int,
        lease_ms: int,
        floor: int,
        context: str,
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account:
            return self._reply("LOAD")
        rpm = account.limit("rpm")
        remaining = burndown.remaining(account.in_order(), self.now_ms)
        if stored := self.holds.get(call_id):
            if isinstance(stored, SettledHold):
                return self._reply("SETTLED")
            rate = limits.rate(rpm, account.tat_us, self.now_us, calls=0) if rpm else None
            return self._admitted(stored, remaining, rpm, rate)
        rate = limits.rate(rpm, account.tat_us, self.now_us) if rpm else None
        quota = self._quota(account)
        if denial := (
            self._person_denial(account, key_id)
            or self._limit_denial(account, rate, quota)
            or self._credit_denial(account, amount)
        ):
            return denial
        allocation = burndown.allocate(account.in_order(), amount, self.now_ms) or ()
        for grant_id, part in allocation:
            account.change(grant_id, available=-part, held=part)
        account.running += 1
        if rate or quota:
            account.tat_us = rate.tat_us if rate else 0
            account.month_end_ms, account.count = quota or (0, 0)
        hold = Hold(
            *(account_id, self.now_ms, amount, floor, allocation, context),
            deadline_ms=self.now_ms + lease_ms,
        )
        self.holds[call_id] = hold
        self._wrote("OK")
        return self._admitted(hold, remaining - amount, rpm, rate)

    def settle(
        self,
        account_id: int,
        call_id: str,
        epoch: int,
        seq: int,
        owed: int,
        result: str,
        outbox_id: str,
    ) -> Reply:
        """`outbox_id` is what the stream would name a new entry."""
        if refusal := self._gate(epoch, seq):
            return refusal
        hold = self.holds.get(call_id)
        match hold:
            case None:
                return self._reply("GONE")
            case SettledHold():
                return self._reply("OK", *hold.reply)
        return self._end(call_id, hold, owed, result, outbox_id)

    def expire(self, account_id: int, call_id: str, epoch: int, seq: int, outbox_id: str) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        hold = self.holds.get(call_id)
        if isinstance(hold, Hold):
            if hold.deadline_ms > self.now_ms:
                return self._reply("EARLY")
            return self._end(call_id, hold, hold.floor, "unknown,0,,", outbox_id)
        return self.settle(account_id, call_id, epoch, seq, 0, "", outbox_id)

    def void(self, account_id: int, call_id: str, epoch: int, seq: int) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        hold = self.holds.get(call_id)
        if isinstance(hold, SettledHold):
            return self._reply("SETTLED")
        account = self._has_lots(account_id)
        if not hold or not account:
            return self._reply("GONE")
        for grant_id, part in self._still_held(account, hold):
            account.change(grant_id, available=part, held=-part)
        account.running = max(account.running - 1, 0)
        del self.holds[call_id]
        return self._wrote("OK", burndown.remaining(account.in_order(), self.now_ms))

    def acknowledge(self, call_id: str, outbox_id: str) -> None:
        """Not a script: what the writer does once the settlement is in Postgres."""
        self.holds.pop(call_id, None)
        self.outbox.pop(outbox_id, None)

    @property
    def _epoch(self) -> int:
        assert self.meta
        return self.meta[0]

    def _reply(self, status: str, *rest: int | str) -> Reply:
        return [status, *(self.meta or (0, 0)), *rest]

    def _wrote(self, status: str, *rest: int | str) -> Reply:
        assert self.meta
        self.meta = (self.meta[0], self.meta[1] + 1)
        return self._reply(status, *rest)

    def _gate(self, epoch: int, seq: int) -> Reply | None:
        if not self.meta or (epoch and epoch != self.meta[0]):
            return self._reply("STALE")
        return self._reply("REGRESSED") if epoch and self.meta[1] < seq else None

    def _loaded(self, account_id: int) -> Account | None:
        account = self.accounts.get(account_id)
        return account if account and account.epoch == self._epoch else None

    def _has_lots(self, account_id: int) -> Account | None:
        account = self.accounts.get(account_id)
        return account if account and account.epoch is not None else None

    def _amended_unloaded(self, account_id: int) -> Reply:
        reply = self._wrote("LOAD")
        assert self.meta
        self.accounts.setdefault(account_id, Account()).amended = self.meta
        return reply

    def _person_denial(self, account: Account, key_id: int) -> Reply | None:
        key_expires_ms = account.facts.get(f"k:{key_id}")
        if key_expires_ms is None:
            return self._reply("LOAD")
        if key_expires_ms != "0" and int(key_expires_ms) <= self.now_ms:
            return self._reply("KEY")
        if account.facts["status"] != "active":
            return self._reply("SUSPENDED")
        return None

    def _quota(self, account: Account) -> tuple[int, int] | None:
        """The month's end and the count with this call, if there is a quota."""
        if not account.limit("rpmonth"):
            return None
        if account.month_end_ms <= self.now_ms:
            return limits.month_end_ms(self.now_ms), 1
        return account.month_end_ms, account.count + 1

    def _limit_denial(
        self, account: Account, rate: limits.Rate | None, quota: tuple[int, int] | None
    ) -> Reply | None:
        rpm, rpmonth, conc = map(account.limit, ("rpm", "rpmonth", "conc"))
        if rate and rate.retry_after_ms:
            return self._reply("RATE", rpm, rate.retry_after_ms)
        if quota and quota[1] > rpmonth:
            return self._reply("QUOTA", rpmonth, quota[0] - self.now_ms)
        if conc and account.running >= conc:
            return self._reply("CONCURRENCY", conc)
        return None

    def _credit_denial(self, account: Account, amount: int) -> Reply | None:
        lots = account.in_order()
        if burndown.allocate(lots, amount, self.now_ms) is not None:
            return None
        held = sum(lot.held for lot in lots if lot.spendable(self.now_ms))
        return self._reply("CREDITS", burndown.remaining(lots, self.now_ms), held)

    def _admitted(self, hold: Hold, remaining: int, rpm: int, rate: limits.Rate | None) -> Reply:
        left = rate.remaining if rate else 0
        allocation = format_postings(hold.allocation)
        return self._reply("OK", remaining, allocation, hold.admitted_ms, rpm, left)

    def _still_held(self, account: Account, hold: Hold) -> list[Posting]:
        """The hold's parts, as far as the account (perhaps deleted and loaded since) has them."""
        return [
            Posting(grant_id, min(part, account.lots[grant_id].held))
            for grant_id, part in hold.allocation
            if grant_id in account.lots
        ]

    def _end(self, call_id: str, hold: Hold, owed: int, result: str, outbox_id: str) -> Reply:
        account = self._has_lots(hold.account_id)
        if not account:
            return self._reply("GONE")
        parts = self._still_held(account, hold)
        charged, released, excess = burndown.split(parts, owed)
        for grant_id, part in parts:
            account.change(grant_id, held=-part)
        for grant_id, part in released:
            account.change(grant_id, available=part)
        drawn, uncollected = burndown.draw(account.in_order(), excess, self.now_ms)
        for grant_id, part in drawn:
            account.change(grant_id, available=-part)
        totals = dict.fromkeys((part.grant_id for part in parts), 0)
        for grant_id, part in charged + drawn:
            account.change(grant_id, settled=part)
            totals[grant_id] = totals.get(grant_id, 0) + part
        postings = format_postings(Posting(*total) for total in totals.items() if total[1])
        account.running = max(account.running - 1, 0)
        remaining = burndown.remaining(account.in_order(), self.now_ms)
        settled = SettledHold(
            (
                *(owed - uncollected, uncollected, remaining, postings, outbox_id),
                *(self.now_ms, hold.admitted_ms),
            )
        )
        self.holds[call_id] = settled
        entry = (call_id, hold.context, hold.held, hold.admitted_ms, self.now_ms)
        entry += (owed - uncollected, uncollected, postings, result)
        self.outbox[outbox_id] = dict(zip("ixmtncupr", map(str, entry), strict=True))
        return self._wrote("OK", *settled.reply)


def _month_end_ms(month: int) -> int:
    """The end of a month yyyymm, found from a time that is surely within it."""
    end_ms = 0
    for _ in range((month // 100 - 1970) * 12 + month % 100):
        end_ms = limits.month_end_ms(end_ms)
    return end_ms


def account_fields(account: Account) -> dict[str, str]:
    """The account's hash, as Redis has it."""
    fields: dict[str, str | int] = {}
    if account.amended:
        fields |= {"amended_epoch": account.amended[0], "amended_seq": account.amended[1]}
    if account.epoch is not None:
        fields |= account.facts
        fields |= {"epoch": account.epoch, "lots": " ".join(map(str, account.order))}
        fields |= {"running": account.running, "tat": account.tat_us}
        fields |= {"month_end": account.month_end_ms, "count": account.count}
    for lot in account.lots.values():
        values = {"a": lot.available, "h": lot.held, "s": lot.settled}
        values |= {"e": lot.expires_ms, "f": lot.effective_ms}
        fields |= {f"{name}:{lot.grant_id}": value for name, value in values.items()}
    return {name: str(value) for name, value in fields.items()}

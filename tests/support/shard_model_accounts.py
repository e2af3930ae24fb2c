"""The half of the reference model that seeds and changes accounts, and closes and opens shards."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies import burndown, limits
from policies.burndown import Lot
from policies.delegation import parse_share
from policies.settlement import parse_postings
from tests.support.shard_model_state import (
    Account,
    Changed,
    Ended,
    Hold,
    Settled,
    Withdrawn,
    counter,
    is_counter,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.delegation import Share

Reply = list[int | str]

_IN_TOTAL = re.compile(r"K(\d+)\.ct")


@dataclass
class AccountsModel:
    """`load`, `amend`, `credit`, `withdraw`; `close`, `restore`, `open`, `resume`; and the state.

    `meta` is epoch and seq; a closed shard has no seq, an empty one no meta.
    """

    meta: tuple[int, int | None] | None = None
    run: str | None = None  # the run of the server that it is used on
    accounts: dict[int, Account] = field(default_factory=dict)
    holds: dict[str, Hold | Ended | Changed] = field(default_factory=dict)
    outbox: dict[str, Settled | Withdrawn] = field(default_factory=dict)
    sessions: dict[tuple[int, str], dict[str, int]] = field(default_factory=dict)
    old_holds: dict[str, str] = field(default_factory=dict)
    old_scores: dict[str, int] = field(default_factory=dict)
    reports: dict[str, str] = field(default_factory=dict)
    now_us: int = 0

    @property
    def now_ms(self) -> int:
        return self.now_us // 1000

    @property
    def seen(self) -> tuple[int, int]:
        """Epoch and seq as a reply tells them."""
        epoch, seq = self.meta or (0, 0)
        return epoch, seq or 0

    @property
    def closed(self) -> bool:
        return self.meta is not None and self.meta[1] is None

    # Accounts.

    def load(
        self, account_id: int, epoch: int, seq: int, force: int, fields: Mapping[str, str]
    ) -> Reply:
        if refusal := self._gate(epoch, seq, rebuilding=True):
            return refusal
        keys = {name: value for name, value in fields.items() if name.startswith("k:")}
        counters = {name: value for name, value in fields.items() if is_counter(name)}
        shares = {int(name[2:]): text for name, text in fields.items() if name[:2] == "p:"}
        old = self.accounts.get(account_id, Account())
        if old.epoch == self.seen[0]:
            if not force:
                return self._add_to_loaded(old, keys, fields)
            if old.running and not self.closed:
                return self._reply("BUSY")
        if old.amended and old.amended[0] == self.seen[0] and old.amended[1] > seq:
            return self._reply("LOAD")
        month = fields.get("month")
        facts = {name: fields[name] for name in ("status", "rpm", "rpmonth", "conc", "rules")}
        lots = [self._seeded_lot(token, fields) for token in fields["lots"].split()]
        self.accounts[account_id] = Account(
            epoch=self.seen[0],
            facts=facts | keys,
            order=[lot.grant_id for lot in lots],
            lots={lot.grant_id: lot for lot in lots},
            counters=counters,
            shares={key_id: parse_share(text) for key_id, text in shares.items()},
            running=int(fields.get("running", "0")),
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
        for name, value in fields.items():
            if name.startswith("k:") and "ct:" not in value:
                account.counters.pop(f"K{name[2:]}.ct", None)
        for name, value in fields.items():
            if is_counter(name):
                if name not in account.counters:
                    account.counters[name] = begun(name, fields, account.shares)
            elif not name.startswith("p:"):
                account.facts[name] = value
        return self._wrote("OK")

    def credit(
        self,
        account_id: int,
        epoch: int,
        seq: int,
        grant_id: int,
        total: int,
        settled: int,
        withdrawn: int,
        expires_ms: int,
        effective_ms: int,
        order: str,
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account:
            return self._amended_unloaded(account_id)
        before = (account.order_text(), account.lots.get(grant_id))
        lot = account.lots.get(grant_id)
        if not lot:
            rest = total - settled - withdrawn
            lot = Lot(grant_id, rest, 0, settled, 0, 0, 0, 0, withdrawn, f"{grant_id}o" in order)
        known = lot.available + lot.held + lot.settled + lot.withdrawn
        account.lots[grant_id] = lot._replace(
            available=lot.available + max(total - known, 0),
            expires_ms=expires_ms,
            effective_ms=effective_ms,
        )
        told = [int(token.rstrip("o")) for token in order.split()]
        named = [lot for lot in told if lot in account.order or lot == grant_id]
        lots = account.lots
        kept = [lot for lot in account.order if lot in told or lots[lot].available + lots[lot].held]
        mixed = dict.fromkeys(named + kept)
        account.order = sorted(mixed, key=lambda lot: account.lots[lot].overage)
        if before == (account.order_text(), account.lots[grant_id]):
            return self._reply("KEPT")
        return self._wrote("OK")

    def withdraw(
        self,
        account_id: int,
        epoch: int,
        seq: int,
        change_id: str,
        kind: str,
        lot_id: int | str,
        amount: int | str,
        call_id: str,
        owner: str,
        outbox_id: str = "",
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account:
            return self._reply("LOAD")
        stored = self.holds.get(change_id)
        assert stored is None or isinstance(stored, Changed), "the script fails"
        if stored:
            change = self.outbox.get(stored.outbox_id)
            facts = (change.taken, change.postings) if isinstance(change, Withdrawn) else (0, "")
            return self._withdrawn(account, *facts, stored.outbox_id)
        wanted = sum(lot.available for lot in account.lots.values()) if amount == "all" else amount
        if lot_id == "":
            late = kind == "late"
            lots = [lot for lot in account.in_order() if late or not lot.overage]
            drawn = burndown.draw(lots, int(wanted), self.now_ms).postings
        else:
            lot = account.lots.get(int(lot_id))
            part = min(lot.available, int(wanted)) if lot else 0
            drawn = parse_postings(f"{lot_id}:{part}") if part else ()
        taken = sum(part for _, part in drawn)
        if not taken:
            return self._withdrawn(account, 0, "", "")
        to = "settled" if kind == "late" else "withdrawn"
        for grant_id, part in drawn:
            account.change(grant_id, **{"available": -part, to: part})
        postings = account.postings_text(drawn)
        self.holds[change_id] = Changed(outbox_id)
        self.outbox[outbox_id] = Withdrawn(
            change_id, kind, owner, self.now_ms, call_id, postings, taken
        )
        self._wrote("OK")
        return self._withdrawn(account, taken, postings, outbox_id)

    # The shard as a whole.

    def close(self, epoch: int, lost: int) -> Reply:
        if self.seen[0] != lost:
            return self._reply("KEPT")
        self.meta = (epoch, None)
        for call_id, hold in self.holds.items():
            if isinstance(hold, Hold):
                self.old_holds[call_id] = hold.text()
                self.old_scores[call_id] = max(self.old_scores.get(call_id, 0), hold.score)
        self.holds.clear()
        self.reports.clear()
        return self._reply("OK")

    def restore(self, epoch: int, worker_id: str, lease_ms: int, *calls: int | str) -> Reply:
        if not (self.closed and self.seen[0] == epoch):
            return self._reply("KEPT")
        for at in range(0, len(calls), 3):
            call_id, text, stage = calls[at : at + 3]
            score = 2 * (self.now_ms + lease_ms) + int(stage)
            self.holds[str(call_id)] = parse_hold(str(text), score)
        if worker_id and not calls:
            self.reports[worker_id] = str(epoch)
        return self._reply("OK")

    def open(self, epoch: int) -> Reply:
        if not (self.closed and self.seen[0] == epoch):
            return self._reply("KEPT")
        self.meta = (epoch, 1)
        for put_aside in (self.old_holds, self.old_scores, self.reports):
            put_aside.clear()
        return self._reply("OK")

    def resume(self, run: str) -> Reply:
        if self.meta is None or self.run == run:
            return self._reply("OK")
        self.run = run
        if self.closed:
            self.meta = None
            return self._reply("STALE")
        self.meta = (self.seen[0], None)
        return self._reply("CLOSED")

    # What they are made of.

    def _reply(self, status: str, *rest: int | str) -> Reply:
        return [status, *self.seen, *rest]

    def _wrote(self, status: str, *rest: int | str) -> Reply:
        """A closed shard keeps no seq."""
        epoch, seq = self.meta or (0, None)
        if seq is not None:
            self.meta = (epoch, seq + 1)
        return self._reply(status, *rest)

    def _gate(self, epoch: int, seq: int, *, rebuilding: bool = False) -> Reply | None:
        if not self.meta:
            return self._reply("STALE")
        if self.closed:
            return None if rebuilding and epoch == self.meta[0] else self._reply("CLOSED")
        if epoch and epoch != self.meta[0]:
            return self._reply("STALE")
        return self._reply("REGRESSED") if epoch and self.seen[1] < seq else None

    def _known(self, account_id: int) -> Account | None:
        """The account, of whatever epoch."""
        account = self.accounts.get(account_id)
        return account if account and account.epoch is not None else None

    def _loaded(self, account_id: int) -> Account | None:
        account = self.accounts.get(account_id)
        return account if account and account.epoch == self.seen[0] else None

    def _amended_unloaded(self, account_id: int) -> Reply:
        reply = self._wrote("LOAD")
        self.accounts.setdefault(account_id, Account()).amended = self.seen
        return reply

    def _add_to_loaded(
        self, account: Account, keys: Mapping[str, str], fields: Mapping[str, str]
    ) -> Reply:
        new_keys = {name: keys[name] for name in keys.keys() - account.facts.keys()}
        new_counters = {
            name: begun(name, fields, {})
            for name in fields.keys() - account.counters.keys()
            if is_counter(name) and (not _IN_TOTAL.fullmatch(name) or f"k:{name[1:-3]}" in new_keys)
        }
        account.facts |= new_keys
        account.counters |= new_counters
        return self._wrote("KEPT") if new_keys or new_counters else self._reply("KEPT")

    def _seeded_lot(self, token: str, fields: Mapping[str, str]) -> Lot:
        grant_id = int(token.rstrip("o"))
        return Lot(
            grant_id=grant_id,
            available=int(fields[f"a:{grant_id}"]),
            held=int(fields.get(f"h:{grant_id}", "0")),
            settled=int(fields[f"s:{grant_id}"]),
            withdrawn=int(fields[f"w:{grant_id}"]),
            expires_ms=int(fields[f"e:{grant_id}"]),
            effective_ms=int(fields[f"f:{grant_id}"]),
            priority=0,
            created_ms=0,
            overage=token.endswith("o"),
        )

    def _withdrawn(self, account: Account, taken: int, postings: str, outbox_id: str) -> Reply:
        remaining = burndown.remaining(account.in_order(), self.now_ms)
        return self._reply("OK", taken, remaining, postings, outbox_id)


def parse_hold(text: str, score: int) -> Hold:
    """The hold of a text that a worker or the rebuilder gives back."""
    _, account_id, admitted_ms, held, due, units, counted, allocation, context = text.split("|", 8)
    return Hold(
        account_id=int(account_id),
        admitted_ms=int(admitted_ms),
        held=int(held),
        due=int(due),
        allocation=parse_postings(allocation),
        allocation_text=allocation,
        counted=tuple(counted.split()),
        context=context,
        score=score,
        units=units,
    )


def _month_end_ms(month: int) -> int:
    """The end of a month yyyymm, found from a time that is surely within it."""
    end_ms = 0
    for _ in range((month // 100 - 1970) * 12 + month % 100):
        end_ms = limits.month_end_ms(end_ms)
    return end_ms


def begun(name: str, fields: Mapping[str, str], here: Mapping[int, Share]) -> str:
    """What a new counter begins with; of shares in it, those that are here count."""
    match = _IN_TOTAL.fullmatch(name)
    if match is None:
        return fields[name]
    own = int(match[1])
    told = {int(field[2:]): parse_share(text) for field, text in fields.items() if field[0] == "p"}
    told = {key_id: share for key_id, share in told.items() if share.parent_key_id == own}
    used = counter(fields[name]).used
    for key_id, share in told.items():
        used -= share.budget_microcredits
        if key_id not in here:
            used += counter(fields.get(f"K{key_id}.ct")).used
    used += sum(share.counted_microcredits for share in here.values() if share.parent_key_id == own)
    return f"0:{max(used, 0)}"

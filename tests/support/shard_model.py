"""What a shard's scripts must do, in plain Python: replies and complete state, for a given time.

Written from the scripts' contracts, on `policies.burndown` and `policies.limits`, so that these and
the Lua are held against each other. One method per script; arguments are those of the script,
replies are its replies with text for bytes. `outbox_id` is what the stream would name a new entry.

Calls are in this file; accounts, and shards that close and open, in `shard_model_accounts`; keys
and what is carved out of them in `shard_model_delegation`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from policies import burndown, limits
from policies.settlement import Posting
from tests.support import shard_model_rules as rules
from tests.support import shard_model_tiers as tiers
from tests.support.shard_model_delegation import DelegationModel
from tests.support.shard_model_state import Account, Changed, Ended, Hold, Settled, token

if TYPE_CHECKING:
    from tests.support.shard_model_accounts import Reply


class Ask(NamedTuple):
    """What a call asks of rules."""

    key_id: int
    amount: int
    route_rules: str
    session: str


@dataclass
class ShardModel(DelegationModel):
    """`admit`, `raise_hold`, `settle`, `void`, `expire`, `extend`, `late`; others are inherited."""

    def admit(
        self,
        account_id: int,
        call_id: str,
        epoch: int,
        seq: int,
        key_id: int,
        amount: int,
        lease_ms: int,
        due: int,
        context: str,
        route_rules: str = "",
        session: str = "",
        discount: int = 0,
        guard: int = 0,
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account = self._loaded(account_id)
        if not account:
            return self._reply("LOAD")
        if stored := self.holds.get(call_id):
            return self._again(account, stored)
        ask = Ask(key_id, amount, route_rules, session)
        rate, quota = self._fast_rate(account), self._fast_quota(account)
        denial = self._person_denial(account, key_id) or self._guard_denial(account, key_id, guard)
        denial = denial or self._terms_denial(account, discount)
        if denial := denial or self._fast_denial(account, rate, quota):
            return denial
        asked = self._ask_rules(account_id, account, ask)
        if refused := asked.refusal or self._credit_denial(account, amount):
            return self._reply(*refused)
        minutes = [(account.limit("rpm"), rate.remaining)] if rate else []
        minutes += [asked.minute] if asked.minute else []
        tightest = min(minutes, key=lambda minute: minute[1], default=(0, 0))
        hold = Hold(
            account_id=account_id,
            admitted_ms=self.now_ms,
            held=amount,
            due=due,
            allocation=(),
            allocation_text="",
            counted=tuple(asked.counted),
            context=context,
            score=2 * (self.now_ms + lease_ms),
        )
        if lease_ms:
            self._keep_fast(account, rate, quota)
            self._take(account, hold, asked)
            self.holds[call_id] = hold
        reply = self._admitted(account, hold, *tightest)
        if not lease_ms:  # a dry run: nothing was held, but it is told what would be left
            reply[3] = int(reply[3]) - amount
        return reply

    def raise_hold(
        self,
        account_id: int,
        call_id: str,
        epoch: int,
        seq: int,
        key_id: int,
        least: int,
        target: int,
        route_rules: str = "",
        session: str = "",
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        account, hold = self._loaded(account_id), self.holds.get(call_id)
        if not (account and isinstance(hold, Hold)):
            return self._reply("GONE")
        if denial := self._person_denial(account, key_id):
            return self._reply("KEY") if denial[0] == "LOAD" else denial
        if target <= hold.held:
            return self._raised(account, hold)

        spent = self.sessions.get((account_id, session), {})
        scopes = self._scopes(account, key_id, route_rules)
        places = rules.places(account.counters, spent, scopes, hold.counted, hold.held, self.now_ms)
        available = burndown.available(account.in_order(), self.now_ms)
        if least > hold.held and (
            refused := rules.cap_refusal(places, least, self.now_ms)
            or self._raise_denial(account, hold, least - hold.held)
        ):
            return self._reply(*refused)
        most = [place.limit - place.others for place in places if place.limit is not None]
        reachable = min([target, hold.held + available, *most])
        if reachable > hold.held:
            self._raise(account, hold, reachable, places, session)
        return self._raised(account, hold)

    def settle(
        self,
        account_id: int,
        call_id: str,
        epoch: int,
        seq: int,
        owed: int,
        result: str,
        outbox_id: str = "",
        session: str = "",
        steps: str = "",
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        match self.holds.get(call_id):
            case Hold() as hold:
                account = self._known(account_id)
                taken = [tiers.take(account, step, self.now_ms) for step in steps.split()]
                if not all(step.within for step in taken):
                    return self._reply("MOVED", *(step.position for step in taken))
                reply = self._end(call_id, hold, owed, result, outbox_id, session)
                if account:
                    account.counters |= {step.name: str(step.after) for step in taken}
                return reply
            case Ended() as ended:
                return self._settled(account_id, ended)
        return self._reply("GONE")

    def expire(
        self,
        account_id: int,
        call_id: str,
        epoch: int,
        seq: int,
        outbox_id: str = "",
        session: str = "",
    ) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        match self.holds.get(call_id):
            case Hold() as hold if hold.deadline_ms > self.now_ms:
                return self._reply("EARLY")
            case Hold(dispatched=False) as hold:
                return self._undo("VOIDED", call_id, hold, session)
            case Hold() as hold:
                result = f"unknown,0,{hold.units},expired"
                return self._end(call_id, hold, hold.due, result, outbox_id, session, expired=True)
            case Ended() as ended:
                reply = self._settled(account_id, ended)
                return ["OK", *reply[1:]] if reply[0] == "EXPIRED" else reply
        return self._reply("GONE")

    def void(self, account_id: int, call_id: str, epoch: int, seq: int, session: str = "") -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        match self.holds.get(call_id):
            case Hold() as hold:
                return self._undo("OK", call_id, hold, session)
            case None:
                return self._reply("GONE")
        return self._reply("SETTLED")

    def late(
        self,
        account_id: int,
        call_id: str,
        epoch: int,
        seq: int,
        owed: int,
        result: str,
        context: str,
        held: int,
        admitted_ms: int,
        outbox_id: str = "",
        session: str = "",
    ) -> Reply:
        if refusal := self._gate(epoch, seq, rebuilding=True):
            return refusal
        hold = self.holds.get(call_id)
        if isinstance(hold, Ended):
            return self._settled(account_id, hold)
        if isinstance(hold, Changed):
            return self._reply("GONE")
        if not self._loaded(account_id):
            return self._reply("LOAD")
        if hold:
            return self._end(call_id, hold, owed, result, outbox_id, session)
        absent = Hold(account_id, admitted_ms, held, 0, (), "", (), context, 0)
        return self._end(call_id, absent, owed, result, outbox_id, session, absent=True)

    def extend(self, epoch: int, seq: int, lease_ms: int, *calls: int | str) -> Reply:
        if refusal := self._gate(epoch, seq):
            return refusal
        missing, renewed = [], False
        for at in range(0, len(calls), 4):
            call_id, stage, due, units = calls[at : at + 4]
            hold = self.holds.get(str(call_id))
            if not isinstance(hold, Hold):
                missing.append(str(call_id))
                continue
            renewed = True
            stage = max(int(stage), hold.score % 2)
            hold.score = max(hold.score, 2 * (self.now_ms + lease_ms) + stage)
            if due != "":
                hold.due, hold.units = min(int(due), hold.held), str(units)
        if renewed:
            self._wrote("OK")
        return self._reply("OK", *missing)

    def dispatched(self, call_id: str, score: int) -> None:
        """Not a script: ZADD XX GT."""
        hold = self.holds.get(call_id)
        if isinstance(hold, Hold):
            hold.score = max(hold.score, score)

    def acknowledge(self, name: str, outbox_id: str) -> None:
        """What the writer does once an outbox entry is in Postgres."""
        self.holds.pop(name, None)
        self.outbox.pop(outbox_id, None)

    def _again(self, account: Account, hold: Hold | Ended | Changed) -> Reply:
        """A call that is admitted already: as then, with what is left now."""
        if not isinstance(hold, Hold):
            return self._reply("SETTLED")
        rpm = account.limit("rpm")
        left = limits.rate(rpm, account.tat_us, self.now_us, calls=0).remaining if rpm else 0
        return self._admitted(account, hold, rpm, left)

    def _admitted(self, account: Account, hold: Hold, rpm: int, left: int) -> Reply:
        remaining = burndown.remaining(account.in_order(), self.now_ms)
        counted = [" ".join(hold.counted)] if hold.counted else []
        facts = (hold.allocation_text, hold.admitted_ms, rpm, left)
        return self._reply("OK", remaining, *facts, *counted)

    def _take(self, account: Account, hold: Hold, asked: rules.Asked) -> None:
        """Every check has passed: hold the amount, and count the call where rules ask for it."""
        account.counters |= asked.counters
        if asked.session:
            spent = self.sessions.setdefault((hold.account_id, hold.session), {})
            spent.update(asked.session)
        hold.allocation = burndown.allocate(account.in_order(), hold.held, self.now_ms) or ()
        hold.allocation_text = account.postings_text(hold.allocation)
        for grant_id, part in hold.allocation:
            account.change(grant_id, available=-part, held=part)
        account.running += 1
        self._wrote("OK")

    def _raise(
        self, account: Account, hold: Hold, held: int, places: list[rules.Place], session: str
    ) -> None:
        """Every check has passed: hold so much in all."""
        drawn = burndown.draw(account.in_order(), held - hold.held, self.now_ms).postings
        parts = dict(hold.allocation)
        for grant_id, part in drawn:
            account.change(grant_id, available=-part, held=part)
            parts[grant_id] = parts.get(grant_id, 0) + part
        ordered = [grant_id for grant_id in parts if grant_id not in account.order]
        ordered += [grant_id for grant_id in account.order if grant_id in parts]
        tokens = {text.partition(":")[0].rstrip("o"): text for text in hold.allocation_text.split()}
        texts = [
            f"{token(account.lots[grant_id])}:{parts[grant_id]}"
            if grant_id in account.order
            else tokens[str(grant_id)]
            for grant_id in ordered
        ]
        hold.held, hold.allocation_text = held, " ".join(texts)
        hold.allocation = tuple(Posting(grant_id, parts[grant_id]) for grant_id in ordered)
        hold.counted = tuple(place.token for place in places)
        spent = self.sessions.setdefault((hold.account_id, session), {})
        for place in places:
            if place.kind == "session":
                spent[place.name] = place.others + held
            elif place.name:
                kept = place.window._replace(used=place.others + held)
                account.counters[place.name] = str(kept)
        self._wrote("OK")

    def _raised(self, account: Account, hold: Hold) -> Reply:
        remaining = burndown.remaining(account.in_order(), self.now_ms)
        counted = " ".join(hold.counted)
        return self._reply("OK", hold.held, remaining, hold.allocation_text, counted)

    def _terms_denial(self, account: Account, discount: int) -> Reply | None:
        of_account = limits.parse_rules(account.facts["rules"])
        kept = next((rule.limit for rule in of_account if rule.kind == limits.DISCOUNT), 0)
        return self._reply("TERMS", kept) if kept != discount else None

    def _fast_rate(self, account: Account) -> limits.Rate | None:
        rpm = account.limit("rpm")
        return limits.rate(rpm, account.tat_us, self.now_us) if rpm else None

    def _fast_quota(self, account: Account) -> limits.Counter | None:
        """The month's end and the count with this call, if there is a quota."""
        if not account.limit("rpmonth"):
            return None
        if account.month_end_ms <= self.now_ms:
            return limits.Counter(limits.month_end_ms(self.now_ms), 1)
        return limits.Counter(account.month_end_ms, account.count + 1)

    def _keep_fast(
        self, account: Account, rate: limits.Rate | None, quota: limits.Counter | None
    ) -> None:
        if rate or quota:
            account.tat_us = rate.tat_us if rate else 0
            account.count = quota.used if quota else 0
        if quota:
            account.month_end_ms = quota.end_ms

    def _fast_denial(
        self, account: Account, rate: limits.Rate | None, quota: limits.Counter | None
    ) -> Reply | None:
        rpm, rpmonth, conc = map(account.limit, ("rpm", "rpmonth", "conc"))
        if rate and rate.retry_after_ms:
            return self._reply("RATE", rpm, rate.retry_after_ms, "account")
        if quota and quota.used > rpmonth:
            return self._reply("QUOTA", rpmonth, quota.end_ms - self.now_ms, "account")
        if conc and account.running >= conc:
            return self._reply("CONCURRENCY", conc, "account")
        return None

    def _ask_rules(self, account_id: int, account: Account, ask: Ask) -> rules.Asked:
        scopes = self._scopes(account, ask.key_id, ask.route_rules)
        session = self.sessions.get((account_id, ask.session), {}) if ask.session else None
        return rules.ask(account.counters, session, scopes, ask.amount, self.now_us)

    def _credit_denial(self, account: Account, amount: int) -> tuple[str, int, int] | None:
        lots = account.in_order()
        if burndown.allocate(lots, amount, self.now_ms) is not None:
            return None
        held = sum(lot.held for lot in lots if lot.spendable(self.now_ms))
        return "CREDITS", burndown.available(lots, self.now_ms), held

    def _raise_denial(
        self, account: Account, hold: Hold, lacking: int
    ) -> tuple[str, int, int, int] | None:
        denial = self._credit_denial(account, lacking)
        if denial is None:
            return None
        lots, own = account.in_order(), dict(hold.allocation)
        valid = [lot for lot in lots if lot.spendable(self.now_ms)]
        others = sum(max(lot.held - own.get(lot.grant_id, 0), 0) for lot in valid)
        return "CREDITS", denial[1], others, lacking

    def _settled(self, account_id: int, ended: Ended) -> Reply:
        """A settlement again, as its outbox entry tells it, with what is left now."""
        settled = self.outbox.get(ended.outbox_id)
        if not isinstance(settled, Settled):
            return self._reply("GONE")
        account = self._known(account_id)
        left = burndown.remaining(account.in_order(), self.now_ms) if account else 0
        return self._reply(
            "EXPIRED" if ended.expired else "OK",
            *(settled.charged, settled.uncollected, left, settled.postings, ended.outbox_id),
            *(settled.settled_ms, settled.admitted_ms),
        )

    def _still_held(self, account: Account, hold: Hold) -> list[Posting]:
        """The hold's parts, as far as the account (perhaps deleted and loaded since) has them."""
        return [
            Posting(grant_id, min(part, account.lots[grant_id].held))
            for grant_id, part in hold.allocation
            if grant_id in account.lots
        ]

    def _undo(self, status: str, call_id: str, hold: Hold, session: str) -> Reply:
        account = self._known(hold.account_id)
        if not account:
            return self._reply("GONE")
        for grant_id, part in self._still_held(account, hold):
            account.change(grant_id, available=part, held=-part)
        account.running = max(account.running - 1, 0)
        self._uncount(account, hold, session, -hold.held)
        del self.holds[call_id]
        return self._wrote(status, burndown.remaining(account.in_order(), self.now_ms))

    def _uncount(self, account: Account, hold: Hold, session: str, delta: int) -> None:
        of_session = self.sessions.get((hold.account_id, session))
        rules.uncount(account.counters, of_session, hold.counted, delta)

    def _end(
        self,
        call_id: str,
        hold: Hold,
        owed: int,
        result: str,
        outbox_id: str,
        session: str,
        *,
        expired: bool = False,
        absent: bool = False,
    ) -> Reply:
        account = self._known(hold.account_id)
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
        if not absent:
            account.running = max(account.running - 1, 0)
        self._uncount(account, hold, session, owed - uncollected - hold.held)
        ended = Ended(outbox_id, expired)
        self.holds[call_id] = ended
        self.outbox[outbox_id] = Settled(
            call_id=call_id,
            context=hold.context,
            held=hold.held,
            admitted_ms=hold.admitted_ms,
            settled_ms=self.now_ms,
            charged=owed - uncollected,
            uncollected=uncollected,
            postings=account.postings_text(Posting(*each) for each in totals.items() if each[1]),
            result=result,
        )
        self._wrote("OK")
        return ["OK", *self._settled(hold.account_id, ended)[1:]]

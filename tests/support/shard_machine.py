"""Random operations and faults on a shard and on its model, with replies and state compared.

Hypothesis chooses and shrinks the sequence (`tests/policies/lua/test_shard_machine.py`); what a
step does comes from a random generator that is seeded by the step's number, so that the odds of
each operation are ours. This file has the calls and what passes by itself; accounts, rebuilds and
faults are in `shard_machine_accounts`, delegated keys in `shard_machine_keys`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, rule

from tests.support.lua_shard import model_state
from tests.support.shard_machine_accounts import (
    ACCOUNTS,
    CALLS,
    CHANGES,
    DAY_US,
    SECOND_US,
    START_US,
)
from tests.support.shard_machine_keys import KeysMachine
from tests.support.shard_model_state import Changed, Ended, Hold, counter

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

SESSIONS = ("s1", "s2")
AMOUNTS = [6, 6, 9, 3, 12, 7, 1, 0, 25, 45, 100, 2**50 // 3]
# What passes between two steps: mostly little, as a minute's limits and a lease are short.
PAUSES_US = [1, 999, 1000, 100_000, SECOND_US, SECOND_US, 20 * SECOND_US, 61 * SECOND_US, DAY_US]
ROUTE_RULES = ["", "", "", "R2 cc:1", "R2 rm:3 cd:40", "R3 rs:1:2 ct:60 qm:9", "R3 qp:4 cm:1000"]

# Operations and their odds.
ODDS = {
    "admit": 18,
    "raise_hold": 7,
    "settle": 7,
    "time_passes": 5,
    "dispatch": 4,
    "expire": 4,
    "void": 3,
    "extend": 3,
    "late": 3,
    "withdraw": 3,
    "amend": 3,
    "carve": 6,
    "giveback": 4,
    "credit": 3,
    "acknowledge": 3,
    "load_account": 2,
    "inspect": 1,
    "resume": 1,
    "fault": 2,
}
# Where most is about one account's delegated keys.
ODDS_OF_FAMILY = ODDS | {"admit": 24, "settle": 10, "void": 5, "carve": 12, "giveback": 12}
ODDS_OF_FAMILY |= {"amend": 6, "fault": 1, "late": 1, "withdraw": 1, "credit": 1, "inspect": 0}
# What comes mostly while the shard is closed.
ODDS_CLOSED = {"restore": 6, "load_account": 2, "late": 2, "open": 3, "fault": 1}


class ShardMachine(KeysMachine):
    """Give it a shard; run it as a test."""

    def __init__(self, shard: LuaShard) -> None:
        super().__init__(shard)
        self.newest_entry = (0, 0)

    @initialize(salt=st.integers(0, 2**32))
    def begin(self, salt: int) -> None:
        self.salt = salt
        self.random.seed(salt)
        self.check("close", 0, 1, 0)
        self.check("open", 0, 1)
        self.load_all()
        if salt % 2:
            self.begin_family()

    @rule(seed=st.integers(0, 2**32))
    def step(self, seed: int) -> None:
        self.random.seed(f"{self.salt}:{seed}")
        odds = ODDS_OF_FAMILY if self.family else ODDS
        if self.model.closed and self.random.random() < 0.8:
            odds = ODDS_CLOSED
        (operation,) = self.random.choices(list(odds), list(odds.values()))
        if not self.model.meta and self.random.random() < 0.3:
            operation = "fault"  # a lost shard is closed and opened again before long
        getattr(self, operation)()

    @invariant()
    def redis_equals_the_model_and_keeps_the_invariants(self) -> None:
        state = self.shard.state(ACCOUNTS, SESSIONS)
        assert state == model_state(self.model, ACCOUNTS, SESSIONS)
        self.sums.check(state)

    def time_passes(self) -> None:
        now_us = self.model.now_us
        if self.random.random() < 0.3:  # to the very moment at which something changes
            lots = [lot for each in self.model.accounts.values() for lot in each.lots.values()]
            holds = [hold for hold in self.model.holds.values() if isinstance(hold, Hold)]
            moments_ms = [ms for lot in lots for ms in (lot.effective_ms, lot.expires_ms)]
            moments_ms += [hold.deadline_ms for hold in holds]
            future = [ms * 1000 for ms in moments_ms if now_us < ms * 1000]
            self.pass_time(self.random.choice(future or [now_us]))
        else:
            by_us = self.random.choice([*PAUSES_US, 27 * DAY_US])
            back = now_us > START_US and self.random.random() < 0.1
            self.pass_time(now_us - by_us if back else now_us + by_us)

    def admit(self) -> None:
        random, account_id, call_id = self.random, self.an_account(), self.a_call()[0]
        if random.random() < 0.8:
            call_id = next((new for new in CALLS if new not in self.model.holds), call_id)
        hold = self.model.holds.get(call_id)
        session = random.choice(["", "", "", *SESSIONS])
        if isinstance(hold, Hold):  # a retry
            account_id, session = hold.account_id, hold.session
        key_id, amount = self.a_key(account_id), random.choice(AMOUNTS)
        lease_ms, due = (
            random.choice([1, 1000, 120_000, 120_000, 0]),
            amount // random.choice([1, 3]),
        )
        route_rules = random.choice(ROUTE_RULES)
        route_id = route_rules[1:2] or "2"
        context = f"1,{account_id},{key_id},{route_id},9,{session}"
        arguments = [call_id, *self.seen(), key_id, amount, lease_ms, due, context]
        discount, guard = self.discount_of(account_id), self.guard_of(account_id, key_id)
        if route_rules or session or discount or guard or random.random() < 0.3:
            arguments += [route_rules, session]
            if discount or guard or random.random() < 0.3:
                arguments.append(discount)
                if guard or random.random() < 0.3:
                    arguments.append(guard)
        self.check("admit", account_id, *arguments, session=session, told=True)

    def raise_hold(self) -> None:
        """Mostly what a worker asks for: the route's rules and the session are the call's own."""
        random, (call_id, account_id, session) = self.random, self.a_call()
        live = [name for name, hold in self.model.holds.items() if isinstance(hold, Hold)]
        if live and random.random() < 0.9:
            call_id = random.choice(live)
        hold = self.model.holds.get(call_id)
        held, key_id, route_rules = 0, random.choice([5, 5, 6, 9]), ""
        if isinstance(hold, Hold):
            held, account_id, session = hold.held, hold.account_id, hold.session
            own = hold.context.split(",")[2:4]
            key_id, route = (int(own[0]), own[1]) if random.random() < 0.9 else (key_id, "2")
            if key_id != int(own[0]):
                self.sums.families.raised_by_another(account_id, int(own[0]))
            route_rules = random.choice([text for text in ROUTE_RULES if text[1:2] in ("", route)])
        target = held + random.choice([0, 1, 3, 3, 10, 10, 30, 100, 2**50])
        if random.random() < 0.1:
            target = random.choice([0, held // 2])
        least = random.choice([0, min(held, target), min(held + 1, target), target, target])
        arguments = (call_id, *self.seen(), key_id, least, target, route_rules)
        self.check("raise", account_id, *arguments, session=session, told=True)

    def settle(self) -> None:
        call_id, account_id, session = self.a_call()
        arguments = (*self.seen(), self.some_owed(call_id), "completed,200,,")
        steps = self.some_steps(account_id)
        self.check_end("settle", account_id, call_id, *arguments, session=session, steps=steps)

    def expire(self) -> None:
        call_id, account_id, session = self.a_call()
        self.check_end("expire", account_id, call_id, *self.seen(), session=session)

    def void(self) -> None:
        call_id, account_id, session = self.a_call()
        self.check_end("void", account_id, call_id, *self.seen(), session=session)

    def late(self) -> None:
        call_id, account_id, session = self.a_call()
        hold = self.model.holds.get(call_id)
        context = hold.context if isinstance(hold, Hold) else f"1,{account_id},5,2,9,{session}"
        held = hold.held if isinstance(hold, Hold) else self.random.choice(AMOUNTS)
        arguments = (*self.seen(), self.some_owed(call_id), "completed,200,,late")
        facts = (context, held, self.model.now_ms - 5000)
        self.check_end("late", account_id, call_id, *arguments, *facts, session=session)

    def dispatch(self) -> None:
        call_id, _, _ = self.a_call()
        hold = self.model.holds.get(call_id)
        score = (hold.score if isinstance(hold, Hold) else 2 * self.model.now_ms) | 1
        self.note("dispatched", 0, (call_id, score), "")
        self.shard.dispatched(call_id, score)
        self.model.dispatched(call_id, score)

    def extend(self) -> None:
        calls: list[int | str] = []
        for _ in range(self.random.randint(1, 3)):
            call_id, _, _ = self.a_call()
            hold = self.model.holds.get(call_id)
            held = hold.held if isinstance(hold, Hold) else 6
            due = self.random.choice(["", "", held, held // 2, held + 5])
            calls += [call_id, self.random.choice([0, 1]), due, "" if due == "" else "token=7"]
        lease_ms = self.random.choice([1, 1000, 30_000])
        self.check("extend", 0, *self.seen(), lease_ms, *calls)

    def withdraw(self) -> None:
        account_id = self.random.choice(ACCOUNTS)
        settled = (Hold, Ended)
        names = [name for name in CALLS if not isinstance(self.model.holds.get(name), settled)]
        change_id = self.random.choice([*CHANGES, *CHANGES, *names[:2]])
        kind = self.random.choice(["expire", "revoke", "adjust", "late"])
        lot_id = self.random.choice(["", self.grant_id(account_id, self.random.randint(1, 6))])
        amount = self.random.choice(["all", 0, 1, 7, 30, 2**50])
        call_id = change_id if kind == "late" else ""
        changed = (change_id, kind, lot_id, amount, call_id, f"1,{account_id}")
        self.check_entry("withdraw", account_id, *self.seen(), *changed)

    def acknowledge(self) -> None:
        kept = [name for name, text in self.model.holds.items() if not isinstance(text, Hold)]
        name = self.random.choice(kept or [CALLS[0]])
        ended = self.model.holds.get(name)
        if isinstance(ended, Ended | Changed):
            told = self.shard.run("acknowledge", 0, name, ended.outbox_id)
            assert told == ["OK", 0, 0]
            self.model.acknowledge(name, ended.outbox_id)

    # What they are made of.

    def check_end(
        self,
        script: str,
        account_id: int,
        call_id: str,
        *arguments: Any,
        session: str,
        steps: str = "",
    ) -> None:
        """Run what ends a call; note what was charged, if it was ended by this."""
        hold = self.model.holds.get(call_id)
        parts = hold.text().split("|", 8) if isinstance(hold, Hold) else []
        told = not isinstance(hold, Hold) or hold.session == session
        if script == "void":
            reply = self.check(script, account_id, call_id, *arguments, session=session, told=True)
        else:
            reply = self.check_entry(
                script, account_id, call_id, *arguments, session=session, steps=steps
            )
        if parts and not isinstance(self.model.holds.get(call_id), Hold):
            charged = 0 if script == "void" or reply[0] == "VOIDED" else reply[3]
            self.sums.ended(parts, charged, session_told=told)

    def check_entry(
        self,
        script: str,
        account_id: int,
        *arguments: Any,
        session: str | None = None,
        steps: str = "",
    ) -> Any:
        """Run what may write to the outbox: the stream names a new entry, later than any before."""
        names = {} if session is None else {"session": session}
        told = (*arguments, steps) if steps else arguments
        reply = self.shard.run(script, account_id, *told, **names)
        self.note(script, account_id, told, reply)
        at = 6 if script == "withdraw" else 7
        entry = reply[at] if reply[0] in ("OK", "EXPIRED") and len(reply) > at else ""
        known = entry in self.model.outbox
        if steps:
            names["steps"] = steps
        assert reply == getattr(self.model, script)(account_id, *arguments, entry, **names)
        if entry in self.model.outbox and not known:
            milliseconds, _, number = entry.partition("-")
            assert (int(milliseconds), int(number)) > self.newest_entry
            self.newest_entry = (int(milliseconds), int(number))
        return reply

    def a_call(self) -> tuple[str, int, str]:
        """Mostly one that the shard knows, with its account and session."""
        known = list(self.model.holds) if self.random.random() < 0.9 else []
        call_id = self.random.choice(known or CALLS)
        hold = self.model.holds.get(call_id)
        if isinstance(hold, Hold):
            forgotten = self.random.random() < 0.05
            return call_id, hold.account_id, "" if forgotten else hold.session
        return call_id, self.random.choice(ACCOUNTS), self.random.choice(["", *SESSIONS])

    def discount_of(self, account_id: int) -> int:
        """What a worker assumes an account's discount to be: mostly what it is."""
        account = self.model.accounts.get(account_id)
        rules = account.facts.get("rules", "") if account else ""
        _, _, text = rules.partition("dp:")
        known = int(text.partition(" ")[0] or "0")
        return known if self.random.random() < 0.95 else self.random.choice([0, 500, 1500])

    def some_steps(self, account_id: int) -> str:
        """Mostly none, else one or two of which it is mostly right where they begin."""
        account = self.model.accounts.get(account_id)
        if self.random.random() < 0.7 or not account:
            return ""
        steps = []
        for place in self.random.sample(["2:token", "3:token", "2:image_1"], 2)[
            : self.random.randint(1, 2)
        ]:
            used = counter(account.counters.get(f"u:{place}")).used
            least, most = self.random.choice(
                [(0, 2**53 - 1), (0, 1000), (used, used), (used, used + 9)]
            )
            if self.random.random() < 0.1:
                least, most = self.random.choice([(used + 1, 2**53 - 1), (0, max(used - 1, 0))])
            steps.append(f"{place}:{least}:{most}:{self.random.choice([1, 7, 500, 2**50])}")
        return " ".join(steps)

    def some_owed(self, call_id: str) -> int:
        hold = self.model.holds.get(call_id)
        held = hold.held if isinstance(hold, Hold) else 6
        return self.random.choice([0, 1, held // 2, held, held, held + 1, held * 5, 2**50])

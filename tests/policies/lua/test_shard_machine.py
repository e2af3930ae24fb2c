"""Any sequence of scripts and faults: replies, complete state and invariants, step by step.

The same random operations run on a real Redis and on `ShardModel`. Every reply must be equal, then
the whole state, and on Redis' own state I1, I3 and I4 must hold.

Hypothesis chooses and shrinks the sequence; what a step does comes from a random generator that is
seeded by the step's number, so that the odds of each operation are ours.
"""

from __future__ import annotations

import os
from random import Random
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from policies.settlement import parse_postings
from tests.support.lua_shard import account_seed, flat, key, model_state
from tests.support.shard_model import Hold, SettledHold, ShardModel

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

START_US = 1_790_000_000_000_123
SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
BIG = 2**50 + 1  # 16 digits: text made with Lua's own %.14g would lose some
ACCOUNTS = (7, 77, 107)
CALLS = [f"{number:032x}" for number in range(12)]
LIMITS = [0, 0, 0, 1, 2, 3, 7, 600]
KEY_STATES = ["0"] * 12 + ["-1", "5000", str(START_US // 1000 + 60_000)]
AMOUNTS = [6, 6, 9, 3, 12, 7, 1, 0, 25, 45, 100, BIG // 3]
MOMENTS_US = [-DAY_US, -1000, 1000, 5 * SECOND_US, 65 * SECOND_US, 3 * DAY_US]
# What passes between two steps: mostly little, as a minute's limits and a lease are short.
PAUSES_US = [1, 999, 1000, 100_000, SECOND_US, SECOND_US, 20 * SECOND_US, 61 * SECOND_US, DAY_US]

# Operations and their odds.
ODDS = {
    "admit": 10,
    "settle": 7,
    "time_passes": 5,
    "expire": 4,
    "void": 3,
    "amend": 3,
    "acknowledge": 2,
    "grant": 2,
    "load_account": 2,
    "inspect": 1,
    "fault": 2,
}


class ShardMachine(RuleBasedStateMachine):
    def __init__(self, shard: LuaShard) -> None:
        super().__init__()
        self.shard = shard
        self.model = ShardModel()
        self.random = Random()
        self.granted: dict[tuple[int, int], int] = {}
        self.deleted: set[int] = set()  # accounts deleted while calls ran
        self.newest_entry = (0, 0)
        self.epoch_max = 1
        shard.clear()
        self.pass_time(START_US)

    @initialize(salt=st.integers(0, 2**32))
    def begin(self, salt: int) -> None:
        self.salt = salt
        self.random.seed(salt)
        self.check("open", 0, 1, 0)
        self.load_all()

    @rule(seed=st.integers(0, 2**32))
    def step(self, seed: int) -> None:
        self.random.seed(f"{self.salt}:{seed}")
        (operation,) = self.random.choices(list(ODDS), list(ODDS.values()))
        if not self.model.meta and self.random.random() < 0.3:
            operation = "fault"  # a lost shard is opened again before long
        getattr(self, operation)()

    @invariant()
    def redis_equals_the_model_and_keeps_the_invariants(self) -> None:
        state = self.shard.state(ACCOUNTS)
        assert state == model_state(self.model, ACCOUNTS)
        live = {c: text.split("|") for c, text in state["holds"].items() if text[0] == "h"}
        assert state["leases"].keys() == live.keys()  # I4: every hold has a deadline
        held: dict[tuple[int, int], int] = {}
        for parts in live.values():
            for grant_id, amount in parse_postings(parts[5]):
                lot = (int(parts[1]), grant_id)
                held[lot] = held.get(lot, 0) + amount
        for account_id, fields in state["accounts"].items():
            if "epoch" not in fields or fields["epoch"] != state["meta"].get("epoch"):
                continue  # not loaded
            for grant_id in map(int, fields["lots"].split()):
                a, h, s = (int(fields[f"{name}:{grant_id}"]) for name in "ahs")
                assert min(a, h, s) >= 0
                assert a + h + s == self.granted[account_id, grant_id]  # I1, and with it I3
                if account_id not in self.deleted:
                    assert h == held.get((account_id, grant_id), 0)

    # The operations.

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
        account_id, call_id = self.random.choice(ACCOUNTS), self.random.choice(CALLS)
        if self.random.random() < 0.8:
            call_id = next((new for new in CALLS if new not in self.model.holds), call_id)
        hold = self.model.holds.get(call_id)
        if isinstance(hold, Hold):  # a retry
            account_id = hold.account_id
        key_id, amount = self.random.choice([5, 5, 5, 5, 6]), self.random.choice(AMOUNTS)
        lease_ms, floor = (
            self.random.choice([1, 1000, 120_000]),
            amount // self.random.choice([1, 3]),
        )
        context = f"1,{account_id},{key_id},2,9"
        arguments = (*self.seen(), key_id, amount, lease_ms, floor, context)
        self.check("admit", account_id, call_id, *arguments)

    def settle(self) -> None:
        call_id, account_id = self.some_call()
        hold = self.model.holds.get(call_id)
        held = hold.held if isinstance(hold, Hold) else 6
        owed = self.random.choice([0, 1, held // 2, held, held, held + 1, held * 5, BIG])
        self.check_ending("settle", account_id, call_id, *self.seen(), owed, "completed,200,,")

    def expire(self) -> None:
        call_id, account_id = self.some_call()
        self.check_ending("expire", account_id, call_id, *self.seen())

    def void(self) -> None:
        call_id, account_id = self.some_call()
        self.check("void", account_id, call_id, *self.seen())

    def load_account(self) -> None:
        random, account_id = self.random, self.random.choice(ACCOUNTS)
        numbers = random.sample(range(1, 6), random.randint(0, 4))
        lots = [self.grant_id(account_id, number) for number in numbers]
        facts = {name: random.choice(LIMITS) for name in ("rpm", "rpmonth", "conc")}
        facts |= {f"k:{key_id}": random.choice(KEY_STATES) for key_id in random.sample([5, 6], 1)}
        if random.random() < 0.3:
            facts |= {"month": "202609", "count": random.choice([1, 6])}
        fields = account_seed(
            lots={lot: self.lot_amount() for lot in lots},
            settled={lot: random.randint(0, 9) for lot in lots},
            effective_ms={lot: self.moment() for lot in lots},
            expires_ms={lot: random.choice([0, self.moment(), self.moment()]) for lot in lots},
            **facts,
        )
        epoch, seq = self.seen()
        self.load(account_id, epoch, max(seq - random.randint(0, 3), 0), fields)

    def amend(self) -> None:
        account_id = self.random.choice(ACCOUNTS)
        fields = {
            self.random.choice(["rpm", "rpmonth", "conc"]): str(self.random.choice(LIMITS)),
            f"k:{self.random.choice([5, 6])}": self.random.choice(KEY_STATES),
            "status": self.random.choice(["active"] * 8 + ["suspended"]),
        }
        seen = self.seen()
        reply = self.shard.run("amend", account_id, *seen, *flat(fields))
        note(f"amend {account_id} {fields} -> {reply}")
        assert reply == self.model.amend(account_id, *seen, fields)

    def grant(self) -> None:
        account_id, number = self.random.choice(ACCOUNTS), self.random.randint(1, 5)
        others = self.random.sample([1, 2, 3, 4, 5], self.random.randint(0, 5))
        lots = [self.grant_id(account_id, lot) for lot in dict.fromkeys([*others, number])]
        grant_id, amount = self.grant_id(account_id, number), self.lot_amount()
        times = (self.random.choice([0, self.moment()]), self.moment())
        arguments = (*self.seen(), grant_id, amount, *times)
        reply = self.shard.run("grant", account_id, *arguments, " ".join(map(str, lots)))
        note(f"grant {account_id} {arguments} {lots} -> {reply}")
        assert reply == self.model.grant(account_id, *arguments, lots)
        if reply[0] == "OK":
            self.granted[account_id, grant_id] = amount

    def acknowledge(self) -> None:
        call_id, _ = self.some_call()
        hold = self.model.holds.get(call_id)
        if isinstance(hold, SettledHold):
            outbox_id = str(hold.reply[4])
            self.shard.client.hdel(key("holds"), call_id)
            self.shard.client.xdel(key("outbox"), outbox_id)
            self.model.acknowledge(call_id, outbox_id)

    def inspect(self) -> None:
        account_id = self.random.choice(ACCOUNTS)
        epoch, seq, fields, holds = self.shard.run("inspect", account_id)
        state = model_state(self.model, ACCOUNTS)
        assert (epoch, seq) == (self.model.meta or (0, 0))
        assert _pairs(fields) == state["accounts"][account_id]
        assert _pairs(holds) == {
            call_id: hold.text()
            for call_id, hold in self.model.holds.items()
            if isinstance(hold, Hold) and hold.account_id == account_id
        }

    def fault(self) -> None:
        kind = self.random.choice(
            ["delete account", "delete account", "lose meta", "go back", "open", "open", "open old"]
        )
        model, client, account_id = self.model, self.shard.client, self.random.choice(ACCOUNTS)
        note(f"{kind} {account_id}")
        if kind == "delete account":
            client.delete(key("account", account_id))
            model.accounts.pop(account_id, None)
            self.deleted.add(account_id)
            if model.meta and self.random.random() < 0.8:
                one_lot = {self.grant_id(account_id, 1): self.lot_amount()}
                self.load(account_id, *model.meta, account_seed(lots=one_lot))
        elif not model.meta or kind == "open":
            self.epoch_max += 1
            self.check("open", 0, self.epoch_max, model.meta[0] if model.meta else 0)
            self.deleted.clear()
            if self.random.random() < 0.7:
                self.load_all()
        elif kind == "lose meta":
            client.delete(key("meta"))
            model.meta = None
        elif kind == "go back":
            epoch, seq = model.meta
            client.hset(key("meta"), "seq", seq // 2)
            model.meta = (epoch, seq // 2)
        else:
            # Somebody who saw an older loss, or none: what is live must stay.
            self.epoch_max += 1
            self.check("open", 0, self.epoch_max, model.meta[0] - 1)

    # What they are made of.

    def check(self, script: str, account_id: int, *arguments: Any) -> None:
        of_account = () if script == "open" else (account_id,)
        reply = self.shard.run(script, account_id, *arguments)
        note(f"{script} {account_id} {arguments} -> {reply}")
        assert reply == getattr(self.model, script)(*of_account, *arguments)

    def check_ending(self, script: str, account_id: int, call_id: str, *arguments: Any) -> None:
        """Settle or expire: the stream names a new entry, later than any before."""
        repeated = isinstance(self.model.holds.get(call_id), SettledHold)
        reply = self.shard.run(script, account_id, call_id, *arguments)
        note(f"{script} {account_id} {call_id} {arguments} -> {reply}")
        entry = reply[7] if reply[0] == "OK" else ""
        assert reply == getattr(self.model, script)(account_id, call_id, *arguments, entry)
        if entry and not repeated:
            milliseconds, _, number = entry.partition("-")
            assert (int(milliseconds), int(number)) > self.newest_entry
            self.newest_entry = (int(milliseconds), int(number))

    def load(self, account_id: int, epoch: int, seq: int, fields: dict[str, str]) -> None:
        force = int(self.random.random() < 0.4)
        reply = self.shard.run("load", account_id, epoch, seq, force, *flat(fields))
        note(f"load {account_id} {(epoch, seq, force)} {fields} -> {reply}")
        assert reply == self.model.load(account_id, epoch, seq, force, fields)
        if reply[0] == "OK":
            for grant_id in map(int, fields["lots"].split()):
                granted = int(fields[f"a:{grant_id}"]) + int(fields[f"s:{grant_id}"])
                self.granted[account_id, grant_id] = granted

    def load_all(self) -> None:
        """Two lots, of which the first expires soon; one lot for a while; limits."""
        assert self.model.meta
        now_ms = self.model.now_us // 1000
        soon, later = now_ms + 1000, now_ms + 65_000
        limits = {name: self.random.choice(LIMITS) for name in ("rpm", "rpmonth", "conc")}
        seeds = [
            account_seed(lots={71: 40, 72: 20}, expires_ms={71: later}),
            account_seed(lots={771: 40}, effective_ms={771: soon}, expires_ms={771: later}),
            account_seed(lots={1071: BIG}, **limits),
        ]
        for account_id, fields in zip(ACCOUNTS, seeds, strict=True):
            self.load(account_id, *self.model.meta, fields)

    def some_call(self) -> tuple[str, int]:
        """Mostly one that the shard knows, with its account."""
        known = list(self.model.holds) if self.random.random() < 0.9 else []
        call_id = self.random.choice(known or CALLS)
        hold = self.model.holds.get(call_id)
        if isinstance(hold, Hold):
            return call_id, hold.account_id
        return call_id, self.random.choice(ACCOUNTS)

    def seen(self) -> tuple[int, int]:
        """What the caller says it has seen: mostly the truth, else nothing, or more than is."""
        epoch, seq = self.model.meta or (1, 0)
        odd = [(0, 0), (epoch + 1, 0), (epoch, seq + 1), (epoch, seq // 2)]
        return self.random.choice(odd) if self.random.random() < 0.15 else (epoch, seq)

    def grant_id(self, account_id: int, number: int) -> int:
        return account_id * 10 + number

    def lot_amount(self) -> int:
        return self.random.choice([0, 1, 6, 20, 30, 1000, BIG])

    def moment(self) -> int:
        return (self.model.now_us + self.random.choice(MOMENTS_US)) // 1000

    def pass_time(self, now_us: int) -> None:
        self.shard.set_clock(now_us)
        self.model.now_us = now_us


def _pairs(flattened: list[str]) -> dict[str, str]:
    return dict(zip(flattened[::2], flattened[1::2], strict=True))


def test_any_sequence_of_calls_and_faults_keeps_replies_state_and_invariants(
    shard: LuaShard,
) -> None:
    run_state_machine_as_test(
        lambda: ShardMachine(shard),
        settings=settings(
            max_examples=int(os.environ.get("SHARD_MACHINE_EXAMPLES", "100")),
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )

"""Any sequence of scripts and faults: replies, complete state and invariants, step by step.

The same random operations run on a real Redis and on `ShardModel`. Every reply must be equal, then
the whole state, and on Redis' own state I1, I3 and I4 must hold.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
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

accounts = st.sampled_from(ACCOUNTS)
calls = st.sampled_from(CALLS)
amounts = st.sampled_from([6, 9, 3, 12, 7, 1, 0, 25, 45, 100, BIG // 3])
lot_amounts = st.one_of(st.integers(0, 30), st.sampled_from([BIG, 1000]))
lot_numbers = st.integers(1, 5)
moments = st.sampled_from([-DAY_US, -1000, 1000, 5 * SECOND_US, 65 * SECOND_US, 3 * DAY_US])
limits = st.sampled_from([0, 0, 1, 2, 3, 7, 600])
key_states = st.sampled_from(["0"] * 7 + ["-1", "5000", str(START_US // 1000 + 60_000)])
# What the caller claims to have seen: nothing, the truth, another epoch, a later seq.
seen = st.sampled_from(["truth"] * 12 + ["nothing", "nothing", "other epoch", "more"])
# Of a hold of 6: nothing, less, all, more, more than anybody has.
owed_shares = st.sampled_from([6, 5, 7, 1, 30, 6, 0, BIG])
# Which call a script names: mostly one that is running or was settled, by its place among these.
some_calls = st.one_of(st.integers(0, 11), st.integers(0, 11), calls)
# Steps between two faults: enough for something to be lost.
CALM_STEPS = 12
passing_times = st.sampled_from(
    [1, 999, 1000, 100_000, SECOND_US, 20 * SECOND_US, 61 * SECOND_US, DAY_US, 27 * DAY_US]
)


class ShardMachine(RuleBasedStateMachine):
    def __init__(self, shard: LuaShard) -> None:
        super().__init__()
        self.shard = shard
        self.model = ShardModel()
        self.granted: dict[tuple[int, int], int] = {}
        self.deleted: set[int] = set()  # accounts deleted while calls ran
        self.newest_entry = (0, 0)
        self.epoch_max = 1
        self.calm_steps = 0
        self.limits: dict[str, int] = {}
        shard.clear()
        self.pass_time(START_US)

    @initialize(rpm=limits, rpmonth=limits, conc=limits)
    def begin(self, rpm: int, rpmonth: int, conc: int) -> None:
        self.limits = {"rpm": rpm, "rpmonth": rpmonth, "conc": conc}
        self.check("open", 0, 1)
        self.load_all()

    @rule(by=passing_times, back=st.sampled_from([False] * 9 + [True]))
    def time_passes(self, by: int, back: bool) -> None:
        self.pass_time(
            max(self.model.now_us - by, START_US // 2) if back else self.model.now_us + by
        )

    @rule(
        account_id=accounts,
        call_id=calls,
        claim=seen,
        key_id=st.sampled_from([5, 5, 5, 6]),
        amount=amounts,
        lease_ms=st.sampled_from([1, 1000, 120_000]),
    )
    def admit(
        self, *, account_id: int, call_id: str, claim: str, key_id: int, amount: int, lease_ms: int
    ) -> None:
        hold = self.model.holds.get(call_id)
        if isinstance(hold, Hold):  # a retry
            account_id = hold.account_id
        context = f"1,{account_id},{key_id},2,9"
        known = self.claim(claim)
        self.check(
            "admit", account_id, call_id, *known, key_id, amount, lease_ms, amount // 3, context
        )

    @rule(account_id=accounts, amount=amounts, count=st.integers(1, 3))
    def admit_new(self, account_id: int, amount: int, count: int) -> None:
        for call_id in [call_id for call_id in CALLS if call_id not in self.model.holds][:count]:
            arguments = (*self.claim("truth"), 5, amount, 1000, amount // 2, f"1,{account_id},5")
            self.check("admit", account_id, call_id, *arguments)

    @rule(some_call=some_calls, claim=seen, share=owed_shares, account_id=accounts)
    def settle(self, some_call: int | str, claim: str, share: int, account_id: int) -> None:
        call_id = self.call_id(some_call)
        hold = self.model.holds.get(call_id)
        if isinstance(hold, Hold):
            account_id, owed = hold.account_id, share if share == BIG else hold.held * share // 6
        else:
            owed = share
        result = "completed,200,token=1,"
        self.check_ending("settle", account_id, call_id, *self.claim(claim), owed, result)

    @rule(some_call=some_calls, claim=seen, account_id=accounts)
    def expire(self, some_call: int | str, claim: str, account_id: int) -> None:
        call_id = self.call_id(some_call)
        self.check_ending("expire", self.owner(call_id, account_id), call_id, *self.claim(claim))

    @rule(some_call=some_calls, claim=seen, account_id=accounts)
    def void(self, some_call: int | str, claim: str, account_id: int) -> None:
        call_id = self.call_id(some_call)
        self.check("void", self.owner(call_id, account_id), call_id, *self.claim(claim))

    @rule(
        account_id=accounts,
        claim=seen,
        seq_back=st.integers(0, 3),
        force=st.integers(0, 1),
        facts=st.fixed_dictionaries(
            {"rpm": limits, "rpmonth": limits, "conc": limits, "k:5": key_states},
            optional={"k:6": key_states, "status": st.just("suspended")},
        ),
        lots=st.dictionaries(
            lot_numbers, st.tuples(lot_amounts, st.integers(0, 9), moments, moments), max_size=4
        ),
        count=st.sampled_from([0, 0, 1, 6]),
    )
    def load_account(
        self,
        *,
        account_id: int,
        claim: str,
        seq_back: int,
        force: int,
        facts: dict[str, str | int],
        lots: dict[int, tuple[int, int, int, int]],
        count: int,
    ) -> None:
        by_grant = {self.grant_id(account_id, number): lot for number, lot in lots.items()}
        if count:
            facts |= {"month": "202609", "count": count}
        fields = account_seed(
            lots={grant_id: lot[0] for grant_id, lot in by_grant.items()},
            settled={grant_id: lot[1] for grant_id, lot in by_grant.items()},
            effective_ms={grant_id: self.moment(lot[2] // 9) for grant_id, lot in by_grant.items()},
            expires_ms={grant_id: self.expiry(lot[3]) for grant_id, lot in by_grant.items()},
            **facts,
        )
        epoch, seq = self.claim(claim)
        self.load(account_id, epoch, max(seq - seq_back, 0), force, fields)

    @rule(
        account_id=accounts,
        claim=seen,
        changes=st.dictionaries(st.sampled_from(["rpm", "rpmonth", "conc"]), limits),
        status=st.sampled_from(["active"] * 6 + ["suspended"]),
        key_id=st.sampled_from([5, 6]),
        key_state=key_states,
    )
    def amend(
        self,
        *,
        account_id: int,
        claim: str,
        changes: dict[str, int],
        status: str,
        key_id: int,
        key_state: str,
    ) -> None:
        fields = {name: str(value) for name, value in changes.items()}
        fields |= {"status": status, f"k:{key_id}": key_state}
        known = self.claim(claim)
        reply = self.shard.run("amend", account_id, *known, *flat(fields))
        assert reply == self.model.amend(account_id, *known, fields)

    @rule(
        account_id=accounts,
        claim=seen,
        number=lot_numbers,
        amount=lot_amounts,
        expires=moments,
        effective=moments,
        order=st.permutations([1, 2, 3, 4, 5]),
        order_count=st.integers(0, 5),
    )
    def grant(
        self,
        *,
        account_id: int,
        claim: str,
        number: int,
        amount: int,
        expires: int,
        effective: int,
        order: list[int],
        order_count: int,
    ) -> None:
        numbers = [lot for lot in order[:order_count] if lot != number] + [number]
        lots = [self.grant_id(account_id, lot) for lot in numbers]
        grant_id = self.grant_id(account_id, number)
        times = (self.expiry(expires), self.moment(effective // 9))
        arguments = (*self.claim(claim), grant_id, amount, *times)
        reply = self.shard.run("grant", account_id, *arguments, " ".join(map(str, lots)))
        assert reply == self.model.grant(account_id, *arguments, lots)
        if reply[0] == "OK":
            self.granted[account_id, grant_id] = amount

    @rule(some_call=some_calls)
    def acknowledge(self, some_call: int | str) -> None:
        call_id = self.call_id(some_call)
        hold = self.model.holds.get(call_id)
        if isinstance(hold, SettledHold):
            outbox_id = str(hold.reply[4])
            self.shard.client.hdel(key("holds"), call_id)
            self.shard.client.xdel(key("outbox"), outbox_id)
            self.model.acknowledge(call_id, outbox_id)

    @rule(account_id=accounts)
    def inspect(self, account_id: int) -> None:
        epoch, seq, fields, holds = self.shard.run("inspect", account_id)
        state = model_state(self.model, ACCOUNTS)
        assert (epoch, seq) == (self.model.meta or (0, 0))
        assert _pairs(fields) == state["accounts"][account_id]
        assert _pairs(holds) == {
            call_id: hold.text()
            for call_id, hold in self.model.holds.items()
            if isinstance(hold, Hold) and hold.account_id == account_id
        }

    @precondition(lambda self: self.calm_steps >= CALM_STEPS or not self.model.meta)
    @rule(
        kind=st.sampled_from(
            ["delete account", "lose meta", "go back", "open", "open", "open old"]
        ),
        account_id=accounts,
    )
    def fault(self, kind: str, account_id: int) -> None:
        model, client = self.model, self.shard.client
        epoch, seq = model.meta or (1, 0)
        self.calm_steps = 0
        match kind:
            case "delete account":
                client.delete(key("account", account_id))
                model.accounts.pop(account_id, None)
                self.deleted.add(account_id)
            case "lose meta":
                client.delete(key("meta"))
                model.meta = None
            case "go back" if model.meta:
                client.hset(key("meta"), "seq", seq // 2)
                model.meta = (epoch, seq // 2)
            case "open":
                self.epoch_max += 1
                self.check("open", 0, self.epoch_max)
                self.deleted.clear()
                self.load_all()
            case "open old" if model.meta:
                self.check("open", 0, epoch)

    @invariant()
    def redis_equals_the_model_and_keeps_the_invariants(self) -> None:
        self.calm_steps += 1
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

    def check(self, script: str, account_id: int, *arguments: Any) -> None:
        of_account = () if script == "open" else (account_id,)
        reply = self.shard.run(script, account_id, *arguments)
        assert reply == getattr(self.model, script)(*of_account, *arguments)

    def check_ending(self, script: str, account_id: int, call_id: str, *arguments: Any) -> None:
        """Settle or expire: the stream names a new entry, later than any before."""
        repeated = isinstance(self.model.holds.get(call_id), SettledHold)
        reply = self.shard.run(script, account_id, call_id, *arguments)
        entry = reply[7] if reply[0] == "OK" else ""
        expected = getattr(self.model, script)(account_id, call_id, *arguments, entry)
        assert reply == expected
        if entry and not repeated:
            milliseconds, _, number = entry.partition("-")
            assert (int(milliseconds), int(number)) > self.newest_entry
            self.newest_entry = (int(milliseconds), int(number))

    def load(
        self, account_id: int, epoch: int, seq: int, force: int, fields: dict[str, str]
    ) -> None:
        reply = self.shard.run("load", account_id, epoch, seq, force, *flat(fields))
        assert reply == self.model.load(account_id, epoch, seq, force, fields)
        if reply[0] == "OK":
            for grant_id in map(int, fields["lots"].split()):
                granted = int(fields[f"a:{grant_id}"]) + int(fields[f"s:{grant_id}"])
                self.granted[account_id, grant_id] = granted

    def load_all(self) -> None:
        """Two lots, of which the first expires soon; one lot for a while; tight limits."""
        assert self.model.meta
        soon, later = self.moment(SECOND_US), self.moment(65 * SECOND_US)
        seeds = [
            account_seed(lots={71: 40, 72: 20}, expires_ms={71: later}),
            account_seed(lots={771: 40}, effective_ms={771: soon}, expires_ms={771: later}),
            account_seed(lots={1071: BIG}, **self.limits),
        ]
        for account_id, fields in zip(ACCOUNTS, seeds, strict=True):
            self.load(account_id, *self.model.meta, 0, fields)

    def call_id(self, some_call: int | str) -> str:
        if isinstance(some_call, str):
            return some_call
        known = list(self.model.holds) or CALLS
        return known[some_call % len(known)]

    def claim(self, kind: str) -> tuple[int, int]:
        epoch, seq = self.model.meta or (1, 0)
        match kind:
            case "nothing":
                return 0, 0
            case "other epoch":
                return epoch + 1, 0
            case "more":
                return epoch, seq + 1
        return epoch, seq

    def owner(self, call_id: str, otherwise: int) -> int:
        hold = self.model.holds.get(call_id)
        return hold.account_id if isinstance(hold, Hold) else otherwise

    def grant_id(self, account_id: int, number: int) -> int:
        return account_id * 10 + number

    def moment(self, offset_us: int) -> int:
        return (self.model.now_us + offset_us) // 1000

    def expiry(self, offset_us: int) -> int:
        return 0 if offset_us == 3 * DAY_US else self.moment(offset_us)

    def pass_time(self, now_us: int) -> None:
        self.shard.set_clock(now_us)
        self.model.now_us = now_us


def _pairs(flattened: list[str]) -> dict[str, str]:
    return dict(zip(flattened[::2], flattened[1::2], strict=True))


@pytest.mark.parametrize("step_count", [50])
def test_any_sequence_of_calls_and_faults_keeps_replies_state_and_invariants(
    shard: LuaShard, step_count: int
) -> None:
    run_state_machine_as_test(
        lambda: ShardMachine(shard),
        settings=settings(
            max_examples=int(os.environ.get("SHARD_MACHINE_EXAMPLES", "40")),
            stateful_step_count=step_count,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )

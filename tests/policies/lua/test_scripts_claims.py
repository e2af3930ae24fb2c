"""An idempotency key has one call at a time: the scripts against a model of them, and by hand."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.lua_calls import NOW_MS, NOW_US, admit, dispatch, expire, load, settle, void
from tests.support.lua_shard import key

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

CALLS = [f"{number:032x}" for number in range(1, 6)]
PRINTS = ("a" * 64, "b" * 64)
LEASE_MS, TTL_MS, GRACE_MS, ANSWER_TTL_MS = 1_000, 86_400_000, 100, 600_000
BYTES_MAX = 40
HOLD_LEASE_MS = 3_000
FIRST, SECOND = CALLS[:2]
ONE, OTHER = PRINTS


def claim(
    shard: LuaShard,
    call_id: str = FIRST,
    print_: str = ONE,
    *,
    over: str = "",
    key_id: int = 5,
    guard: int = 0,
) -> Any:
    arguments = (call_id, 0, 0, key_id, print_, LEASE_MS, TTL_MS, GRACE_MS, over, guard)
    reply = shard.run("claim", 7, *arguments)
    return [reply[0], *reply[3:]]


def remember(shard: LuaShard, call_id: str = FIRST, answer: str = "answer", **others: str) -> Any:
    arguments = (call_id, others.get("print_", ONE), LEASE_MS, TTL_MS, answer, "receipt")
    return shard.run("remember", 7, *arguments, ANSWER_TTL_MS, BYTES_MAX)[0]


def forget(shard: LuaShard, call_id: str = FIRST) -> Any:
    return shard.run("forget", 7, call_id)[0]


@pytest.fixture
def account(open_shard: LuaShard) -> LuaShard:
    load(open_shard, lots={12: 1_000_000})
    return open_shard


@dataclass
class Model:
    """What the scripts must answer; holds and settlements are the shard's own."""

    now_ms: int = NOW_MS
    holder: str = ""
    print_: str = ""
    until_ms: int = 0
    answer: str | None = None
    ends: dict[str, tuple[str, int]] = field(default_factory=dict)  # live, or settled at

    def claim(self, call_id: str, print_: str, over: str) -> list[Any]:
        if self.holder and self.holder != call_id:
            stands = self._stands(print_, over)
            if stands is not None:
                return stands
        if self.holder != call_id:
            self.until_ms = self.now_ms + LEASE_MS
            self.holder, self.print_, self.answer = call_id, print_, None
        return ["NEW", self.until_ms, 0]

    def _stands(self, print_: str, over: str) -> list[Any] | None:  # noqa: PLR0911 - one per reply
        if print_ != self.print_:
            return ["OTHER"]
        if self.answer is not None:
            return ["DONE", self.answer]
        stage, settled_ms = self.ends.get(self.holder, ("", 0))
        if stage == "live" or (stage == "settled" and self.now_ms < settled_ms + GRACE_MS):
            return ["RUNNING"]
        if not stage and self.now_ms < self.until_ms:
            return ["RUNNING"]
        if over == self.holder:
            return None
        if stage == "settled":
            return ["ENDED", self.holder, 4, "completed", 200]
        return ["GONE", self.holder]

    def remember(self, call_id: str, answer: str, print_: str) -> str:
        if self.holder and self.holder != call_id:
            return "KEPT"
        if answer or not self.holder:
            self.until_ms = self.now_ms + LEASE_MS
            self.holder, self.print_, self.answer = call_id, print_, answer or None
        return "OK"

    def forget(self, call_id: str) -> str:
        if self.holder != call_id or self.answer is not None:
            return "KEPT"
        self.holder = ""
        return "OK"


class Machine:
    """Random steps on a shard and on the model."""

    def __init__(self, shard: LuaShard, seed: int) -> None:
        self.shard = shard
        self.model = Model()
        self.chance = random.Random(seed)
        # Outbox ids are the server's time, whatever the scripts' clock says.
        self.skew_ms = int(shard.client.time()[0]) * 1000 - NOW_MS
        self.model.now_ms += self.skew_ms
        shard.set_clock(self.model.now_ms * 1000)

    def step(self) -> None:
        call_id, print_ = self.chance.choice(CALLS), self.chance.choice([ONE, ONE, ONE, OTHER])
        verb = self.chance.choice(("claim", "claim", "claim", "admit", "end", "keep", "pass"))
        getattr(self, verb)(call_id, print_)

    def claim(self, call_id: str, print_: str) -> None:
        over = self.chance.choice(["", self.model.holder])
        expected = self.model.claim(call_id, print_, over)
        assert claim(self.shard, call_id, print_, over=over) == expected

    def admit(self, call_id: str, _print: str) -> None:
        if call_id not in self.model.ends:
            assert admit(self.shard, call_id, lease_ms=10**9)[0] == "OK"
            self.model.ends[call_id] = ("live", 0)

    def end(self, call_id: str, _print: str) -> None:
        if self.model.ends.get(call_id, ("",))[0] != "live":
            return
        if self.chance.random() < 0.5:
            outbox_id = settle(self.shard, 4, call_id)[7]
            self.model.ends[call_id] = ("settled", int(outbox_id.split("-")[0]))
        else:
            assert void(self.shard, call_id)[0] == "OK"
            del self.model.ends[call_id]

    def keep(self, call_id: str, print_: str) -> None:
        if self.chance.random() < 0.5:
            assert forget(self.shard, call_id) == self.model.forget(call_id)
            return
        answer = self.chance.choice(["", "x"])
        expected = self.model.remember(call_id, answer, print_)
        assert remember(self.shard, call_id, answer, print_=print_) == expected

    def pass_(self, milliseconds: int) -> None:
        self.model.now_ms += milliseconds
        self.shard.set_clock(self.model.now_ms * 1000)


setattr(Machine, "pass", lambda machine, *_: machine.pass_(machine.chance.choice((1, 300, 1_500))))


@pytest.mark.parametrize("seed", range(40))
def test_any_sequence_of_claims_and_ends_is_answered_as_by_the_model(
    account: LuaShard, seed: int
) -> None:
    machine = Machine(account, seed)
    for _ in range(120):
        machine.step()


def test_a_key_is_one_calls_until_that_is_over(account: LuaShard) -> None:
    assert claim(account) == ["NEW", NOW_MS + LEASE_MS, 0]
    assert claim(account) == ["NEW", NOW_MS + LEASE_MS, 0], "sent again: its reply was lost"
    assert claim(account, SECOND) == ["RUNNING"]
    assert claim(account, SECOND, OTHER) == ["OTHER"]
    assert remember(account) == "OK"
    assert claim(account, SECOND) == ["DONE", "answer"]
    assert claim(account, SECOND, OTHER) == ["OTHER"]
    assert forget(account) == "KEPT", "what was answered stays so"


def test_a_claim_that_was_never_admitted_is_taken_over_when_its_time_is_over(
    account: LuaShard,
) -> None:
    claim(account)
    account.set_clock(NOW_US + LEASE_MS * 1000 - 1000)
    assert claim(account, SECOND, over=FIRST) == ["RUNNING"]
    account.set_clock(NOW_US + LEASE_MS * 1000)
    assert claim(account, SECOND) == ["GONE", FIRST]
    assert claim(account, SECOND, over=CALLS[2]) == ["GONE", FIRST], "of exactly that call"
    assert claim(account, SECOND, over=FIRST)[0] == "NEW"
    assert remember(account, FIRST) == "KEPT"
    assert forget(account, FIRST) == "KEPT"
    assert claim(account, CALLS[2], over=FIRST) == ["RUNNING"]


def test_a_call_with_a_hold_keeps_its_key_however_long_it_runs(account: LuaShard) -> None:
    claim(account)
    admit(account, FIRST, lease_ms=HOLD_LEASE_MS)
    dispatch(account, FIRST, HOLD_LEASE_MS)
    account.set_clock(NOW_US + 10 * HOLD_LEASE_MS * 1000)
    assert claim(account, SECOND, over=FIRST) == ["RUNNING"]
    assert expire(account, FIRST)[0] == "OK"
    account.set_clock(2 * NOW_US)
    assert claim(account, SECOND) == ["ENDED", FIRST, 0, "unknown", 0]


def test_what_was_settled_at_nothing_can_be_taken_over(account: LuaShard) -> None:
    claim(account)
    admit(account, FIRST)
    settle(account, 0, FIRST)
    account.set_clock(2 * NOW_US)
    assert claim(account, SECOND)[:3] == ["ENDED", FIRST, 0]
    assert claim(account, SECOND, over=FIRST)[0] == "NEW"


def test_a_settlement_that_postgres_has_is_asked_of_postgres(account: LuaShard) -> None:
    claim(account)
    admit(account, FIRST)
    outbox_id = settle(account, 4, FIRST)[7]
    account.run("acknowledge", 7, FIRST, outbox_id)
    assert claim(account, SECOND) == ["RUNNING"]
    account.set_clock(NOW_US + LEASE_MS * 1000)
    assert claim(account, SECOND) == ["GONE", FIRST]


def test_a_key_that_was_given_back_is_free(account: LuaShard) -> None:
    claim(account)
    assert forget(account, SECOND) == "KEPT"
    assert forget(account) == "OK"
    assert forget(account) == "KEPT"
    assert claim(account, SECOND, OTHER)[0] == "NEW"


def test_who_may_not_call_hears_no_old_answer(account: LuaShard) -> None:
    claim(account)
    remember(account)
    account.run("amend", 7, 0, 0, "k:5", "-1")
    assert claim(account, SECOND) == ["KEY"]
    account.run("amend", 7, 0, 0, "k:5", str(NOW_MS))
    assert claim(account, SECOND) == ["KEY"]
    account.run("amend", 7, 0, 0, "k:5", f"{NOW_MS + 1} rs:10:20")
    assert claim(account, SECOND) == ["DONE", "answer"]
    account.run("amend", 7, 0, 0, "status", "suspended")
    assert claim(account, SECOND) == ["SUSPENDED"]


def test_who_may_not_make_this_call_any_more_hears_no_old_answer(account: LuaShard) -> None:
    claim(account)
    remember(account)
    account.run("amend", 7, 0, 0, "k:5", "0 gv:2 rs:10:20")
    assert claim(account, SECOND) == ["GUARD", 2]
    assert claim(account, SECOND, guard=2) == ["DONE", "answer"]
    account.run("amend", 7, 0, 0, "k:5", "0")
    assert claim(account, SECOND, guard=2) == ["GUARD", 0]


def test_nor_does_a_key_whose_parent_is_revoked(account: LuaShard) -> None:
    claim(account)
    remember(account)
    account.run("amend", 7, 0, 0, "k:4", "0")
    account.run("amend", 7, 0, 0, "k:5", "0 ct:100 up:4")
    account.client.hset(key("a:7"), "p:5", "4:100")
    assert claim(account, SECOND) == ["DONE", "answer"]
    account.run("amend", 7, 0, 0, "k:4", "-1")
    assert claim(account, SECOND) == ["KEY"]


def test_an_unknown_key_or_account_is_loaded_first(open_shard: LuaShard) -> None:
    assert claim(open_shard) == ["LOAD"]
    load(open_shard, lots={12: 10})
    assert claim(open_shard, key_id=6) == ["LOAD"]
    assert not open_shard.client.exists(key("i"))


def test_claims_in_a_shard_that_has_lost_data_are_marked_for_a_day(account: LuaShard) -> None:
    account.client.hset(key("meta"), "lost", NOW_MS)
    assert claim(account) == ["NEW", NOW_MS + LEASE_MS, 1]
    forget(account)
    account.set_clock(NOW_US + TTL_MS * 1000)
    assert claim(account)[2] == 0


def test_a_running_call_claims_anew_only_what_is_free(account: LuaShard) -> None:
    assert remember(account, FIRST, "") == "OK"
    assert claim(account, SECOND) == ["RUNNING"]
    assert remember(account, SECOND, "") == "KEPT"
    assert remember(account, FIRST) == "OK"
    assert remember(account, FIRST, "") == "OK"
    assert claim(account, SECOND) == ["DONE", "answer"], "an answer is not taken back"


def test_answers_of_an_account_are_bounded_by_receipts(account: LuaShard) -> None:
    claim(account)
    assert remember(account, answer="x" * BYTES_MAX) == "OK"
    assert remember(account, answer="y") == "RECEIPT"
    assert claim(account, SECOND) == ["DONE", "receipt"]
    assert 0 < account.client.pttl(key("ib")) <= ANSWER_TTL_MS


def test_records_outlive_answers_and_both_end(account: LuaShard) -> None:
    claim(account)
    assert ANSWER_TTL_MS < account.client.pttl(key("i")) <= TTL_MS
    remember(account)
    assert 0 < account.client.pttl(key("ia")) <= ANSWER_TTL_MS
    assert ANSWER_TTL_MS < account.client.pttl(key("i")) <= TTL_MS
    account.client.delete(key("ia"))
    assert claim(account, SECOND) == ["STORED", FIRST]
    assert claim(account, SECOND, over=FIRST) == ["STORED", FIRST], "it is never run again"


def test_a_closed_shard_takes_no_claims_and_keeps_what_is_answered(account: LuaShard) -> None:
    claim(account)
    account.run("close", 0, 4, 3)
    assert claim(account, SECOND) == ["CLOSED"]
    assert remember(account) == "OK"

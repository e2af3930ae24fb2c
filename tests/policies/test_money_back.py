"""How much of a payment's credits goes with its money, and comes again: proportional, exact."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.money_back import (
    Move,
    PaidBack,
    Standing,
    Step,
    giving,
    left_microcredits,
    paid_back,
    standing_of,
    taking,
    target_microcredits,
)

AMOUNTS = st.integers(0, 10**12)


@pytest.mark.parametrize(
    ("granted", "amount", "back", "target"),
    [
        (100, 900, PaidBack(300), 33),
        (100, 900, PaidBack(600), 66),
        (100, 900, PaidBack(300, 300), 66),
        (100, 900, PaidBack(900, 900), 100),  # refunded and disputed: it can't go back twice
        (100, 0, PaidBack(10), 0),  # nothing was paid
        (0, 900, PaidBack(900), 0),
        (2**53 - 1, 99_999_999, PaidBack(99_999_998), 9_007_199_164_668_997),
    ],
)
def test_what_is_to_be_gone_is_in_proportion_rounded_down(
    granted: int, amount: int, back: PaidBack, target: int
) -> None:
    assert target_microcredits(granted, amount, back) == target


@given(AMOUNTS, st.integers(1, 10**8), st.lists(st.integers(0, 10**8), max_size=8))
def test_steps_over_any_refunds_add_up_to_the_target_of_their_sum(
    granted: int, amount: int, refunds: list[int]
) -> None:
    gone = refunded = 0
    for refund in refunds:
        refunded += refund
        gone += target_microcredits(granted, amount, PaidBack(refunded)) - gone
    assert gone == target_microcredits(granted, amount, PaidBack(refunded))
    assert 0 <= gone <= granted


def test_what_came_again_is_taken_off_of_what_went_back_for_the_same_cause() -> None:
    moves = [
        Move("re_1", "refund", 300, 1),
        Move("txn_1", "dispute", 600, 2),
        Move("re_2", "refund", 50, 3),
        Move("txn_2", "dispute", -600, None),
    ]
    assert paid_back(moves) == PaidBack(350, 0)
    assert paid_back(moves[:3]) == PaidBack(350, 600)
    assert paid_back([]) == PaidBack()


def test_what_had_ended_unused_stands_in_before_anything_is_owed() -> None:
    assert taking(100, 30, 50, Standing()) == Step(100, 30, 20)
    assert taking(100, 30, 50, Standing(lapsed=50)) == Step(100, 30, 70)
    assert taking(100, 100, 50, Standing()) == Step(100, 100, 0)


def test_what_is_owed_goes_first_when_it_comes_again() -> None:
    standing = Standing(100, 50, 20, 30)
    assert giving(10, standing) == Step(-10, 0, 10)
    assert giving(40, standing) == Step(-40, 0, 30)
    assert giving(100, standing) == Step(-100, 50, 30)


@pytest.mark.parametrize(
    ("gone", "left"),
    [(0, [5, 0, 7]), (3, [2, 0, 7]), (5, [0, 0, 7]), (9, [0, 0, 3]), (12, [0, 0, 0])],
)
def test_what_is_gone_is_gone_of_the_first_lots_first(gone: int, left: list[int]) -> None:
    assert left_microcredits([5, 0, 7], gone) == left


@given(
    st.lists(
        st.tuples(st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 1_000)), max_size=8
    )
)
def test_the_parts_of_a_payment_are_its_steps_and_never_below_nothing(
    targets: list[tuple[int, int, int]],
) -> None:
    steps: list[Step] = []
    for target, taken, lost in targets:
        standing = standing_of(steps)
        due = target - standing.amount
        if due > 0:
            steps.append(taking(due, min(taken, due), lost, standing))
        elif due < 0:
            steps.append(giving(-due, standing))
        now = standing_of(steps)
        assert min(now) >= 0
        assert now.amount == now.taken + now.lapsed + now.owed == target

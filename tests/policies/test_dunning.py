"""The table of stages: what a subscription that is not paid for has lost by when."""

from __future__ import annotations

from typing import get_args, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.billing_options import DunningRules
from policies.dunning import (
    EVENTS,
    STAGES,
    Stage,
    Unpaid,
    serves,
    stage_at,
    told,
    with_another,
)

DAY_MS = 86_400_000
RULES = DunningRules()
NEVER = DunningRules(None, None, None, None)


@pytest.mark.parametrize(
    ("failures", "age_ms", "stage"),
    [
        (0, 0, Stage.FAILED),  # overdue, though nobody has tried
        (1, 0, Stage.FAILED),
        (1, 7 * DAY_MS - 1, Stage.FAILED),
        (2, 0, Stage.NOTIFIED),
        (3, 0, Stage.DOWNGRADED),
        (1, 7 * DAY_MS, Stage.DOWNGRADED),
        (9, 14 * DAY_MS - 1, Stage.DOWNGRADED),
        (1, 14 * DAY_MS, Stage.SUSPENDED),
    ],
)
def test_a_stage_is_reached_at_its_moment(failures: int, age_ms: int, stage: Stage) -> None:
    assert stage_at(Unpaid("in_1", failures, 1_000), 1_000 + age_ms, RULES) is stage
    assert stage_at(Unpaid("in_1", failures, 1_000), 1_000 + age_ms, NEVER) is Stage.FAILED


def test_nothing_unpaid_is_no_stage() -> None:
    assert stage_at(None, 10**15, RULES) is Stage.NONE


@pytest.mark.parametrize("name", list(get_type_hints(DunningRules)))
def test_each_stage_can_be_moved_and_left_out(name: str) -> None:
    assert set(get_args(get_type_hints(DunningRules)[name])) == {int, type(None)}
    only = DunningRules(**{**dict.fromkeys(get_type_hints(DunningRules)), name: 5})
    reached = {
        "notify_after_failures": Stage.NOTIFIED,
        "downgrade_after_failures": Stage.DOWNGRADED,
        "grace_days": Stage.DOWNGRADED,
        "suspend_after_days": Stage.SUSPENDED,
    }[name]
    by_days = name.endswith("days")
    for amount, stage in ((4, Stage.FAILED), (5, reached)):
        unpaid = Unpaid("in_1", 1 if by_days else amount, 0)
        assert stage_at(unpaid, amount * DAY_MS if by_days else 0, only) is stage


@given(
    st.integers(0, 20), st.integers(0, 40 * DAY_MS), st.integers(0, 5), st.integers(0, 40 * DAY_MS)
)
def test_more_failures_and_more_time_never_bring_a_stage_back(
    failures: int, age_ms: int, more: int, later_ms: int
) -> None:
    before = stage_at(Unpaid("in_1", failures, 0), age_ms, RULES)
    after = stage_at(Unpaid("in_1", failures + more, 0), age_ms + later_ms, RULES)
    assert STAGES.index(after) >= STAGES.index(before)


def test_every_stage_that_was_passed_is_told_and_a_way_back_is_not() -> None:
    assert told(Stage.NONE, Stage.SUSPENDED) == tuple(EVENTS)
    assert told(Stage.FAILED, Stage.DOWNGRADED) == (Stage.NOTIFIED, Stage.DOWNGRADED)
    assert told(Stage.SUSPENDED, Stage.NONE) == told(Stage.FAILED, Stage.FAILED) == ()


def test_a_downgraded_subscription_serves_no_more() -> None:
    assert [stage for stage in STAGES if serves(stage)] == [
        Stage.NONE,
        Stage.FAILED,
        Stage.NOTIFIED,
    ]


def test_nobody_is_suspended_whom_another_subscription_serves() -> None:
    assert with_another(Stage.SUSPENDED, is_served=True) is Stage.DOWNGRADED
    assert with_another(Stage.SUSPENDED, is_served=False) is Stage.SUSPENDED
    assert with_another(Stage.FAILED, is_served=True) is Stage.FAILED

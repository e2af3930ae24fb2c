"""Limits and caps: how they are written, rates, windows, and what they let through."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import Caps, Limits, Plan, QuotaWindow
from policies.limits import (
    BURST_MAX,
    MINUTE_US,
    PER_MINUTE_MAX,
    PER_SECOND_MAX,
    SECOND_US,
    AccountLimits,
    Counter,
    Rule,
    account_limits,
    delegated_rules_text,
    key_text,
    month_end_ms,
    parse_rules,
    rate,
    route_rules_text,
    rules_text,
    use,
    window_end_ms,
)
from policies.spans import DAY_MS

NOW_US = 1_790_000_000_000_123
NOW_MS = NOW_US // 1000
AMOUNT_MAX = 2**53 - 1
per_minutes = st.one_of(st.integers(1, 1000), st.integers(1, PER_MINUTE_MAX))

# How they are written.

counts = st.one_of(st.just(0), st.integers(0, 10**6))
amounts = st.one_of(st.just(0), st.integers(0, AMOUNT_MAX))
some_limits = st.builds(Limits, counts, counts, counts, counts, counts)
some_caps = st.builds(Caps, amounts, amounts, amounts, amounts)


def test_rules_are_written_as_the_scripts_read_them() -> None:
    limits = Limits(10, 600, 20, 1000, 5)
    caps = Caps(1, 2, 3, 4)
    assert rules_text(limits, caps) == "rs:10:20 rm:600 qm:1000 cc:5 cd:1 cm:2 ct:3 cs:4"
    assert rules_text(Limits(requests_per_minute=600, burst=50), Caps()) == "rm:600:50"
    assert rules_text(Limits(burst=50), Caps()) == ""
    assert route_rules_text(7, Limits(concurrency=5), Caps(day=9)) == "R7 cc:5 cd:9"
    assert route_rules_text(7, Limits(), Caps()) == ""
    assert key_text(0, "") == "0"
    assert key_text(-1, "cc:5") == "-1 cc:5"


def test_a_keys_guards_and_a_delegated_keys_budget_and_parent_are_rules() -> None:
    assert rules_text(Limits(), Caps(), 3) == "gv:3"
    assert rules_text(Limits(concurrency=5), Caps(day=9), 3) == "gv:3 cc:5 cd:9"
    carved = delegated_rules_text(
        Limits(requests_per_second=2), Caps(total=99), parent_key_id=17, budget_microcredits=40
    )
    assert carved == "ct:40 up:17 rs:2"
    guarded = delegated_rules_text(
        Limits(), Caps(), parent_key_id=17, budget_microcredits=40, guard_version=2
    )
    assert guarded == "ct:40 up:17 gv:2"
    assert [rule.kind for rule in parse_rules(guarded)] == ["ct", "up", "gv"]


def test_a_delegated_key_without_a_budget_is_refused() -> None:
    # A cap of 0 would be no cap.
    with pytest.raises(ValueError, match="budget"):
        delegated_rules_text(Limits(), Caps(), parent_key_id=17, budget_microcredits=0)


def test_a_route_has_no_cap_per_session() -> None:
    with pytest.raises(ValueError, match="per session"):
        route_rules_text(7, Limits(), Caps(session=1))


@given(some_limits, some_caps)
def test_no_limit_is_lost_in_writing(limits: Limits, caps: Caps) -> None:
    rules = {rule.kind: rule for rule in parse_rules(rules_text(limits, caps))}
    assert len(rules) == sum(map(bool, (*_numbers(limits), *_numbers(caps)))) - bool(limits.burst)
    found = [rules.get(kind, Rule(kind, 0)).limit for kind in ("rs", "rm", "qm", "cc")]
    assert found == [n for name, n in _named(limits) if name != "burst"]
    assert [rules.get(kind, Rule(kind, 0)).limit for kind in ("cd", "cm", "ct", "cs")] == [
        *_numbers(caps)
    ]
    bursts = {rule.parameter for rule in rules.values()} - {0}
    rated = limits.requests_per_second or limits.requests_per_minute
    assert bursts == ({limits.burst} - {0} if rated else set())


@pytest.mark.parametrize(
    "text",
    [
        *("rs", "rs:", "rs:-1", "rs:1.5", "xx:1", "rs:1:2:3", "rs:1  rm:2", " rs:1", "cd:1:2"),
        *("dp:10001", "dp:100:1"),
        *("qm:1:2", "RS:1", f"cd:{2**53}", "rs:1,rm:2", "cc:٣"),
    ],
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"limit|too"):
        parse_rules(text)


def test_a_plan_keeps_its_plain_limits_in_fields_of_their_own() -> None:
    plan = Plan("p", 0, requests_per_minute=600, requests_per_month=1000, concurrency=5)
    assert account_limits(plan) == AccountLimits(600, 1000, 5, "")
    assert account_limits(plan, NOW_MS, NOW_MS + 9) == AccountLimits(600, 1000, 5, "")
    assert account_limits(Plan("none", 0)) == AccountLimits(0, 0, 0, "")


def test_everything_else_of_a_plan_is_in_its_rules() -> None:
    burst = Plan("p", 0, requests_per_minute=600, burst=50, caps=Caps(day=9, session=8))
    assert account_limits(burst) == AccountLimits(0, 0, 0, "rm:600:50 cd:9 cs:8")
    both = Plan("p", 0, requests_per_second=10, requests_per_minute=600, burst=20)
    assert account_limits(both) == AccountLimits(600, 0, 0, "rs:10:20")


def test_a_plans_quota_by_billing_period_names_the_period() -> None:
    plan = Plan("p", 0, requests_per_month=1000, quota_window=QuotaWindow.BILLING)
    assert account_limits(plan, 5, 9) == AccountLimits(0, 0, 0, "qp:1000 pw:5:9")
    assert account_limits(plan, 5) == AccountLimits(0, 0, 0, "qp:1000 pw:5:5")
    assert account_limits(plan) == AccountLimits(0, 0, 0, "qp:1000")
    unlimited = Plan("p", 0, quota_window=QuotaWindow.BILLING)
    assert account_limits(unlimited, 5, 9) == AccountLimits(0, 0, 0, "")


def test_prices_by_billing_period_name_the_period_whatever_the_plan_limits() -> None:
    for window in QuotaWindow:
        plan = Plan("p", 0, requests_per_minute=600, quota_window=window)
        assert account_limits(plan, 5, 9, tiers=True) == AccountLimits(600, 0, 0, "pw:5:9")
        assert account_limits(plan, tiers=True) == AccountLimits(600, 0, 0, "")
    both = Plan("p", 0, requests_per_month=1000, quota_window=QuotaWindow.BILLING)
    assert account_limits(both, 5, 9, tiers=True).rules == "qp:1000 pw:5:9"
    assert account_limits(None, 5, 9, tiers=True).rules == "pw:5:9"


def test_an_accounts_own_discount_stands_in_for_its_plans() -> None:
    plan = Plan("p", 0, concurrency=5, discount_basis_points=1_500)
    assert account_limits(plan) == AccountLimits(0, 0, 5, "dp:1500")
    assert account_limits(plan, discount=2_000).rules == "dp:2000"
    assert account_limits(plan, discount=0).rules == ""
    assert account_limits(None, discount=10_000) == AccountLimits(0, 0, 0, "dp:10000")
    assert account_limits(None) == AccountLimits(0, 0, 0, "")
    assert parse_rules("cd:9 dp:1500") == (Rule("cd", 9), Rule("dp", 1_500))


# Rates.


@given(per_minutes)
def test_a_full_minutes_calls_may_come_at_once_and_not_one_more(per_minute: int) -> None:
    per_minute = min(per_minute, 500)
    tat_us = 0
    for left in reversed(range(per_minute)):
        asked = rate(per_minute, tat_us, NOW_US)
        assert (asked.remaining, asked.retry_after_ms) == (left, 0)
        tat_us = asked.tat_us
    assert rate(per_minute, tat_us, NOW_US).retry_after_ms > 0


@given(st.integers(1, PER_SECOND_MAX), st.integers(1, 300))
def test_a_burst_may_come_at_once_and_not_one_more(per_second: int, burst: int) -> None:
    tat_us = 0
    for left in reversed(range(burst)):
        asked = rate(per_second, tat_us, NOW_US, period_us=SECOND_US, burst=burst)
        assert (asked.remaining, asked.retry_after_ms) == (left, 0)
        tat_us = asked.tat_us
    assert rate(per_second, tat_us, NOW_US, period_us=SECOND_US, burst=burst).retry_after_ms > 0


def test_the_largest_burst_stays_far_below_2_53_microseconds() -> None:
    asked = rate(1, 0, NOW_US, burst=BURST_MAX)
    assert asked.remaining == BURST_MAX - 1
    assert NOW_US + BURST_MAX * MINUTE_US < 2**53 // 4


@given(per_minutes, st.integers(0, 2 * MINUTE_US))
def test_a_call_passes_after_the_time_that_its_refusal_named_and_not_before(
    per_minute: int, ahead_us: int
) -> None:
    asked = rate(per_minute, NOW_US + ahead_us, NOW_US)
    if asked.retry_after_ms:
        later_us = NOW_US + asked.retry_after_ms * 1000
        assert rate(per_minute, NOW_US + ahead_us, later_us).retry_after_ms == 0
        if asked.retry_after_ms > 1:
            assert rate(per_minute, NOW_US + ahead_us, later_us - 1001).retry_after_ms > 0


@given(
    st.integers(1, 20),
    st.sampled_from([SECOND_US, MINUTE_US]),
    st.integers(1, 30),
    st.lists(st.integers(0, MINUTE_US), max_size=60),
)
def test_in_the_long_run_no_more_calls_pass_than_the_limit_and_one_burst(
    limit: int, period_us: int, burst: int, pauses_us: list[int]
) -> None:
    tat_us, now_us, admitted = 0, NOW_US, 0
    for pause_us in pauses_us:
        now_us += pause_us
        asked = rate(limit, tat_us, now_us, period_us=period_us, burst=burst)
        if not asked.retry_after_ms:
            tat_us, admitted = asked.tat_us, admitted + 1
    assert admitted <= burst + (now_us - NOW_US) * limit // period_us + 1


@given(per_minutes, st.integers(3 * MINUTE_US, 10**15))
def test_a_clock_that_went_back_locks_nobody_out(per_minute: int, back_us: int) -> None:
    assert rate(per_minute, NOW_US + back_us, NOW_US) == rate(per_minute, 0, NOW_US)


def test_looking_at_a_rate_takes_nothing() -> None:
    assert rate(600, 0, NOW_US, calls=0) == (NOW_US, 600, 0)


# Quotas and caps.

kept_counters = st.builds(Counter, st.sampled_from([0, NOW_MS, NOW_MS + 9]), st.integers(0, 50))


@given(kept_counters, st.integers(1, 40), st.lists(st.integers(0, 20), max_size=12))
def test_whatever_is_held_at_once_a_cap_is_not_passed(
    kept: Counter, limit: int, asked: list[int]
) -> None:
    end_ms = NOW_MS + 9
    counter = kept.at(end_ms)
    before = counter.used
    for amount in asked:
        answer = use(limit, counter, end_ms, NOW_MS, amount)
        assert answer.refused == (amount > 0 and counter.used + amount > limit)
        if not answer.refused:
            counter = counter._replace(used=counter.used + amount)
    assert counter.used <= max(limit, before)


@given(kept_counters, st.integers(1, 20), st.integers(0, 30), st.sampled_from([0, NOW_MS + 9]))
def test_a_refusal_names_when_the_window_that_refused_is_over(
    kept: Counter, limit: int, amount: int, end_ms: int
) -> None:
    answer = use(limit, kept, end_ms, NOW_MS, amount)
    if answer.retry_after_ms:
        assert answer.refused
        later_ms = NOW_MS + answer.retry_after_ms
        assert later_ms == end_ms
        assert not use(limit, answer.counter, later_ms + 5, later_ms, amount).refused
    elif answer.refused:
        assert end_ms == 0 or amount > limit


def test_another_window_begins_with_nothing_used() -> None:
    counter = Counter(NOW_MS, 7)
    assert counter.at(NOW_MS) == counter
    assert counter.at(NOW_MS + 1) == Counter(NOW_MS + 1, 0)
    assert Counter().at(0) == Counter(0, 0)


def test_a_calls_end_corrects_only_the_window_that_counted_it() -> None:
    counter = Counter(NOW_MS, 7)
    assert counter.changed(NOW_MS, -3) == Counter(NOW_MS, 4)
    assert counter.changed(NOW_MS, 3) == Counter(NOW_MS, 10)
    assert counter.changed(NOW_MS, -8) == Counter(NOW_MS, 0)
    assert counter.changed(NOW_MS - 1, -3) == counter
    assert str(counter) == f"{NOW_MS}:7"


def test_windows_are_half_open() -> None:
    period = Rule("pw", NOW_MS + 10, NOW_MS + 20)
    ends = [window_end_ms("qp", NOW_MS + after, period) - NOW_MS for after in (9, 10, 19)]
    assert ends == [10, 20, 20]
    assert window_end_ms("qp", NOW_MS + 20, period) == month_end_ms(NOW_MS + 20)
    assert window_end_ms("qp", NOW_MS) == month_end_ms(NOW_MS)
    assert window_end_ms("cd", DAY_MS - 1) == DAY_MS
    assert window_end_ms("cd", DAY_MS) == 2 * DAY_MS
    assert window_end_ms("ct", NOW_MS) == window_end_ms("cs", NOW_MS) == 0


@given(st.datetimes(datetime(1970, 1, 1), datetime(2399, 12, 1)))  # noqa: DTZ001 -- made UTC below
def test_a_month_ends_when_the_calendar_says(moment: datetime) -> None:
    moment = moment.replace(tzinfo=UTC)
    year, month = divmod(moment.year * 12 + moment.month, 12)
    expected = datetime(year, month + 1, 1, tzinfo=UTC)
    now_ms = int(moment.timestamp()) * 1000 + 999
    assert month_end_ms(now_ms) == int(expected.timestamp()) * 1000


@pytest.mark.parametrize(
    ("last", "end"),
    [
        ("2024-02-29T23:59:59+00:00", "2024-03-01T00:00:00+00:00"),
        ("2023-02-28T23:59:59+00:00", "2023-03-01T00:00:00+00:00"),
        ("2100-02-28T23:59:59+00:00", "2100-03-01T00:00:00+00:00"),
        ("2026-12-31T23:59:59+00:00", "2027-01-01T00:00:00+00:00"),
    ],
)
def test_the_last_second_of_a_month_belongs_to_it(last: str, end: str) -> None:
    last_ms = int(datetime.fromisoformat(last).timestamp()) * 1000
    end_ms = int(datetime.fromisoformat(end).timestamp()) * 1000
    assert month_end_ms(last_ms) == end_ms
    assert month_end_ms(end_ms) > end_ms


def _named(values: Limits | Caps) -> list[tuple[str, int]]:
    return [(name, getattr(values, name)) for name in values.__slots__]


def _numbers(values: Limits | Caps) -> list[int]:
    return [number for _, number in _named(values)]

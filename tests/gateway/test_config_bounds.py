"""Limits, caps, overage and rollover in the config: read exactly, and refused where they clash."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.config import Config, ConfigError, load_config
from policies.catalog import Caps, Limits, Plan, QuotaWindow, RefundExpired

ROOT = Path(__file__).parents[2]
PLAN = '[[plans]]\nslug = "pro"\ncredits = "100"\n'
ROUTE = '[[routes]]\nname = "chat"\nmatch = "POST /a"\nupstream = "http://agent"\n'
PRICE = '[routes.price]\nper_request = "2"\n'
# Needs a file, and an upstream with https; stand in for other keys; are for other protocols.
NOT_TRIED = (
    *("tls_ca_file", "# tiers", "# estimate_per_unit"),
    *("[routes.a2a]", "# charge", "# task_lease_s"),
    *("[routes.websocket]", "# message_max_bytes", "# check_s"),
)


def load(tmp_path: Path, text: str) -> Config:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load_config(file)


def problems_of(tmp_path: Path, text: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert len(caught.value.problems) == len(dict(caught.value.problems))
    return dict(caught.value.problems)


def test_a_plan_with_everything_is_read_exactly(tmp_path: Path) -> None:
    text = """
        period = "month"
        requests_per_second = 20
        requests_per_minute = 600
        burst = 40
        requests_per_month = 100000
        concurrency = 50
        quota_window = "billing"
        overage = "bill"
        overage_cap = "500"
        rollover = "250"
        rollover_periods = 3
        low_credits = "12.5"
        refund_expired = "nothing"
        [plans.caps]
        day = "1"
        month = "2"
        total = "3"
        session = "0.5"
    """
    (plan,) = load(tmp_path, PLAN + text).plans
    assert plan == Plan(
        slug="pro",
        credits_microcredits=100_000_000,
        requests_per_minute=600,
        requests_per_month=100_000,
        concurrency=50,
        requests_per_second=20,
        burst=40,
        quota_window=QuotaWindow.BILLING,
        caps=Caps(1_000_000, 2_000_000, 3_000_000, 500_000),
        overage_cap_microcredits=500_000_000,
        rollover_microcredits_max=250_000_000,
        rollover_periods=3,
        low_credits_microcredits=12_500_000,
        refund_expired=RefundExpired.NOTHING,
    )
    assert plan.limits == Limits(20, 600, 40, 100_000, 50)


def test_a_plan_that_says_no_more_than_its_credits_limits_nothing(tmp_path: Path) -> None:
    (plan,) = load(tmp_path, PLAN).plans
    assert plan == Plan("pro", 100_000_000)
    assert (plan.limits, plan.caps) == (Limits(), Caps())
    assert plan.overage_cap_microcredits == plan.rollover_microcredits_max == 0


@pytest.mark.parametrize(("text", "most"), [("none", 0), ("all", None), ("0.5", 500_000)])
def test_rollover_is_none_all_or_an_amount(tmp_path: Path, text: str, most: int | None) -> None:
    (plan,) = load(tmp_path, f'{PLAN}rollover = "{text}"').plans
    assert (plan.rollover_microcredits_max, plan.rollover_periods) == (most, 1)


def test_a_route_with_everything_is_read_exactly(tmp_path: Path) -> None:
    text = """
        when_redis_is_down = { allow = "5" }
        [routes.limits]
        requests_per_second = 1
        requests_per_minute = 2
        burst = 3
        requests_per_month = 4
        concurrency = 5
        [routes.caps]
        day = "6"
        month = "7"
        total = "8"
    """
    (route,) = load(tmp_path, ROUTE + text + PRICE).routes
    assert route.limits == Limits(1, 2, 3, 4, 5)
    assert route.caps == Caps(6_000_000, 7_000_000, 8_000_000, 0)
    assert route.trust_microcredits == 5_000_000


def test_a_route_that_says_nothing_of_bounds_has_none(tmp_path: Path) -> None:
    (route,) = load(tmp_path, ROUTE + PRICE).routes
    assert (route.limits, route.caps, route.trust_microcredits) == (Limits(), Caps(), 0)


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ('overage_cap = "5"', "overage_cap", 'of no use without overage = "bill"'),
        ('overage = "block"\novergae_cap = "5"', "overgae_cap", 'did you mean "overage_cap"?'),
        ('overage = "bill"', "overage_cap", 'is missing: overage = "bill" needs a most'),
        ('overage = "bill"\noverage_cap = "0"', "overage_cap", 'write overage = "block"'),
        ('overage = "bill"\noverage_cap = 5', "overage_cap", 'write "5"'),
        ('overage = "bill"\noverage_cap = "five"', "overage_cap", "not a plain decimal"),
        ('overage = "never"', "overage", 'there is "block" and "bill"'),
        ("burst = 5", "burst", "without requests_per_second or requests_per_minute"),
        ("burst = 5\nrequests_per_month = 5", "burst", "of no use"),
        ("requests_per_second = 1000001", "requests_per_second", "from 0 to 1000000"),
        ("requests_per_minute = -1", "requests_per_minute", "from 0 to 1000000"),
        ('quota_window = "billing"', "quota_window", "without requests_per_month"),
        ('requests_per_month = 1\nquota_window = "week"', "quota_window", '"week" is unknown'),
        ("rollover_periods = 2", "rollover_periods", "of no use without rollover"),
        ('rollover = "none"\nrollover_periods = 2', "rollover_periods", "of no use"),
        ('rollover = "all"\nrollover_periods = 0', "rollover_periods", "from 1 to 120"),
        ('rollover = "0"', "rollover", 'write "none"'),
        ('rollover = "some"', "rollover", 'nor "all" or "none"'),
        ("rollover = 250", "rollover", "must be a text"),
        ('refund_expired = "money"', "refund_expired", '"money" is unknown'),
        ("low_credits = 5", "low_credits", 'write "5"'),
        ('caps = { day = "2", month = "1" }', "caps.day", 'above month, "1"'),
        ('caps = { month = "2", total = "1" }', "caps.month", 'above total, "1"'),
        ('caps = { session = "2", total = "1" }', "caps.session", "never be reached"),
        ('caps = { week = "2" }', "caps.week", "unknown key"),
        ('caps = "5"', "caps", "must be a table"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(
    tmp_path: Path, text: str, where: str, message: str
) -> None:
    ((key, found),) = problems_of(tmp_path, PLAN + text).items()
    assert key == f"plans[pro].{where}"
    assert message in found


def test_a_plan_without_credits_has_nothing_to_leave(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, '[[plans]]\nslug = "payg"\nrollover = "all"')
    assert problems == {"plans[payg].rollover": "is of no use: the plan has no credits to leave"}


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("limits = { burst = 5 }", "limits.burst", "of no use"),
        ("limits = { requests_per_hour = 5 }", "limits.requests_per_hour", "unknown key"),
        ('caps = { session = "5" }', "caps.session", "for a plan or a key"),
        ('caps = { day = "1.9" }', "caps.day", 'lets no call pass: one holds "2"'),
        ('caps = { total = "1" }', "caps.total", "lets no call pass"),
        ('when_redis_is_down = { allow = "1" }', "when_redis_is_down.allow", "lets no call pass"),
        ("when_redis_is_down = {}", "when_redis_is_down.allow", "is missing"),
        ("when_redis_is_down = { allow = 5 }", "when_redis_is_down.allow", 'write "5"'),
        ('when_redis_is_down = "allow"', "when_redis_is_down", "must be a table"),
    ],
)
def test_a_route_that_contradicts_itself_is_refused(
    tmp_path: Path, text: str, where: str, message: str
) -> None:
    ((key, found),) = problems_of(tmp_path, f"{ROUTE}{text}\n{PRICE}").items()
    assert key == f"routes[chat].{where}"
    assert message in found


def test_a_free_route_has_no_caps(tmp_path: Path) -> None:
    text = f'{ROUTE}free = true\ncaps = {{ day = "1" }}'
    assert problems_of(tmp_path, text) == {"routes[chat].caps": "are of no use: this route is free"}


@pytest.mark.parametrize(
    "line", ["lease_s = 1", "lease_s = 3601", "backlog_minutes_max = 0", "lease_s = 2.5"]
)
def test_a_lease_or_backlog_out_of_bounds_is_refused(tmp_path: Path, line: str) -> None:
    key = line.partition(" ")[0]
    assert list(problems_of(tmp_path, f"[gateway]\n{line}")) == [f"gateway.{key}"]


def test_every_mistake_of_every_table_is_told_at_once(tmp_path: Path) -> None:
    plans = f'{PLAN}burst = 5\noverage = "bill"\nrollover_periods = 2\n'
    routes = f'{ROUTE}limits = {{ burst = 5 }}\ncaps = {{ day = "1" }}\n{PRICE}'
    assert set(problems_of(tmp_path, plans + routes)) == {
        *(f"plans[pro].{key}" for key in ("burst", "overage_cap", "rollover_periods")),
        *(f"routes[chat].{key}" for key in ("limits.burst", "caps.day")),
    }


def test_limits_and_bounds_that_the_example_has_commented_out_go_together(
    tmp_path: Path,
) -> None:
    """Each of its options alone is tried in test_config_example.py."""
    text = (ROOT / "config.toml").read_text()
    lines = [
        re.sub(r"^# (?=[a-zA-Z_]+ = |\[)", "", line)
        for line in text.splitlines()
        if not any(word in line for word in NOT_TRIED)
    ]
    assert "\n# key_pepper = " in text
    config = load(tmp_path, "\n".join(lines))
    (free, _, business), chat = config.plans, config.routes[0]
    assert free.caps.session
    assert free.rollover_microcredits_max
    assert free.low_credits_microcredits
    assert business.overage_cap_microcredits == 500_000_000
    assert chat.limits != Limits()
    assert chat.caps != Caps()
    assert chat.trust_microcredits
    assert free.burst > free.requests_per_second > 0

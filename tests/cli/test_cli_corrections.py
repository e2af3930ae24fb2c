"""Commands that correct: calls refunded, grants adjusted, keys limited, plans changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest_asyncio

from tests.support.debts import owe
from tests.support.deployment import CREDIT, Caller, Deployment, running_deployment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.cli.conftest import CommandLine

PLANS = """
[platform]
slug = "demo"

[[plans]]
slug = "free"
credits = "7"
low_credits = "2"

[[plans]]
slug = "pro"
credits = "50"
requests_per_second = 5
burst = 9
overage = "bill"
overage_cap = "20"
rollover = "all"
[plans.caps]
day = "30"
"""


@pytest_asyncio.fixture
async def deployment(clean_redis_url: str, postgres_url: str) -> AsyncIterator[Deployment]:
    async with running_deployment(clean_redis_url, postgres_url) as running:
        yield running


async def called(deployment: Deployment, *amounts: int) -> tuple[Caller, list[str]]:
    """alice with 100 credits, and the ids of her settled calls."""
    caller = await deployment.caller("alice")
    calls = [await deployment.call(caller, amount * CREDIT) for amount in amounts]
    await deployment.carry()
    return caller, calls


def told(document: dict[str, Any]) -> dict[str, Any]:
    """Without what there is none of."""
    return {name: value for name, value in document.items() if value is not None}


async def manual_grant(cli: CommandLine) -> dict[str, Any]:
    """What alice began with."""
    grants: list[dict[str, Any]] = (await cli.json("grants", "list", "alice"))["grants"]
    return next(grant for grant in grants if grant["source"] == "manual")


async def test_a_call_is_listed_shown_and_refunded_once(
    cli: CommandLine, deployment: Deployment
) -> None:
    caller, (first, second) = await called(deployment, 3, 4)
    calls = (await cli.json("calls", "list", "alice"))["calls"]
    charged = [(call["request_id"], call["charged_credits"]) for call in calls]
    assert charged == [(second, "4"), (first, "3")]
    assert len((await cli.json("calls", "list", "alice", "--limit", "1"))["calls"]) == 1
    refund = await cli.json("calls", "refund", second, "--note", "Wrong answer")
    assert refund["refund"] == {
        "request_id": second,
        "account_id": caller.account.account_id,
        "restored_credits": "4",
        "granted_credits": "0",
        "forfeited_credits": "0",
        "grant_id": None,
    }
    shown = (await cli.json("calls", "show", second))["receipt"]
    assert (shown["account"], shown["charged_credits"], shown["net_credits"]) == ("alice", "4", "0")
    assert [(entry["kind"], entry["credits"], entry["note"]) for entry in shown["postings"]] == [
        ("settle", "-4", ""),
        ("refund", "4", "Wrong answer"),
    ]
    again = await cli("calls", "refund", second)
    assert (again.code, again.err) == (2, f"tollkeeper: call {second} is refunded already.\n")
    people = await cli("calls", "show", second)
    assert "Held 4, charged 4 credits, refunded 4: 0 in the end." in people.out
    assert "Wrong answer" in people.out
    assert "Given back: 3 credits" in (await cli("calls", "refund", first)).out
    grant = await manual_grant(cli)
    sums = ("settled_credits", "credited_credits", "left_credits")
    assert [grant[name] for name in sums] == ["7", "7", "100"]


async def test_a_grant_is_adjusted_both_ways_and_revoked(
    cli: CommandLine, deployment: Deployment
) -> None:
    await called(deployment, 10)
    number = str((await manual_grant(cli))["id"])
    adjust = ("grants", "adjust", number)
    added = (await cli.json(*adjust, "--add", "5", "--note", "Was late"))["adjustment"]
    assert (added["credits"], added["grant"]["credited_credits"]) == ("5", "5")
    taken = (await cli.json(*adjust, "--take", "1000"))["adjustment"]
    assert taken["credits"] == "-95"
    assert taken["grant"]["revoked_credits"] == "95"
    assert taken["grant"]["left_credits"] == "0"
    assert "5.5 credits more" in (await cli("grants", "adjust", number, "--add", "5.5")).out
    assert "Taken 0.5 credits" in (await cli("grants", "adjust", number, "--take", "0.5")).out
    for words in ((), ("--add", "1", "--take", "1"), ("--add", "0"), ("--take", "x")):
        assert (await cli("grants", "adjust", number, *words)).code == 2
    revoked = await cli("grants", "revoke", number)
    assert "is revoked, with 5 credits left in it" in revoked.out
    again = await cli.json("grants", "revoke", number)
    assert again["grant"]["revoked_at"]
    assert "with 0 credits left in it" in (await cli("grants", "revoke", number)).out
    assert (await cli("grants", "revoke", "99")).code == 2
    assert (await cli.json("audit"))["clean"]


async def test_a_keys_limits_are_set_shown_and_taken_away(cli: CommandLine) -> None:
    await cli.json("apply")
    await cli.json("accounts", "create", "alice")
    bounds = ("--rps", "5", "--burst", "9", "--cap-day", "2.5", "--cap-session", "1")
    number = str((await cli.json("keys", "create", "alice", *bounds))["key"]["id"])
    (key,) = (await cli.json("keys", "list"))["keys"]
    assert told(key["limits"]) == {"requests_per_second": 5, "burst": 9}
    assert told(key["caps"]) == {"day": "2.5", "session": "1"}
    assert "5/s, burst 9, 2.5 credits/day" in (await cli("keys", "list")).out
    changed = await cli("keys", "limit", number, "--cap-day", "0", "--rpm", "60")
    assert "has 5/s, 60/min, burst 9, 1 credits/session." in changed.out
    nothing = ["--rps", "0", "--rpm", "0", "--burst", "0", "--cap-session", "0"]
    cleared = await cli("keys", "limit", number, *nothing)
    assert "has no limits of its own" in cleared.out
    for words in ((), ("--burst", "5"), ("--cap-day", "five"), ("--rps", "-1")):
        answer = await cli("keys", "limit", number, *words)
        assert answer.code == 2, words
        assert answer.err


async def test_an_account_changes_its_plan_and_each_period_has_overage_of_its_own(
    cli: CommandLine, deployment: Deployment
) -> None:
    cli.config.write_text(cli.config.read_text().partition("[platform]")[0] + PLANS)
    await cli.json("apply")
    await called(deployment)
    answer = await cli.json("accounts", "set-plan", "alice", "pro")
    assert answer["account"]["plan"] == "pro"
    assert "is on plan pro" in (await cli("accounts", "set-plan", "alice", "pro")).out
    assert (await cli("accounts", "set-plan", "alice", "prop")).code == 2
    (plan,) = (p for p in (await cli.json("plans", "list"))["plans"] if p["slug"] == "pro")
    assert (plan["overage_cap"], plan["rollover"]) == ("20", "all")
    assert told(plan["caps"]) == {"day": "30"}
    assert "5/s, burst 9, 30 credits/day" in (await cli("plans", "list")).out
    await cli.json("accounts", "set-plan", "alice", "free")
    await cli.json("accounts", "set-plan", "alice", "pro")
    shown = await cli.json("accounts", "show", "alice")
    overage = [grant for grant in shown["grants"] if grant["source"] == "overage"]
    assert [grant["granted_credits"] for grant in overage] == ["20"] * 2


async def test_overage_is_shown_below_zero(cli: CommandLine, deployment: Deployment) -> None:
    plans = PLANS.replace('day = "30"', 'day = "900"')
    cli.config.write_text(cli.config.read_text().partition("[platform]")[0] + plans)
    await cli.json("apply")
    caller, _ = await called(deployment, 40)
    await cli.json("accounts", "set-plan", "alice", "pro")
    number = str((await manual_grant(cli))["id"])
    await cli.json("grants", "revoke", number)
    await deployment.call(caller, 45 * CREDIT)
    await deployment.call(caller, 10 * CREDIT)
    await deployment.carry()
    shown = await cli.json("accounts", "show", "alice")
    assert (shown["balance"]["available_credits"], shown["balance"]["live"]) == ("-5", True)
    assert shown["grants"][-1]["source"] == "overage"
    people = (await cli("accounts", "show", "alice")).out
    assert "Now 5 credits below zero by overage, 0 held" in people
    (row,) = [line.split() for line in people.splitlines() if " overage " in line]
    assert row[2:8] == ["0", "0", "5", "0", "0", "-5"]  # nothing was given, so it is owed
    balance = (await cli("balance", "alice")).out
    (row,) = [line.split() for line in balance.splitlines() if " overage " in line]
    assert row[2:6] == ["0", "0", "-5", "0"], "as its grant is shown"
    assert balance.endswith(" may take 15 credits more.\n")


async def test_a_debt_is_shown_to_all_and_a_grant_says_what_of_it_paid_for_that(
    cli: CommandLine, deployment: Deployment
) -> None:
    caller, _ = await called(deployment, 0)
    debt = "144 credits of debt"
    await owe(deployment.postgres_url, caller.account, 144 * CREDIT)
    for command in (("balance",), ("accounts", "show"), ("subscriptions", "show")):
        assert debt in (await cli(*command, "alice")).out

    said = (await cli("grants", "add", "alice", "200")).out
    assert "has 56 credits more" in said
    assert "144 of the 200 paid its debt" in said
    assert "debt" not in (await cli("balance", "alice")).out
    assert "credits more (grant" in (await cli("grants", "add", "alice", "1")).out


async def test_events_say_what_was_crossed(cli: CommandLine, deployment: Deployment) -> None:
    cli.config.write_text(cli.config.read_text().partition("[platform]")[0] + PLANS)
    await cli.json("apply")
    assert (await cli.json("accounts", "create", "bob", "--plan", "free"))["account"]["plan"]
    assert "There are no events yet." in (await cli("events", "bob")).out
    caller, _ = await called(deployment)
    await cli.json("accounts", "set-plan", "alice", "free")
    await cli.json("grants", "revoke", str((await manual_grant(cli))["id"]))
    await deployment.call(caller, 6 * CREDIT)
    await deployment.carry()
    await deployment.ledger.detect_thresholds()
    await deployment.ledger.detect_low_credits()
    events = (await cli.json("events", "alice"))["events"]
    assert [(event["kind"], event["detail"].get("percent")) for event in events] == [
        ("threshold", 70),
        ("low_credits", None),
    ]
    assert events[1]["detail"] == {"available": "1", "mark": "2"}
    people = (await cli("events", "alice")).out
    assert "70 % of this period's 7 credits are used" in people
    assert "1 credits left, fewer than 2" in people

"""Redis is loaded with rules, and with what quotas, caps and sessions have counted until now."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg

from gateway.counters import Counters
from gateway.ledger.periods import AccountChange
from gateway.ledger.queries import load_queries
from policies.catalog import (
    Caps,
    Limits,
    MeterSpec,
    Plan,
    Platform,
    Price,
    QuotaWindow,
    Route,
    Source,
    Tier,
)
from policies.limits import month_end_ms
from policies.periods import months_after_ms
from policies.spans import DAY_MS
from tests.support.settlements import account_with_grants, ledger_change, settlement

if TYPE_CHECKING:
    from gateway.ledger import KeyListRow, Ledger
    from gateway.ledger.rows import KeyFacts
    from gateway.ledger.seeds import State
    from policies.settlement import Settlement

HOUR_MS = 3_600_000
CAPPED = Plan(
    "capped",
    1_000_000,
    requests_per_minute=60,
    requests_per_month=500,
    concurrency=7,
    requests_per_second=5,
    quota_window=QuotaWindow.BILLING,
    caps=Caps(day=100, month=2_000, total=30_000, session=40),
)
CHAT = Route("chat", (), "/chat", "http://a:1", Price())
PAGES = MeterSpec("page", (Source("response.json", "/n"),), 0, 1, (Tier(10, 5), Tier(None, 4)))
TIERED = replace(CHAT, name="tiered", pattern="/tiered", price=Price(meters=(PAGES,)))
LIMITED = replace(
    CHAT,
    name="limited",
    pattern="/limited",
    limits=Limits(requests_per_month=9),
    caps=Caps(day=8, total=7),
)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def state_of(ledger: Ledger, account_id: int) -> State:
    state = await ledger.account_state(account_id)
    assert state is not None
    return state


async def add_key(ledger: Ledger, account_id: int, caps: Caps) -> int:
    key_id = await ledger.create_key(
        account_id,
        name="ci",
        prefix="tk_dev_ab",
        last4="wxyz",
        pepper_version=1,
        digest=b"one",
        limits=Limits(concurrency=2, requests_per_month=3),
        caps=caps,
    )
    assert key_id is not None
    return key_id


async def test_rules_and_counters_are_those_of_the_account_its_keys_and_routes(
    ledger: Ledger, postgres_url: str
) -> None:
    report = await ledger.apply_catalog(Platform("demo"), (CAPPED,), (CHAT, LIMITED))
    routes = {row.route.name: row.route.id for row in await ledger.routes(report.platform_id)}
    account_id = await ledger.create_account(report.platform_id, "alice", "capped")
    assert account_id is not None
    key_id = await add_key(ledger, account_id, Caps(day=50))
    (lot,) = await ledger.grants(account_id)
    moment_ms = now_ms()
    ago = {"today": 0, "this month": DAY_MS, "before": 40 * DAY_MS}
    mine = {"platform_id": report.platform_id, "account_id": account_id}
    for number, (route, key, back_ms) in enumerate(
        [
            (routes["chat"], key_id, ago["today"]),
            (routes["limited"], 99, ago["today"]),
            (routes["limited"], key_id, ago["before"]),
        ]
    ):
        call = settlement(((lot.grant_id, 10**number),), route_id=route, key_id=key, **mine)
        await ledger.record_settlements([call._replace(settled_ms=moment_ms - back_ms)])

    state = await state_of(ledger, account_id)

    day = moment_ms - moment_ms % DAY_MS + DAY_MS
    month = month_end_ms(moment_ms)
    end, after = lot.expires_ms, months_after_ms(lot.effective_ms, 2)
    assert (state["rpm"], state["rpmonth"], state["conc"], state["count"]) == (60, 0, 7, 0)
    assert state["rules"] == f"rs:5 qp:500 cd:100 cm:2000 ct:30000 cs:40 pw:{end}:{after}"
    assert state[f"k:{key_id}"] == "0 qm:3 cc:2 cd:50"
    counters = {name: value for name, value in state.items() if "." in name}
    assert counters == {
        "A.qp": f"{end}:2",
        "A.cd": f"{day}:11",
        "A.cm": f"{month}:11",
        "A.ct": "0:111",
        f"K{key_id}.qm": f"{month}:1",
        f"K{key_id}.cd": f"{day}:1",
        f"R{routes['limited']}.qm": f"{month}:1",
        f"R{routes['limited']}.cd": f"{day}:10",
        f"R{routes['limited']}.ct": "0:110",
    }
    (found,) = (await ledger.account_states([account_id, 404])).items()
    assert found == (account_id, state)


async def test_a_period_that_is_over_and_not_renewed_counts_in_the_next_ones_window(
    ledger: Ledger, postgres_url: str
) -> None:
    report = await ledger.apply_catalog(Platform("demo"), (CAPPED,), ())
    account_id = await ledger.create_account(report.platform_id, "alice", "capped")
    assert account_id is not None
    mine = {"platform_id": report.platform_id, "account_id": account_id}
    end_ms = now_ms() - 2 * HOUR_MS
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "UPDATE accounts SET period_end_at = from_ms($1), period_anchor_at = from_ms($1),"
        " period_start_at = from_ms($1) - interval '30 days'",
        end_ms,
    )
    await connection.close()
    for back_ms in (HOUR_MS // 2, 4 * HOUR_MS):
        call = settlement((), **mine)
        await ledger.record_settlements([call._replace(settled_ms=now_ms() - back_ms)])

    state = await state_of(ledger, account_id)

    assert str(state["rules"]).endswith(f"pw:{end_ms}:{months_after_ms(end_ms, 1)}")
    assert state["A.qp"] == f"{months_after_ms(end_ms, 1)}:1"


async def test_units_of_tiers_are_those_that_moved_the_account_since_its_period_began(
    ledger: Ledger, postgres_url: str
) -> None:
    report = await ledger.apply_catalog(Platform("demo"), (CAPPED,), (TIERED,))
    account_id = await ledger.create_account(report.platform_id, "alice", "capped")
    assert account_id is not None
    mine = {"platform_id": report.platform_id, "account_id": account_id}
    end_ms, start_ms = now_ms() + HOUR_MS, now_ms() - HOUR_MS
    connection = await asyncpg.connect(postgres_url)
    await connection.execute(
        "UPDATE accounts SET period_end_at = from_ms($1), period_anchor_at = from_ms($2),"
        " period_start_at = from_ms($2)",
        end_ms,
        start_ms,
    )
    moved = "page=30;page.tiers=25"
    calls = [
        settlement(units=moved, route_id=7, **mine)._replace(settled_ms=start_ms),
        settlement(units=moved, route_id=7, **mine)._replace(settled_ms=start_ms - 1),
        settlement(units="page=9;page.tiers=9;word.tiers=4", route_id=7, **mine),
        settlement(units=moved, route_id=8, **mine),
        settlement(units="page=1000", route_id=7, **mine),
        settlement(units="page.tiers=5000", route_id=7, account_id=404),
        settlement(units=f"big.tiers={2**53 - 1}", route_id=8, **mine),
        settlement(units="big.tiers=1", route_id=8, **mine),
    ]
    await ledger.record_settlements(calls)

    state = await state_of(ledger, account_id)

    assert {name: value for name, value in state.items() if name[:2] == "u:"} == {
        "u:7:page": f"{end_ms}:34",
        "u:7:word": f"{end_ms}:4",
        "u:8:page": f"{end_ms}:25",
        "u:8:big": f"{end_ms}:{2**53 - 1}",
    }
    await connection.execute("SET enable_seqscan = off")
    query = load_queries()["account_tiers"]
    plan = await connection.fetch(f"EXPLAIN {query}", [account_id], [start_ms])
    assert "account_id_settled_at" in str(plan) or "settlements_tiers" in str(plan)
    await connection.close()


async def test_without_a_period_units_of_tiers_count_by_the_month(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    mine = {"platform_id": platform_id, "account_id": account_id}
    calls = [
        settlement(units="page.tiers=5", **mine),
        settlement(units="page.tiers=7", **mine)._replace(settled_ms=now_ms() - 32 * DAY_MS),
    ]
    await ledger.record_settlements(calls)
    assert "u:7:page" not in await state_of(ledger, account_id)
    await ledger.apply_catalog(Platform("demo"), (), (TIERED,))
    assert (await state_of(ledger, account_id))["u:7:page"] == f"{month_end_ms(now_ms())}:5"


async def test_redis_takes_what_postgres_says(ledger: Ledger, clean_redis_url: str) -> None:
    report = await ledger.apply_catalog(Platform("demo"), (CAPPED,), (LIMITED, TIERED))
    account_id = await ledger.create_account(report.platform_id, "alice", "capped")
    assert account_id is not None
    await add_key(ledger, account_id, Caps(day=50))
    await ledger.add_grant(account_id, 5, source="overage", priority=1_000_000)
    mine = {"platform_id": report.platform_id, "account_id": account_id}
    await ledger.record_settlements([settlement(units="page.tiers=5", **mine)])
    async with Counters(clean_redis_url, shards=4) as counters:
        keys = counters.keys(account_id)
        epoch = await ledger.next_epoch(keys.shard)
        await counters.close_shard(keys.shard, epoch, 0)
        await counters.open_shard(keys.shard, epoch)
        state = await state_of(ledger, account_id)
        assert await counters.load(keys, state)
        fields = (await counters.inspect(keys)).fields
    told = {name: str(value) for name, value in state.items() if name not in ("month", "count")}
    assert told.items() <= fields.items()
    assert "u:7:page" in fields


async def test_withdrawn_and_credited_credits_leave_what_is_available(ledger: Ledger) -> None:
    platform_id, account_id, (grant,) = await account_with_grants(ledger, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    await ledger.record_settlements([settlement(((grant, 100),), **mine)])
    await ledger.record_changes(
        [ledger_change(kind, (grant, 10), **mine) for kind in ("expire", "adjust", "late")]
    )
    await ledger.credit_grant(grant, 7, "")

    state = await state_of(ledger, account_id)

    assert [state[f"{kind}:{grant}"] for kind in "asw"] == [1_007 - 110 - 20, 110, 20]


async def test_many_accounts_are_read_as_of_one_instant(ledger: Ledger) -> None:
    platform_id, alice, (grant,) = await account_with_grants(ledger, 100)
    _, bob, _ = await account_with_grants(ledger, 50, name="bob")
    other, carol, _ = await account_with_grants(ledger, 9, slug="other", name="carol")

    states = await ledger.account_states([alice, bob, carol, 404])

    assert {account: state["lots"] != "" for account, state in states.items()} == {
        alice: True,
        bob: True,
        carol: True,
    }
    assert states[alice] == await ledger.account_state(alice)
    assert states[alice][f"a:{grant}"] == 100
    assert (await ledger.account_states([])) == {}
    assert platform_id != other


async def test_sessions_have_spent_what_was_settled_since_they_began(ledger: Ledger) -> None:
    _, alice, _ = await account_with_grants(ledger)
    _, bob, _ = await account_with_grants(ledger, name="bob")
    key = await add_key(ledger, alice, Caps(session=9))
    moment_ms = now_ms()

    def call(
        session: str, amount: int, hours_ago: int, *, account_id: int = alice, key_id: int = key
    ) -> None:
        admitted_ms = moment_ms - hours_ago * HOUR_MS
        plain = settlement(((1, amount),), session=session, account_id=account_id, key_id=key_id)
        calls.append(plain._replace(admitted_ms=admitted_ms, settled_ms=admitted_ms + 5))

    calls: list[Settlement] = []
    call("steady", 1, 50)
    call("steady", 10, 30)
    call("steady", 100, 10, key_id=99)
    call("steady", 5, 10, account_id=bob)
    call("begun anew", 1_000, 60)
    call("begun anew", 3, 5)
    call("forgotten", 7, 30)
    call("", 9, 1)
    await ledger.record_settlements(calls)

    spent = await ledger.session_spend(moment_ms - 24 * HOUR_MS)

    assert sorted(spent) == [
        (alice, "begun anew", key, [key], 3),
        (alice, "steady", key, [key], 11),
        (alice, "steady", 99, [99], 100),
    ]
    plan = Plan("pro", 0, caps=Caps(session=1))
    await ledger.apply_catalog(Platform("demo"), (plan,), ())
    await ledger.change_account(1, bob, AccountChange(plan_slug="pro"))
    spent = await ledger.session_spend(moment_ms - 24 * HOUR_MS)
    assert [row for row in spent if row.account_id == bob] == [(bob, "steady", key, [key], 5)]


async def test_a_keys_limits_are_changed_and_listed(ledger: Ledger) -> None:
    platform_id, account_id, _ = await account_with_grants(ledger)
    key_id = await add_key(ledger, account_id, Caps(day=50))
    limits, caps = Limits(requests_per_second=1, burst=4), Caps(total=9)

    def change(key: KeyListRow) -> KeyFacts:
        return key.facts._replace(limits=limits, caps=caps)

    row = await ledger.change_key(platform_id, key_id, change)
    assert await ledger.change_key(platform_id + 1, key_id, change) is None

    assert (await ledger.keys_page(platform_id, limit=9)).rows == [row]
    assert row is not None
    assert (row.limits, row.caps) == (limits, caps)
    assert (await state_of(ledger, account_id))[f"k:{key_id}"] == "0 rs:1:4 ct:9"

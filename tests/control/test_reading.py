"""Settlements, receipts, usage, audit log, traffic: what is read, by whom, and what is not."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from gateway.clock import now_ms
from gateway.control.api.fields import write_moment
from gateway.operations.publish import publish_account
from policies.catalog import Platform, Price, Route
from policies.settlement import Posting, Settlement

if TYPE_CHECKING:
    from tests.support.api import Api, Tenant

CREDIT = 1_000_000
ROUTE = Route("chat", ("POST",), "/chat", "http://127.0.0.1:9", Price(per_request_microcredits=1))


async def settle(api: Api, tenant: Tenant, count: int = 1, **changes: Any) -> list[str]:
    """Calls of the tenant's account that cost one credit each, newest first."""
    ledger = api.ledger
    routes = {row.route.name: row.route for row in await ledger.routes(tenant.platform_id)}
    if "chat" not in routes:
        await ledger.apply_catalog(Platform(tenant.slug, tenant.slug, None), (), [ROUTE])
        routes = {row.route.name: row.route for row in await ledger.routes(tenant.platform_id)}
    route = routes["chat"]
    assert route.price is not None
    (grant,) = await ledger.grants(tenant.account.account_id)
    moment = now_ms()
    rows = [
        Settlement(
            **{
                "call_id": f"{moment - number:012x}7{uuid.uuid4().hex[13:]}",
                "platform_id": tenant.platform_id,
                "account_id": tenant.account.account_id,
                "key_id": tenant.key.key_id,
                "route_id": route.id,
                "price_version": route.price.version,
                "session": "",
                "admitted_ms": moment - number,
                "settled_ms": moment - number,
                "ending": "completed",
                "status": 200,
                "units": "token=30;token.tiers=0",
                "flags": "",
                "held_microcredits": 2 * CREDIT,
                "charged_microcredits": CREDIT,
                "uncollected_microcredits": 0,
                "postings": (Posting(grant.grant_id, CREDIT),),
                "shard": 0,
                "outbox_id": "",
                **changes,
            }
        )
        for number in range(count)
    ]
    await ledger.record_settlements(rows)
    await publish_account(ledger, api.counters, tenant.account.account_id, "alice")
    return [row.call_id for row in rows]


async def test_calls_are_searched_newest_first_by_all_that_tells_them_apart(api: Api) -> None:
    mine = await settle(api, api.demo, 3)
    (failed,) = await settle(api, api.demo, ending="upstream_error", status=502, session="s-1")
    await settle(api, api.other, 2)
    client = api.as_("viewer")

    found = await client.get("/v1/settlements", limit=2)
    assert found.status == 200, found.body
    rest = await client.get("/v1/settlements", limit=5, cursor=found.body["next_cursor"])
    ids = [row["request_id"] for row in found.body["data"] + rest.body["data"]]
    assert set(ids) == {failed, *mine}
    assert ids == sorted(ids, reverse=True)
    for query in (
        {"ending": "upstream_error"},
        {"status": 502},
        {"session": "s-1"},
        {"request_id": failed},
        {"ending": "upstream_error", "route": "chat", "key_id": api.demo.key.key_id},
    ):
        answer = await client.get("/v1/settlements", **query)
        assert [row["request_id"] for row in answer.body["data"]] == [failed], query
    for query in (
        {"route": "nowhere"},
        {"key_id": api.other.key.key_id},
        {"account_id": api.other.account.account_id},
        {"until": write_moment(1_000)},
        {"from": write_moment(now_ms() + 3_600_000)},
    ):
        answer = await client.get("/v1/settlements", **query)
        assert answer.body["data"] == [], query
    one = found.body["data"][-1]
    assert one["units"] == {"token": 30}
    assert (one["held_credits"], one["charged_credits"]) == ("2", "1")


async def test_an_account_reads_its_own_calls_and_no_others(api: Api) -> None:
    (mine,) = await settle(api, api.demo)
    (foreign,) = await settle(api, api.other)

    for client in (api.as_("member"), api.as_key()):
        own = await client.get("/v1/me/settlements")
        assert [row["request_id"] for row in own.body["data"]] == [mine]
        assert (await client.get(f"/v1/me/receipts/{mine}")).status == 200
        assert (await client.get(f"/v1/me/receipts/{foreign}")).status == 404
        assert (await client.get("/v1/settlements")).status == 403


async def test_a_receipt_says_who_paid_and_what_came_back(api: Api) -> None:
    (call,) = await settle(api, api.demo)
    path = f"/v1/receipts/{call}"

    before = (await api.as_("viewer").get(path)).body
    refund = await api.as_("editor").post(f"/v1/settlements/{call}/refund", {"note": "Wrong"})
    after = (await api.as_("viewer").get(path)).body

    assert (before["route"], before["account"], before["net_credits"]) == ("chat", "alice", "1")
    assert [posting["credits"] for posting in before["postings"]] == ["-1"]
    assert refund.status == 200, refund.body
    assert refund.body["restored_credits"] == "1"
    assert (after["refunded_credits"], after["net_credits"]) == ("1", "0")
    again = await api.as_("editor").post(f"/v1/settlements/{call}/refund", {})
    assert (again.status, again.code) == (409, "not_refundable")
    unknown = await api.as_("editor").post(f"/v1/settlements/{'0' * 32}/refund", {})
    assert unknown.status == 404
    assert (await api.as_("viewer").get("/v1/receipts/nonsense")).status == 404


@pytest.mark.parametrize("interval", ["hour", "day", "month"])
async def test_usage_is_told_by_time_and_projected(api: Api, interval: str) -> None:
    await settle(api, api.demo, 3)
    await settle(api, api.other, 1)

    answer = await api.as_("viewer").get("/v1/usage", interval=interval, by="route")
    own = await api.as_key().get("/v1/me/usage", interval=interval, by="route,key")

    for body in (answer.body, own.body):
        assert sum(point["calls"] for point in body["points"]) == 3, body
        assert {point["route"] for point in body["points"]} == {"chat"}
        assert body["points"][0]["charged_credits"] == "3"
        assert body["projection"]["charged_credits"] == "3"
    assert {point["key_id"] for point in own.body["points"]} == {api.demo.key.key_id}


async def test_what_usage_does_not_know_is_said(api: Api) -> None:
    client = api.as_("viewer")
    wrong = await client.get("/v1/usage", interval="week", by="colour", until="yesterday")
    keys = await client.get("/v1/usage", by="key")
    foreign = await client.get("/v1/usage", account_id=api.other.account.account_id)

    assert set(wrong.wrong) == {"interval", "by", "until"}
    assert keys.status == 422
    assert foreign.status == 404


async def test_calls_are_followed_as_they_are_settled(api: Api) -> None:
    client = api.as_("viewer")
    start = (await client.get("/v1/settlements/following")).body
    calls = await settle(api, api.demo, 2)
    await settle(api, api.other, 1)

    then = (await client.get("/v1/settlements/following", cursor=start["next_cursor"])).body

    assert {row["request_id"] for row in then["data"]} == set(calls)
    assert then["at_end"]
    assert then["next_cursor"]


async def test_the_audit_log_tells_each_tenant_its_own_changes(api: Api) -> None:
    account = f"/v1/accounts/{api.demo.account.account_id}"
    changed = await api.as_("editor").patch(account, {"status": "suspended"})
    await api.as_("operator").patch(account, {"status": "active"})

    log = (await api.as_("viewer").get("/v1/audit-log", resource="account")).body["data"]
    by_operator, by_editor = log
    assert by_operator["actor"] == "operator"
    assert by_editor["actor"].startswith("token:")
    assert by_editor["request_id"] == changed.headers["X-Request-Id"]
    assert by_editor["address"] == "127.0.0.1"
    assert (by_editor["before"], by_editor["after"]) == (
        {"status": "active"},
        {"status": "suspended"},
    )
    own = (await api.as_("admin").get("/v1/me/audit-log")).body["data"]
    assert [entry["id"] for entry in own] == [by_operator["id"], by_editor["id"]]
    assert {entry["address"] for entry in own} == {""}, "where staff sits is not theirs to know"
    foreign = (await api.as_("viewer", api.other).get("/v1/audit-log")).body["data"]
    assert foreign == []


async def test_traffic_is_what_happened_between_two_looks(api: Api) -> None:
    answer = await api.as_("viewer").get("/v1/traffic", seconds=1)

    assert (answer.status, answer.body["routes"]) == (200, [])
    assert set((await api.as_("viewer").get("/v1/traffic", seconds=99)).wrong) == {"seconds"}

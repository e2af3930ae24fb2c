"""`/v1/routes`, by status. That calls follow them at once is in tests/journeys."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.operations.publish import publish_accounts
from policies.catalog import Platform
from tests.support.gateway import chat_route
from tests.support.route_documents import CHAT, METER

if TYPE_CHECKING:
    from tests.support.api import Api

ROUTES = "/v1/routes"


async def config_says(api: Api, *routes: Any) -> None:
    """What `apply` does with the config's routes."""
    await api.ledger.apply_catalog(Platform("demo", "Demo"), [], routes)


async def test_201_a_route_has_the_keys_of_the_config(api: Api) -> None:
    made = await api.as_("editor").post(ROUTES, CHAT)

    assert made.status == 201, made.body
    document = deepcopy(made.body)
    assert document.pop("id") > 0
    assert document.pop("price_version") > 0
    price = document.pop("price")
    assert document == {
        **{key: value for key, value in CHAT.items() if key != "price"},
        "active": True,
        "managed_by": "api",
        "connect_timeout_s": 5,
        "first_byte_timeout_s": 60,
        "idle_timeout_s": 60,
        "protocol": "http",
        "ensure_usage": None,
        "body_max_bytes": 2**31,
        "connections_max": 512,
        "when_redis_is_down": None,
        "free": None,
        "on": {
            "completed": "reserved",
            "client_error": "nothing",
            "upstream_error": "nothing",
            "upstream_timeout": "nothing",
            "client_disconnect": "actual",
            "exhausted": "actual",
            "unknown": "minimum",
        },
        "limits": {
            "requests_per_second": None,
            "requests_per_minute": 60,
            "burst": None,
            "requests_per_month": None,
            "concurrency": None,
        },
        "caps": {"day": "50", "month": None, "total": None},
        "a2a": None,
        "websocket": None,
    }
    (meter,) = price.pop("meters")
    assert price == {
        **dict.fromkeys(("maximum", "outcome", "table", "jsonrpc")),
        "per_request": "0.1",
        "minimum": "0",
    }
    unsaid = ("tiers", "included_units", "reserve_from", "on_missing", "estimate_from")
    assert meter == {
        **METER,
        **dict.fromkeys((*unsaid, "estimate_per_unit")),
        "from": [METER["from"]],
        "credits_per_unit": "0.001",
    }
    assert (await api.as_("viewer").get(f"{ROUTES}/chat")).body == made.body


async def test_200_what_is_read_can_be_put_back(api: Api) -> None:
    client = api.as_("editor")
    table = {
        "by": "request.json:/model",
        "cases": {"large": {"credits_per_unit": {"token": "1"}}, "free": {"minimum": "0"}},
    }
    price = {
        **CHAT["price"],
        "table": table,
        "outcome": {"from": "response.json:/status=done", "credits": "1"},
        "jsonrpc": {"tools": {"search": "0.5"}},
    }
    read = (await client.post(ROUTES, {**CHAT, "price": price})).body
    own = ("id", "active", "managed_by", "price_version")
    written = {key: value for key, value in read.items() if key not in own}
    put = await client.put(f"{ROUTES}/chat", written)

    assert put.status == 200, put.body
    assert put.body == read


async def test_200_a_put_replaces_and_a_patch_merges(api: Api) -> None:
    client = api.as_("editor")
    made = (await client.post(ROUTES, CHAT)).body
    etag = (await client.get(f"{ROUTES}/chat")).etag
    patch = {"price": {"minimum": "0.2", "meters": None}, "caps": None, "timeout_s": None}
    patched = await client.patch(f"{ROUTES}/chat", patch, headers={"If-Match": etag})

    assert patched.status == 200, patched.body
    assert patched.body["price"] == {**made["price"], "minimum": "0.2", "meters": None}
    assert (patched.body["caps"], patched.body["timeout_s"]) == (None, 120)
    assert patched.body["headers"] == CHAT["headers"]
    assert patched.body["price_version"] > made["price_version"]
    put = await client.put(
        f"{ROUTES}/chat", {key: CHAT[key] for key in ("match", "upstream", "price")}
    )
    assert put.status == 200, put.body
    assert (put.body["headers"], put.body["limits"]) == (None, None)
    assert put.body["id"] == made["id"]


async def test_200_only_another_price_is_a_new_version(api: Api) -> None:
    client = api.as_("editor")
    made = (await client.post(ROUTES, CHAT)).body
    moved = await client.patch(f"{ROUTES}/chat", {"upstream": "http://127.0.0.1:9101"})
    assert moved.body["price_version"] == made["price_version"]


async def test_200_a_list_has_what_is_in_service_or_not(api: Api) -> None:
    client = api.as_("editor")
    for name in ("b", "a", "c"):
        await client.post(ROUTES, {**CHAT, "name": name, "match": f"POST /{name}"})
    await client.delete(f"{ROUTES}/b")

    async def names(**query: Any) -> list[str]:
        answer = await client.get(ROUTES, **query)
        assert answer.status == 200, answer.body
        return [route["name"] for route in answer.body["data"]]

    assert await names() == ["a", "b", "c"]
    assert await names(active="true") == ["a", "c"]
    assert await names(active="false") == ["b"]
    cursor = (await client.get(ROUTES, limit=2)).body["next_cursor"]
    assert await names(cursor=cursor) == ["c"]


async def test_204_a_deleted_route_stays_known_and_may_come_back(api: Api) -> None:
    client = api.as_("editor")
    made = (await client.post(ROUTES, CHAT)).body

    assert (await client.delete(f"{ROUTES}/chat")).status == 204
    gone = await client.get(f"{ROUTES}/chat")
    assert (gone.status, gone.body["active"]) == (200, False)
    for answer in (
        await client.delete(f"{ROUTES}/chat"),
        await client.patch(f"{ROUTES}/chat", {"timeout_s": 5}),
        await client.put(f"{ROUTES}/chat", CHAT),
    ):
        assert (answer.status, answer.code) == (409, "out_of_service")
    again = await client.post(ROUTES, CHAT)
    assert (again.status, again.body) == (201, made)


@pytest.mark.parametrize("role", ["viewer", "admin", "member"])
async def test_403_who_only_looks_sells_nothing(api: Api, role: str) -> None:
    client = api.as_(role)
    for answer in (
        await client.post(ROUTES, CHAT),
        await client.put(f"{ROUTES}/chat", CHAT),
        await client.patch(f"{ROUTES}/chat", {}),
        await client.delete(f"{ROUTES}/chat"),
        await client.post(f"{ROUTES}/dry-run", {"route": CHAT}),
        await client.post(f"{ROUTES}/chat/reach"),
    ):
        assert answer.status == 403


async def test_404_the_routes_of_others_are_not_there(api: Api) -> None:
    assert (await api.as_("owner", api.other).post(ROUTES, CHAT)).status == 201
    client = api.as_("owner")
    for answer in (
        await client.get(f"{ROUTES}/chat"),
        await client.patch(f"{ROUTES}/chat", {}),
        await client.put(f"{ROUTES}/chat", CHAT),
        await client.delete(f"{ROUTES}/chat"),
        await client.post(f"{ROUTES}/chat/dry-run", {}),
        await client.post(f"{ROUTES}/chat/reach"),
    ):
        assert (answer.status, answer.code) == (404, "not_found")
    assert (await client.post(ROUTES, CHAT)).status == 201, "each platform has its own names"


async def test_409_the_config_file_manages_its_own(api: Api) -> None:
    route = chat_route(
        "http://a:1", headers=(("X-A", "canary"), ("X-B", "env:CANARY")), tls_ca_file=None
    )
    await config_says(api, route)
    client = api.as_("owner")
    read = await client.get(f"{ROUTES}/chat")

    assert read.body["managed_by"] == "config"
    assert read.body["headers"] == {"X-A": "(hidden)", "X-B": "(hidden)"}
    for answer in (
        await client.patch(f"{ROUTES}/chat", {"timeout_s": 5}),
        await client.put(f"{ROUTES}/chat", CHAT),
        await client.delete(f"{ROUTES}/chat"),
        await client.post(ROUTES, CHAT),
    ):
        assert (answer.status, answer.code) == (409, "managed_by_config")
    await config_says(api)
    retired = await client.post(ROUTES, CHAT)
    assert (retired.status, retired.code) == (409, "managed_by_config")


async def test_409_there_is_one_route_of_a_name(api: Api) -> None:
    client = api.as_("owner")
    await client.post(ROUTES, CHAT)
    again = await client.post(ROUTES, {**CHAT, "match": "POST /elsewhere"})
    assert (again.status, again.code) == (409, "name_taken")


async def test_412_a_change_of_another_version_changes_nothing(api: Api) -> None:
    client = api.as_("owner")
    await client.post(ROUTES, CHAT)
    stale = {"If-Match": '"x"'}
    for answer in (
        await client.patch(f"{ROUTES}/chat", {"timeout_s": 5}, headers=stale),
        await client.put(f"{ROUTES}/chat", CHAT, headers=stale),
        await client.delete(f"{ROUTES}/chat", headers=stale),
    ):
        assert answer.status == 412
    assert (await client.get(f"{ROUTES}/chat")).body["timeout_s"] == 1.5


async def test_422_every_mistake_is_named_by_its_field(api: Api) -> None:
    broken = {
        "name": "No Slug",
        "match": "post /chat",
        "upstream": "http://10.0.0.1",
        "prise": 1,
        "timeout_s": 0,
        "errors": "xml",
        "headers": {"Authorization": "Bearer x", "X-A": "env:HOME", "Host": "a", "X-B": 5},
        "tls_ca_file": "/etc/ca.pem",
        "price": {
            "per_request": 0.1,
            "meters": [METER, {**METER, "unit": "Bad", "reserve_units": -1}, {}],
            "table": {"by": "nowhere", "cases": {}},
        },
        "on": {"completed": "everything", "sometimes": "actual"},
        "limits": {"burst": 1},
    }
    answer = await api.as_("owner").post(ROUTES, broken)

    assert (answer.status, answer.code) == (422, "invalid")
    assert set(answer.wrong) == {
        *("name", "match", "upstream", "prise", "timeout_s", "errors", "tls_ca_file"),
        *("headers.Authorization", "headers.X-A", "headers.Host", "headers.X-B"),
        *("price.per_request", "price.meters[1].unit", "price.meters[1].reserve_units"),
        *(f"price.meters[2].{key}" for key in ("unit", "from", "credits_per_unit")),
        *("price.meters[2].reserve_units", "price.table.by", "price.table.cases"),
        *("on.completed", "on.sometimes", "limits.burst"),
    }
    assert "Bearer" not in str(answer.body), "what may be a secret is not repeated"


async def test_422_no_two_routes_are_for_the_same_calls(api: Api) -> None:
    client = api.as_("owner")
    await client.post(ROUTES, {**CHAT, "match": "GET|POST /v1/{model}"})
    for path, document in (
        (ROUTES, {**CHAT, "name": "other", "match": "POST /v1/{name}"}),
        (f"{ROUTES}/dry-run", {"route": {**CHAT, "name": "other", "match": "POST /v1/{name}"}}),
    ):
        answer = await client.post(path, document)
        assert (answer.status, answer.wrong) == (
            422,
            {"match": 'matches the same calls as the route "chat"'},
        )


async def test_422_headers_refer_to_secrets_that_are_there(api: Api) -> None:
    client = api.as_("owner")
    document = {**CHAT, "headers": {"Authorization": "secret:openai"}}
    missing = await client.post(ROUTES, document)
    assert (missing.status, set(missing.wrong)) == (422, {"headers.Authorization"})

    await client.put("/v1/secrets/openai", {"value": "Bearer canary"})
    made = await client.post(ROUTES, document)

    assert made.body["headers"] == document["headers"]
    kept = await client.delete("/v1/secrets/openai")
    assert (kept.status, kept.code) == (409, "in_use")
    assert "chat" in kept.body["detail"]


@pytest.mark.parametrize(
    "upstream",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://10.0.0.1",
        "http://[::ffff:10.0.0.1]",
        "http://127.0.0.1:22",
        "http://redis",
        "https://user:password@agents.example",
        "ftp://agents.example",
    ],
)
async def test_422_an_upstream_is_where_owners_upstreams_may_be(api: Api, upstream: str) -> None:
    client = api.as_("owner")
    await client.post(ROUTES, CHAT)
    for answer in (
        await client.post(ROUTES, {**CHAT, "name": "other", "upstream": upstream}),
        await client.patch(f"{ROUTES}/chat", {"upstream": upstream}),
    ):
        assert (answer.status, set(answer.wrong)) == (422, {"upstream"})


async def test_405_a_dry_run_is_no_route(api: Api) -> None:
    client = api.as_("owner")
    named = await client.post(ROUTES, {**CHAT, "name": "dry-run"})
    assert (named.status, set(named.wrong)) == (422, {"name"})
    read = await client.get(f"{ROUTES}/dry-run")
    assert (read.status, read.headers["Allow"]) == (405, "POST")
    assert (await client.get(f"{ROUTES}/dry-run-2")).status == 404


async def test_422_a_route_keeps_its_name(api: Api) -> None:
    client = api.as_("owner")
    await client.post(ROUTES, CHAT)
    for answer in (
        await client.patch(f"{ROUTES}/chat", {"name": "other"}),
        await client.put(f"{ROUTES}/chat", {**CHAT, "name": "other"}),
    ):
        assert (answer.status, set(answer.wrong)) == (422, {"name"})


async def test_accounts_are_told_of_their_periods_when_tiers_begin_to_count(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[list[int]] = []

    async def publish(ledger: Any, counters: Any, account_ids: list[int]) -> None:
        told.append(list(account_ids))
        await publish_accounts(ledger, counters, account_ids)

    monkeypatch.setattr("gateway.operations.routes.publish_accounts", publish)
    client = api.as_("owner")
    tiers = [{"up_to": 10, "credits_per_unit": "1"}, {"credits_per_unit": "0.5"}]
    tiered = {key: value for key, value in METER.items() if key != "credits_per_unit"}
    await client.post(ROUTES, CHAT)
    assert told == []
    meters = {"price": {"meters": [{**tiered, "tiers": tiers}]}, "caps": None}
    assert (await client.patch(f"{ROUTES}/chat", meters)).status == 200
    assert told == [[api.demo.account.account_id]]
    await client.patch(f"{ROUTES}/chat", {"timeout_s": 5})
    assert len(told) == 1


async def test_a_config_route_says_what_it_costs_and_a_free_one_nothing(api: Api) -> None:
    free = replace(chat_route("http://a:1"), price=None)
    await config_says(api, free)
    read = (await api.as_("viewer").get(f"{ROUTES}/chat")).body
    assert (read["free"], read["price"], read["price_version"]) == (True, None, None)

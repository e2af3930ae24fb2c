"""Dry runs: a price is tried by the code that charges it, before anybody pays it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.route_documents import CHAT, METER

if TYPE_CHECKING:
    from tests.support.api import Answer, Api

ROUTES = "/v1/routes"
TRY = f"{ROUTES}/dry-run"
PRICED = {"per_request": "0.1", "meters": [METER]}
ANSWER = {"body": {"usage": {"total_tokens": 30}}}


async def tried(api: Api, price: dict[str, Any], sample: dict[str, Any], **route: Any) -> Any:
    """What a sample would cost."""
    document = {**CHAT, "on": None, "caps": None, **route, "price": price}
    sample = {"path": "/v1/chat", **sample}
    answer = await api.as_("editor").post(TRY, {"route": document, "sample": sample})
    assert answer.status == 200, answer.body
    assert answer.body["reach"] is None
    return answer.body["charge"]


async def test_200_a_sample_says_what_is_held_and_what_is_charged(api: Api) -> None:
    charge = await tried(api, PRICED, {"body": {"messages": []}, "answer": ANSWER})
    assert charge == {
        "refused": None,
        "free": False,
        "case": None,
        "floor_credits": "0.1",
        "held_credits": "4.1",
        "charged_credits": "0.13",
        "ending": "completed",
        "units": {"token": 30},
        "calls": [],
        "flags": [],
    }
    assert (await api.as_("viewer").get(ROUTES)).body["data"] == [], "nothing was made"


async def test_200_without_an_end_only_what_is_held_is_known(api: Api) -> None:
    charge = await tried(api, PRICED, {})
    assert (charge["held_credits"], charge["charged_credits"]) == ("4.1", None)
    assert charge["ending"] is None


@pytest.mark.parametrize(
    ("sample", "charged", "flags"),
    [
        ({"answer": {"body": {"no": "usage"}}}, "4.1", ["units_missing"]),
        ({"answer": {**ANSWER, "status": 500}}, "0", []),
        ({"answer": ANSWER, "ending": "client_disconnect"}, "0.13", []),
        ({"ending": "upstream_timeout"}, "0", []),
        ({"ending": "unknown"}, "0.1", []),
        ({"units": {"token": 1000}}, "1.1", []),
        ({"answer": ANSWER, "discount_percent": "50"}, "0.065", []),
        (
            {
                "answer": {
                    "content_type": "text/event-stream; charset=utf-8",
                    "body": 'data: {"usage": {"total_tokens": 7}}\n\n',
                }
            },
            "0.107",
            [],
        ),
        ({"answer": {"headers": {"X-Units": "9"}, "body": {}}}, "0.109", []),
    ],
)
async def test_200_each_ending_costs_what_its_rule_says(
    api: Api, sample: dict[str, Any], charged: str, flags: list[str]
) -> None:
    sources = [METER["from"], "response.sse:/usage/total_tokens", "response.header:X-Units"]
    price = {**PRICED, "meters": [{**METER, "from": sources}]}
    charge = await tried(api, price, sample)
    assert (charge["charged_credits"], charge["flags"]) == (charged, flags)


async def test_200_a_table_says_which_case_it_was(api: Api) -> None:
    table = {
        "by": "request.json:/model",
        "listed_only": True,
        "cases": {"small": {}, "large": {"per_request": "2", "reserve_units": {"token": 1}}},
    }
    price = {**PRICED, "table": table}
    large = await tried(api, price, {"body": {"model": "large"}, "answer": ANSWER})
    assert (large["case"], large["held_credits"], large["charged_credits"]) == (
        *("large", "2.001", "2.03"),
    )
    other = await tried(api, price, {"body": {"model": "other"}})
    assert (other["held_credits"], other["refused"]["status"]) == (None, 400)
    hidden = await tried(api, price, {"body": '{"model": "small", "model": "large"}'})
    assert hidden["refused"]["status"] == 400


async def test_200_tiers_are_tried_from_where_an_account_may_be(api: Api) -> None:
    tiers = [{"up_to": 100, "credits_per_unit": "1"}, {"credits_per_unit": "0.5"}]
    meter = {key: value for key, value in METER.items() if key != "credits_per_unit"}
    price = {"meters": [{**meter, "tiers": tiers}]}
    assert (await tried(api, price, {"answer": ANSWER}))["charged_credits"] == "30"
    moved = await tried(api, price, {"answer": ANSWER, "used": {"token": 90}})
    assert moved["charged_credits"] == "20"


async def test_200_tools_are_priced_one_by_one(api: Api) -> None:
    price = {"jsonrpc": {"tools": {"search": "0.5"}, "default_tool_credits": "1"}}
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "search"}}
    done = {"jsonrpc": "2.0", "id": 1, "result": {"content": []}}
    failed = {"jsonrpc": "2.0", "id": 1, "result": {"isError": True, "content": []}}
    for answer, charged in ((done, "0.5"), (failed, "0")):
        charge = await tried(
            api, price, {"body": call, "answer": {"body": answer}}, protocol="mcp", errors=None
        )
        assert charge["calls"] == [{"name": "search", "credits": "0.5"}]
        assert (charge["held_credits"], charge["charged_credits"]) == ("0.5", charged)
    listed = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    assert (await tried(api, price, {"body": listed}, protocol="mcp", errors=None))["free"]


async def test_200_a_callers_own_bound_refuses_what_is_dearer(api: Api) -> None:
    charge = await tried(api, PRICED, {"answer": ANSWER, "max_credits": "0.12"})
    assert (charge["refused"]["status"], charge["refused"]["code"]) == (402, "spend_cap_reached")
    assert charge["held_credits"] == "0.12"
    below = await tried(api, PRICED, {"max_credits": "0.05"})
    assert below["held_credits"] is None


@pytest.mark.parametrize("sample", [{"path": "/elsewhere"}, {"method": "GET"}, {"path": "/a/../b"}])
async def test_200_a_sample_that_no_call_could_be_says_why(
    api: Api, sample: dict[str, Any]
) -> None:
    charge = await tried(api, PRICED, sample)
    assert charge["refused"]["status"] in {400, 404}
    assert charge["charged_credits"] is None


async def test_200_a_stored_route_is_tried_by_its_name(api: Api) -> None:
    client = api.as_("editor")
    await client.post(ROUTES, CHAT)
    sample = {"path": "/v1/chat", "answer": ANSWER}
    answer = await client.post(f"{ROUTES}/chat/dry-run", {"sample": sample})
    assert answer.status == 200, answer.body
    assert answer.body["charge"]["charged_credits"] == "4.1", 'it has on.completed = "reserved"'


async def reached(api: Api, port: int) -> Answer:
    client = api.as_("editor")
    await client.post(ROUTES, {**CHAT, "upstream": f"http://127.0.0.1:{port}"})
    return await client.post(f"{ROUTES}/chat/reach")


async def test_200_an_upstream_is_reached_or_not(api: Api) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answer = await reached(api, port)
    assert (answer.status, answer.body["ok"], answer.body["problem"]) == (200, True, None)
    server.close()
    await server.wait_closed()
    again = await api.as_("editor").post(f"{ROUTES}/chat/dry-run", {"reach": True})
    assert again.body["charge"] is None
    assert again.body["reach"]["ok"] is False
    assert "refused" in again.body["reach"]["problem"]


async def test_422_mistakes_of_the_route_and_of_the_sample_are_named(api: Api) -> None:
    client = api.as_("editor")
    route = await client.post(TRY, {"route": {**CHAT, "upstream": "x", "price": {}}})
    assert (route.status, set(route.wrong)) == (422, {"upstream", "price"})
    sample = {"path": "", "ending": "sometimes", "colour": 1}
    shape = await client.post(TRY, {"route": CHAT, "sample": sample})
    assert set(shape.wrong) == {"sample.path", "sample.ending", "sample.colour"}
    percent = {"path": "/v1/chat", "discount_percent": "101"}
    above = await client.post(TRY, {"route": CHAT, "sample": percent})
    assert set(above.wrong) == {"sample.discount_percent"}
    huge = await client.post(TRY, {"route": CHAT, "sample": {"path": "/v1/chat", "body": 2**70}})
    assert set(huge.wrong) == {"sample.body"}

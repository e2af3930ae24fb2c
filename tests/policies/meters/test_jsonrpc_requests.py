"""What calls of a JSON-RPC request cost, and that a request with two readings is no way around."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import RpcPrices
from policies.meters.jsonrpc import (
    BATCH_MESSAGES_MAX,
    RpcId,
    awaited_ids,
    mistake_in_request,
    priced_calls,
)
from policies.meters.values import WALKED_MAX
from policies.terms import RpcCall

PRICES = RpcPrices({"search": 5, "draw": 70}, default_tool=20, methods={"resources/read": 3})


def request(method: str, rpc_id: object = 1, **params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}


def tool(name: object, rpc_id: object = 1) -> dict[str, Any]:
    return request("tools/call", rpc_id, name=name, arguments={"name": "Bob", "method": "x"})


def mistake(document: object) -> str | None:
    return mistake_in_request(json.dumps(document).encode(), document)


def mistake_in_text(text: str) -> str | None:
    return mistake_in_request(text.encode(), json.loads(text))


def test_a_tool_costs_its_own_price_or_the_default() -> None:
    assert priced_calls(tool("search"), PRICES) == (RpcCall("1", "search", 5),)
    assert priced_calls(tool("other"), PRICES) == (RpcCall("1", "other", 20),)
    assert priced_calls(tool("Search"), PRICES)[0].microcredits == 20


def test_other_methods_are_free_unless_they_have_a_price() -> None:
    assert priced_calls(request("initialize"), PRICES) == ()
    assert priced_calls(request("tools/list"), PRICES) == ()
    assert priced_calls(request("resources/read", "r"), PRICES) == (
        RpcCall('"r"', "resources/read", 3),
    )


def test_notifications_and_answers_are_free() -> None:
    assert priced_calls({"method": "notifications/cancelled", "params": {}}, PRICES) == ()
    assert priced_calls({"id": 1, "result": {"name": "search"}}, PRICES) == ()
    assert priced_calls({"id": 1, "error": {"code": 1}}, PRICES) == ()


def test_a_batch_has_one_price_per_call() -> None:
    batch = [tool("search", 1), request("tools/list", 2), tool("draw", "3"), {"id": 9, "result": 1}]
    assert priced_calls(batch, PRICES) == (
        RpcCall("1", "search", 5),
        RpcCall('"3"', "draw", 70),
    )


def test_a_call_without_an_id_costs_as_much_because_agents_may_run_it() -> None:
    call = tool("search")
    del call["id"]
    assert priced_calls(call, PRICES) == (RpcCall("", "search", 5),)
    assert priced_calls(tool("search", None), PRICES) == (RpcCall("", "search", 5),)


@pytest.mark.parametrize("params", [None, [], ["search"], {}, {"name": 5}, {"name": ["search"]}])
def test_a_tool_without_a_readable_name_costs_as_much_as_the_dearest(params: object) -> None:
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    assert priced_calls(call, PRICES)[0].microcredits == 70
    assert priced_calls(call, RpcPrices({"a": 1}, default_tool=2))[0].microcredits == 2


def test_a_tool_without_any_price_is_still_a_call() -> None:
    assert priced_calls(tool("search"), RpcPrices()) == (RpcCall("1", "search", 0),)


def test_the_ids_that_wait_for_an_answer_are_those_of_requests() -> None:
    batch = [
        tool("search", 1),
        request("tools/list", "two"),
        {"method": "x"},
        {"id": 3, "result": 1},
    ]
    assert awaited_ids(batch) == (RpcId("1", tool=True), RpcId('"two"', tool=False))
    assert awaited_ids(request("ping", 7.5)) == (RpcId("7.5", tool=False),)
    assert awaited_ids({"method": "x", "id": None}) == ()


@pytest.mark.parametrize(
    "document",
    [
        tool("search"),
        request("initialize", "a-b"),
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 1, "result": {}},
        [tool("search", 1), tool("search", 2), {"method": "notifications/x"}],
        request("ping", '\u00e9\\"'),
        {"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": {"Name": 1}},
        {},
    ],
)
def test_an_ordinary_request_has_one_reading(document: object) -> None:
    assert mistake(document) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"method": "tools/list", "method": "tools/call", "id": 1}',
        '{"method": "tools/call", "m\\u0065thod": "tools/list", "id": 1}',
        '{"id": 1, "method": "tools/call", "params": {"name": "draw", "name": "search"}}',
        '{"id":1,"method":"tools/call","params":{"name":"draw"},"params":{"name":"search"}}',
        '{"id":1,"method":"tools/call","params":{"name":"draw"," ":{},"n\\u0061me":"search"}}',
        '{"id": 1, "id": 2, "method": "tools/call", "params": {"name": "search"}}',
        '[{"method": "ping", "id": 1}, {"method": "ping", "id": 2, "method": "tools/call"}]',
        ' [ {"a" : [1, {"b": "]"}] , "method":"x"} , {"method" :"x","method":"x"} ] ',
    ],
)
def test_a_member_that_is_there_twice_is_a_mistake(text: str) -> None:
    assert "has two" in (mistake_in_text(text) or "")


def test_members_of_other_objects_may_be_there_twice() -> None:
    inner = '{"name": 1, "name": 2, "method": 3, "method": {"id": 4, "id": 5}}'
    params = f'{{"name": "draw", "arguments": {inner}}}'
    call = f'{{"id": 1, "method": "tools/call", "params": {params}}}'
    assert mistake_in_text(call) is None
    assert mistake_in_text(f"[{call}]") is None


def test_a_body_that_is_slow_to_walk_over_is_a_mistake_and_a_long_text_is_none() -> None:
    call = '{{"id": 1, "method": "tools/call", "params": {{"name": "draw", {}}}}}'
    for value, count in (("{}", WALKED_MAX.names), ("1", WALKED_MAX.items)):
        many = f'"arguments": {{"name": [{",".join([value] * (count + 2))}]}}'
        assert "more values" in (mistake_in_text(call.format(many)) or "")
    long = f'"arguments": {{"name": "{"x" * 5_000_000}"}}'
    assert mistake_in_text(call.format(long)) is None


@pytest.mark.parametrize(
    "key", ["Method", "METHOD", "PARAMS", "Id", "param\u017f", "method\0", "Method\0x", "JsonRPC"]
)
def test_a_member_that_some_parsers_take_for_another_is_a_mistake(key: str) -> None:
    assert "some would read" in (mistake({"id": 1, "method": "ping", key: "x"}) or "")


@pytest.mark.parametrize("key", ["Name", "NAME", "name\0"])
def test_a_tool_has_one_name_for_every_parser(key: str) -> None:
    call = tool("search")
    call["params"][key] = "draw"
    assert "some would read" in (mistake(call) or "")


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "not a JSON-RPC message"),
        ("tools/call", "not a JSON-RPC message"),
        ([], "empty batch"),
        ([[tool("search")]], "not a JSON-RPC message"),
        ({"id": 1, "method": ["tools/call"]}, "not a plain string"),
        ({"id": 1, "method": "tools/call\0x"}, "not a plain string"),
        (tool("search\0"), "NUL"),
        (request("ping", rpc_id=True), "id"),
        (request("ping", {"a": 1}), "id"),
        (request("ping", 1.0), "id"),
        ([request("ping", 1), tool("draw", 1)], "one id"),
        ([request("ping", 1), tool("draw", "1")], "one id"),
        ([{"method": "x"}] * (BATCH_MESSAGES_MAX + 1), "more than"),
    ],
)
def test_what_cannot_be_priced_or_answered_reliably_is_a_mistake(
    document: object, words: str
) -> None:
    assert words in (mistake(document) or "")


def nested(numbers: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["id", "method", "params", "name", "Method", "x"])
    return st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=4),
        max_leaves=12,
    )


@given(nested(st.integers() | st.floats()), st.sampled_from([None, 1]))
def test_no_document_makes_it_fail(document: object, indent: int | None) -> None:
    mistake_in_request(json.dumps(document, indent=indent).encode(), document)
    assert all(call.microcredits >= 3 for call in priced_calls(document, PRICES))
    awaited_ids(document)


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail(body: bytes) -> None:
    mistake_in_request(body, {"method": "ping"})


@given(nested(st.integers()), st.integers(0, 4), st.sampled_from(["", " ", "\r\n\t"]))
def test_a_repeated_method_is_found_wherever_it_stands(
    arguments: object, place: int, space: str
) -> None:
    params = json.dumps({"name": "draw", "arguments": arguments})
    members = ['"jsonrpc": "2.0"', '"id": 1', f'"params"{space}:{params}', '"method": "x"']
    assert mistake_in_text(f"{{{space}{f'{space},'.join(members)}{space}}}") is None
    members.insert(place, '"method": "y"')
    text = f"{{{space}{f'{space},'.join(members)}{space}}}"
    assert mistake_in_text(text) == 'has two members "method"'

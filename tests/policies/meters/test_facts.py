"""The values of a request by which a table chooses its price."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.meters import RequestFacts, parse_source


def text(
    source: str,
    *,
    body: object = None,
    path: str = "/",
    pattern: str = "/",
    query: str = "",
) -> str | None:
    encoded = json.dumps(body).encode()
    request = RequestFacts(json.loads, "POST", path, pattern, query, encoded, len(encoded))
    return request.text(parse_source(source))


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("gpt-large", "gpt-large"),
        ("", ""),
        ("a/b ü", "a/b ü"),
        (7, "7"),
        (-7, "-7"),
        (True, "true"),
        (False, "false"),
        (None, None),
        (1.5, None),
        (["m"], None),
        ({"m": 1}, None),
    ],
)
def test_a_value_of_the_request_is_a_text(value: object, found: str | None) -> None:
    assert text("request.json:/options/model", body={"options": {"model": value}}) == found


def test_a_value_that_is_not_there_is_none() -> None:
    assert text("request.json:/model", body={}) is None
    assert text("request.json:/model", body=[1]) is None


@pytest.mark.parametrize(
    ("pattern", "path", "name", "found"),
    [
        ("/agents/{id}/runs", "/agents/a-7/runs", "id", "a-7"),
        ("/agents/{id}/runs", "/agents/a%20b%C3%BC/runs", "id", "a bü"),
        ("/agents/{id}/runs", "/agents/%FF/runs", "id", None),
        ("/agents/{id}/runs", "/agents/a+b/runs", "id", "a+b"),
        ("/agents/{id}/runs", "/agents/a-7/runs", "name", None),
        ("/{a}/{b}/**", "/1/2/3/4", "b", "2"),
        ("/{a}/{b}/**", "/1/2/3/4", "**", None),
    ],
)
def test_a_segment_of_the_path_is_a_text(
    pattern: str, path: str, name: str, found: str | None
) -> None:
    assert text(f"path:{name}", pattern=pattern, path=path) == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("model=m", "m"),
        ("?a=1&model=m&b", "m"),
        ("model=a%2Bb+c", "a+b c"),
        ("mod%65l=m", "m"),
        ("model=", ""),
        ("model", ""),
        ("model=m=n", "m=n"),
        ("model=%zz", "%zz"),
        ("model=%ff", None),
        ("models=m", None),
        ("", None),
        ("model=m&model=m", "m"),
        ("model=m&model=n", None),
        ("model=m&model=%ff", None),
        ("model=%ff&model=m", None),
    ],
)
def test_a_parameter_of_the_query_is_a_text_unless_it_has_several(
    query: str, found: str | None
) -> None:
    assert text("query:model", query=query) == found


def call(method: object, name: object = None) -> dict[str, object]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"name": name}}


@pytest.mark.parametrize(
    ("body", "method", "tool"),
    [
        (call("tools/call", "search"), "tools/call", "search"),
        (call("ping", "search"), "ping", None),
        (call("tools/call", 7), "tools/call", None),
        (call(7), None, None),
        ({"method": "tools/call", "params": ["search"]}, "tools/call", None),
        ([call("tools/call", "a"), call("tools/call", "a")], "tools/call", "a"),
        ([call("tools/call", "a"), call("tools/call", "b")], "tools/call", None),
        ([call("tools/call", "a"), call("ping")], None, None),
        ([call("tools/call", "a"), "ping"], None, None),
        ([], None, None),
        (None, None, None),
    ],
)
def test_a_json_rpc_call_has_a_method_and_a_tool(
    body: object, method: str | None, tool: str | None
) -> None:
    assert text("jsonrpc.method", body=body) == method
    assert text("jsonrpc.tool", body=body) == tool


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_query_and_no_path_make_it_fail(query: str, path: str) -> None:
    text("query:a", query=query)
    text("path:a", path=path, pattern="/{a}")


@pytest.mark.parametrize(
    ("body", "doubt"),
    [
        (b"", None),
        (b'{"model": "small"}', None),
        (b'{"mode": 1}', None),
        (b'{"model": ["small"]}', None),
        (b'{"model": "large", "model": "large"}', "can be read in two ways at /model"),
        (b'{"model": "small", "Model": "large"}', "can be read in two ways at /model"),
        (b'{"model": "large", "x": NaN}', "is no JSON that can be read"),
        (b'{"model": "large",}', "is no JSON that can be read"),
        (b"model=large", "is no JSON that can be read"),
        (b'{"model": "large", "x": [%b1]}' % (b"1," * 300_000), "is no JSON that can be read"),
        (None, "is too long to be read"),
    ],
)
def test_what_the_agent_may_read_otherwise_is_in_doubt(
    body: bytes | None, doubt: str | None
) -> None:
    size = 9_000_000 if body is None else len(body)
    request = RequestFacts(orjson.loads, "POST", "/", "/", "", body, size)
    assert request.doubt(parse_source("request.json:/model")) == doubt
    assert request.doubt(parse_source("path:name")) is None


def test_what_is_not_said_to_be_plain_may_say_anything() -> None:
    body = b'{"model": "small"}'
    request = RequestFacts(
        orjson.loads, "POST", "/", "/", "?q=1&q=1&m=a&m=b", body, len(body), plain=False
    )
    assert "plain JSON" in (request.doubt(parse_source("request.json:/model")) or "")
    assert request.doubt(parse_source("query:q")) is None
    assert "twice" in (request.doubt(parse_source("query:m")) or "")

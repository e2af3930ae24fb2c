"""`request.json`: what a request says of itself, decoded at most once."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import MeterSpec, Price, Source
from policies.meters import MeterPlan, RequestFacts, Tools, parse_source

DECODERS = pytest.mark.parametrize("loads", [json.loads, orjson.loads])
ORDER = b'{"model": "m", "n": 3, "messages": [{"role": "user"}, {}], "size": {"w": 1024}}'


def facts(body: bytes | None) -> RequestFacts:
    size = None if body is None else len(body)
    return RequestFacts(orjson.loads, "POST", "/v1/images", "/v1/images", "", body, size)


def units(body: bytes | None, pointer: str) -> int | None:
    source = Source("request.json", pointer)
    request = facts(body)
    plan = MeterPlan(Price(meters=(MeterSpec("image", (source,), 1, 1),)), "image/png")
    (found,) = plan.read_whole(Tools(orjson.loads), b"", (), request, 0).units
    assert (
        found
        == request.units(source)
        == plan.open(Tools(orjson.loads), (), request).reading().units[0]
    )
    return found


@pytest.mark.parametrize(
    ("pointer", "found"),
    [
        ("/n", 3),
        ("/size/w", 1024),
        ("/messages/#", 2),
        ("/n+/size/w", 1027),
        ("/model=m|x", 1),
        ("/model=x", 0),
        ("/model", None),
        ("/none", None),
        ("/messages", None),
    ],
)
def test_units_are_read_from_the_request(pointer: str, found: int | None) -> None:
    assert units(ORDER, pointer) == found


@pytest.mark.parametrize("body", [None, b"", b"{", b"[" * 100_000, b"n=3", b'"n"', b"3", b"\xff"])
def test_a_request_that_is_not_json_has_no_units(body: bytes | None) -> None:
    assert units(body, "/n") is None


@pytest.mark.parametrize("value", ["-1", "1.5", "1e300", '"3"', "true", "null", "[3]", "9" * 30])
def test_what_is_no_count_is_missing(value: str) -> None:
    assert units(b'{"n": %b}' % value.encode(), "/n") is None


def test_of_two_members_of_one_name_neither_counts() -> None:
    assert units(b'{"n": 1, "n": 2}', "/n") is None
    assert units(b'{"n": 1, "N": 2}', "/n") is None
    assert units(b'{"n": 1, "m": {"n": 2}}', "/n") == 1


def test_a_byte_order_mark_before_the_request_is_no_obstacle() -> None:
    assert units(b"\xef\xbb\xbf" + ORDER, "/n") == 3


def test_a_request_is_decoded_once_however_often_it_is_asked() -> None:
    decoded = []

    def loads(text: bytes | bytearray) -> object:
        decoded.append(text)
        return json.loads(text)

    request = RequestFacts(loads, "POST", "/", "/", "", b"{broken", 7)
    for pointer in ("/n", "/m"):
        assert request.units(Source("request.json", pointer)) is None
    assert request.document() is None
    assert len(decoded) == 1


def test_a_request_that_nobody_asks_about_is_not_decoded() -> None:
    def loads(_text: bytes | bytearray) -> object:
        raise AssertionError

    request = RequestFacts(loads, "POST", "/a/b", "/a/{name}", "q=1", b"{}", 2)
    assert request.units(Source("request.bytes", "")) == 2
    assert request.text(Source("path", "name")) == "b"
    assert request.text(Source("query", "q")) == "1"


def test_other_sources_are_not_the_requests() -> None:
    assert facts(ORDER).units(Source("response.json", "/n")) is None
    assert facts(ORDER).text(Source("response.json", "/model")) is None


@DECODERS
@given(body=st.binary(max_size=60), pointer=st.sampled_from(["/0", "/a", "/-1", "/#", "/a=1"]))
def test_no_bytes_in_a_request_make_it_fail(body: bytes, pointer: str, loads: object) -> None:
    request = RequestFacts(loads, "POST", "/", "/", "", body, len(body))  # type: ignore[arg-type]
    request.units(parse_source("request.json:" + pointer))
    request.text(parse_source("request.json:" + pointer))
    request.text(parse_source("jsonrpc.tool"))

"""The meters of one call: which sources read this answer, and which value counts."""

from __future__ import annotations

import gzip
import json

import pytest

from policies.catalog import MeterSpec, Price
from policies.meters import UNITS_MAX, MeterPlan, RequestFacts, Tools, parse_source
from policies.meters.reading import Reading
from policies.terms import RpcCall


def price(**meters: list[str]) -> Price:
    return Price(
        meters=tuple(
            MeterSpec(unit, tuple(map(parse_source, sources)), 1, 1)
            for unit, sources in meters.items()
        )
    )


TOOLS = Tools(json.loads)
CHAT = price(token=["response.json:/usage/total_tokens", "response.sse:/usage/total_tokens"])
ANSWER = json.dumps({"usage": {"total_tokens": 30, "images": 2}}).encode()
STREAM = b"data: " + ANSWER + b"\n\ndata: [DONE]\n\n"


def units(
    offer: Price, content_type: str, body: bytes, encoding: str = ""
) -> tuple[int | None, ...]:
    plan = MeterPlan(offer, content_type, encoding)
    meter = plan.open(TOOLS, (), None)
    for index in range(0, len(body), 7):
        meter.feed(body[index : index + 7])
    reading = meter.reading()
    assert reading == meter.reading() == plan.read_whole(TOOLS, body, (), None, 0)
    return reading.units


def test_a_price_without_meters_opens_none() -> None:
    plan = MeterPlan(Price(per_request_microcredits=1), "application/json")
    assert plan.open(TOOLS, (), None).reading().units == ()


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", ANSWER, 30),
        ("Application/JSON ; charset=utf-8", ANSWER, 30),
        ("text/event-stream; charset=utf-8", STREAM, 30),
        ("text/event-stream", ANSWER, None),
        ("application/json", STREAM, None),
        ("text/html", ANSWER, None),
        ("", ANSWER, None),
    ],
)
def test_the_content_type_chooses_the_source(
    content_type: str, body: bytes, expected: int | None
) -> None:
    assert units(CHAT, content_type, body) == (expected,)


def test_of_a_meters_sources_the_first_with_a_value_counts() -> None:
    offer = price(
        token=["response.json:/none", "response.json:/usage/total_tokens", "response.json:/x"],
        image=["response.sse:/usage/images", "response.json:/usage/images"],
        second=["response.json:/none"],
    )
    assert units(offer, "application/json", ANSWER) == (30, 2, None)
    assert units(offer, "text/event-stream", STREAM) == (None, 2, None)


def test_a_kind_of_a_newer_version_is_missing_and_does_not_fail_the_call() -> None:
    offer = price(token=["response.protobuf:9", "response.json:/usage/total_tokens"])
    assert units(offer, "application/json", ANSWER) == (30,)


def guessed(unit: str, source: str, estimate_from: str, per_unit: int) -> MeterSpec:
    return MeterSpec(
        unit,
        (parse_source(source),),
        1,
        1,
        estimate_from=parse_source(estimate_from),
        estimate_per_unit=per_unit,
    )


def test_without_a_word_about_it_an_event_is_estimated_to_be_a_unit() -> None:
    meter = MeterPlan(CHAT, "text/event-stream").open(TOOLS, (), None)
    for part, estimate in ((b"", 0), (b"data: 1\n", 0), (b"\ndata: 2\n\n", 2), (b": ping\n\n", 2)):
        meter.feed(part)
        assert meter.estimates() == meter.so_far().estimates == (estimate,)


def test_without_a_word_about_it_four_bytes_are_estimated_to_be_a_unit_of_no_stream() -> None:
    meter = MeterPlan(CHAT, "application/json").open(TOOLS, (), None)
    for size, estimate in ((0, 0), (1, 1), (3, 1), (1, 2), (3, 2)):
        meter.feed(b"x" * size)
        assert meter.estimates() == meter.so_far().estimates == (estimate,)
        assert meter.reading() == Reading((None,), (estimate,))


def test_nothing_is_estimated_where_nothing_is_missing() -> None:
    plan = MeterPlan(CHAT, "application/json")
    assert plan.read_whole(TOOLS, ANSWER, (), None, 0) == Reading((30,))
    assert plan.read_whole(TOOLS, ANSWER, (), None, 0).estimates == ()


def test_where_one_unit_is_missing_all_have_an_estimate() -> None:
    offer = price(token=["response.json:/usage/total_tokens"], image=["response.json:/none"])
    reading = MeterPlan(offer, "application/json").read_whole(TOOLS, ANSWER, (), None, 0)
    estimate = -(-len(ANSWER) // 4)
    assert reading == Reading((30, None), (estimate, estimate))


EVENTS = b'data: {"image": "aGk="}\n\ndata: {"part": 1}\n\n: ping\n\n' * 3
REQUEST = RequestFacts(json.loads, "POST", "/", "/", "", b'{"n": 9}', 8)


@pytest.mark.parametrize(
    ("source", "per_unit", "estimate"),
    [
        ("response.sse.count", 1, 6),
        ("response.sse.count", 4, 2),
        ("response.sse.count:/image", 1, 3),
        ("response.sse.sum:/part", 2, 2),
        ("response.sse:/part", 1, 1),
        ("response.bytes", 10, -(-len(EVENTS) // 10)),
        ("response.header:X-Guess", 3, 3),
        ("request.json:/n", 2, 5),
        ("request.bytes", 1, 8),
        ("duration:s", 1, 3),
        ("duration:ms", 100, 25),
        ("websocket.messages", 1, 0),
        ("response.json:/n", 1, 0),
        ("response.ndjson.count", 1, 0),
        ("response.protobuf:9", 1, 0),
    ],
)
def test_a_unit_is_estimated_from_any_source_of_which_so_many_make_one(
    source: str, per_unit: int, estimate: int
) -> None:
    offer = Price(meters=(guessed("image", "response.sse:/total", source, per_unit),))
    plan = MeterPlan(offer, "text/event-stream")
    headers = ((b"x-guess", b"7"),)
    expected = Reading((None,), (estimate,))
    assert plan.read_whole(TOOLS, EVENTS, headers, REQUEST, 2_500) == expected
    for cut in range(len(EVENTS)):
        meter = plan.open(TOOLS, headers, REQUEST)
        meter.feed(EVENTS[:cut])
        assert meter.estimates(2_500) <= (estimate,)
        meter.feed(EVENTS[cut:])
        assert meter.reading(2_500) == expected
        assert meter.estimates(2_500) == (estimate,)


def test_an_estimate_is_never_more_than_can_be_counted() -> None:
    offer = Price(meters=(guessed("t", "response.sse:/none", "request.bytes", 1),))
    endless = RequestFacts(json.loads, "POST", "/", "/", "", None, UNITS_MAX * 9)
    plan = MeterPlan(offer, "text/event-stream")
    assert plan.read_whole(TOOLS, b"", (), endless, 0).estimates == (UNITS_MAX,)


def test_a_source_serves_a_unit_and_the_estimate_of_another() -> None:
    offer = Price(
        meters=(
            guessed("event", "response.sse.count", "response.bytes", 4),
            guessed("token", "response.sse:/tokens", "response.sse.count", 1),
        )
    )
    plan = MeterPlan(offer, "text/event-stream")
    reading = plan.read_whole(TOOLS, EVENTS, (), None, 0)
    assert reading == Reading((6, None), (-(-len(EVENTS) // 4), 6))


def test_what_nobody_could_decode_is_estimated_from_what_passed() -> None:
    offer = Price(
        meters=(
            guessed("token", "response.json:/n", "response.bytes", 4),
            guessed("event", "response.sse.count", "response.sse.count", 1),
        )
    )
    for encoding in ("compress", "gzip"):
        plan = MeterPlan(offer, "text/event-stream", encoding)
        reading = plan.read_whole(TOOLS, b"x" * 40, (), None, 0)
        assert reading == Reading((None, None), (10, 0))


@pytest.mark.parametrize("content_type", ["text/event-stream", "application/x-ndjson"])
@pytest.mark.parametrize("encoding", ["compress", "gzip"])
def test_a_stream_that_nobody_could_decode_is_estimated_from_its_bytes(
    content_type: str, encoding: str
) -> None:
    plan = MeterPlan(CHAT, content_type, encoding)
    assert plan.read_whole(TOOLS, b"x" * 41, (), None, 0) == Reading((None,), (11,))


def test_a_count_that_does_not_read_this_answer_suggests_nothing() -> None:
    offer = Price(meters=(guessed("t", "response.sse:/n", "response.ndjson.count", 1),))
    meter = MeterPlan(offer, "text/event-stream").open(TOOLS, (), None)
    meter.feed(EVENTS)
    assert meter.estimates() == meter.reading().estimates == (0,)


@pytest.mark.parametrize("per_unit", [1, 4])
def test_several_units_are_estimated_from_one_count(per_unit: int) -> None:
    meters = [
        guessed(unit, "response.sse:/n", "response.sse.count", per_unit) for unit in ("a", "b")
    ]
    plan = MeterPlan(Price(meters=(*meters, *CHAT.meters)), "text/event-stream")
    meter = plan.open(TOOLS, (), None)
    meter.feed(EVENTS)
    suggested = -(-6 // per_unit)
    assert meter.estimates() == meter.reading().estimates == (suggested, suggested, 6)


def test_so_far_waits_for_what_is_unfinished_and_a_reading_does_not() -> None:
    meter = MeterPlan(CHAT, "text/event-stream").open(TOOLS, (), None)
    meter.feed(STREAM[: STREAM.index(b"\n\n")])
    assert meter.so_far().units == (None,)
    assert meter.reading().units == (30,)
    meter.feed(STREAM[STREAM.index(b"\n\n") :])
    assert meter.so_far().units == meter.reading().units == (30,)


def test_asking_for_every_chunk_decodes_nothing() -> None:
    def loads(_text: bytes | bytearray) -> object:
        raise AssertionError

    for content_type in ("text/event-stream", "application/json", "application/x-ndjson"):
        meter = MeterPlan(CHAT, content_type).open(Tools(loads), (), None)
        for index in range(30):
            meter.feed(ANSWER[index : index + 1])
            assert meter.so_far().units == (None,)
            meter.estimates()


CALLS = (RpcCall("1", "search", 5), RpcCall('"b"', "fetch", 7), RpcCall("3", "list", 9))
FAILED = json.dumps({"jsonrpc": "2.0", "id": "b", "result": {"isError": True}}).encode()
WORKED = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"n": 4}}).encode()


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_priced_calls_are_followed_beside_the_units(encoding: str) -> None:
    offer = price(n=["response.json:/result/n", "response.sse:/result/n"])
    plan = MeterPlan(offer, "text/event-stream", encoding)
    body = b"data: " + FAILED + b"\n\ndata: " + WORKED + b"\n\n"
    body = gzip.compress(body) if encoding else body
    expected = Reading((4,), (), (1,), (2,))
    assert plan.read_whole(TOOLS, body, (), None, 0, CALLS) == expected
    for cut in range(len(body)):
        meter = plan.open(TOOLS, (), None, CALLS)
        meter.feed(body[:cut])
        meter.feed(body[cut:])
        assert meter.reading() == expected, cut


def test_calls_are_followed_where_nothing_else_is_metered() -> None:
    plan = MeterPlan(Price(), "application/json")
    assert plan.read_whole(TOOLS, WORKED, (), None, 0, CALLS) == Reading((), (), (), (1, 2))
    assert plan.read_whole(TOOLS, b"", (), None, 0, CALLS) == Reading((), (), (), (0, 1, 2))
    undecodable = MeterPlan(Price(), "application/json", "compress")
    assert undecodable.read_whole(TOOLS, WORKED, (), None, 0, CALLS).unanswered == (0, 1, 2)

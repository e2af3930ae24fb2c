"""How JSON-RPC calls were answered, in JSON and in streams, however the bytes come."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.meters.jsonrpc import RPC_BODY_MAX_BYTES, RPC_EVENT_MAX_BYTES, JsonRpcAnswers
from policies.terms import RpcCall

if TYPE_CHECKING:
    from collections.abc import Iterable

ONE = (RpcCall("1", "search", 5),)
THREE = (RpcCall("1", "search", 5), RpcCall('"b"', "draw", 7), RpcCall("", "draw", 7))
JSON, SSE = "application/json", "text/event-stream"
GOOD = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "isError": False}}
FAILED_TOOL = {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "isError": True}}
ASKS = {"jsonrpc": "2.0", "id": 1, "result": {"resultType": "input_required"}}
ERROR = {"jsonrpc": "2.0", "id": 1, "error": {"code": -32602, "message": "no such tool"}}
PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"result": {}}}
ASKED_BACK = {"jsonrpc": "2.0", "id": 1, "method": "sampling/createMessage", "params": {"error": 1}}

Found = tuple[tuple[int, ...], tuple[int, ...]]


def read(
    chunks: Iterable[bytes], media_type: str = JSON, calls: tuple[RpcCall, ...] = ONE
) -> Found:
    reader = JsonRpcAnswers(calls, orjson.loads, media_type)
    for chunk in chunks:
        reader.feed(chunk)
        reader.finish()  # may be asked at any time
    assert reader.finish() == reader.finish()
    return reader.finish()


def event(document: object, end: str = "\r\n") -> bytes:
    return f"event: message{end}data: {json.dumps(document)}{end}{end}".encode()


ANSWERED: Found = ((), ())
FAILED: Found = ((0,), ())
UNANSWERED: Found = ((), (0,))
OUTCOMES = pytest.mark.parametrize(
    ("message", "found"),
    [
        (GOOD, ANSWERED),
        ({"id": 1, "result": {}, "error": None}, ANSWERED),
        ({"id": 1, "result": None}, ANSWERED),
        (FAILED_TOOL, FAILED),
        (ERROR, FAILED),
        (ASKS, FAILED),
        ({"id": 1, "result": {"isError": "true"}}, ANSWERED),
        ({**GOOD, "id": 2}, UNANSWERED),
        ({**GOOD, "id": "1"}, UNANSWERED),
        (PROGRESS, UNANSWERED),
        (ASKED_BACK, UNANSWERED),
        ("result", UNANSWERED),
    ],
)


@OUTCOMES
def test_a_json_answer_is_read_however_it_is_cut(message: object, found: Found) -> None:
    body = json.dumps(message).encode()
    for cut in range(len(body) + 1):
        assert read([body[:cut], body[cut:]]) == found, cut


@OUTCOMES
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stream_is_read_however_it_is_cut(message: object, found: Found, end: str) -> None:
    stream = event(PROGRESS, end) + b": ping" + 2 * end.encode() + event(ASKED_BACK, end)
    stream += event(message, end)
    assert read([stream[index : index + 1] for index in range(len(stream))], SSE) == found
    for cut in range(len(stream)):
        assert read([stream[:cut], stream[cut:]], SSE) == found, cut


def test_a_cut_answer_leaves_its_call_unanswered() -> None:
    body = json.dumps(GOOD).encode()
    assert read([body[:-1]]) == UNANSWERED
    assert read([event(GOOD)[:-5]], SSE) == UNANSWERED
    assert read([], SSE) == UNANSWERED
    assert read([]) == UNANSWERED


def test_an_answer_whose_stream_ends_without_a_blank_line_counts() -> None:
    assert read([event(ERROR).rstrip()], SSE) == FAILED


def test_each_call_of_a_batch_has_its_own_answer() -> None:
    answers = [{"id": "b", "error": {"code": 1}}, GOOD]
    assert read([json.dumps(answers).encode()], JSON, THREE) == ((1,), (2,))
    assert read([event(answers)], SSE, THREE) == ((1,), (2,))
    assert read([event(answers[0]), event(GOOD)], SSE, THREE) == ((1,), (2,))
    assert read([event(GOOD)], SSE, THREE) == ((), (1, 2))


def test_the_first_answer_to_a_call_counts() -> None:
    assert read([event(GOOD), event(ERROR)], SSE) == ANSWERED
    assert read([event(ERROR), event(GOOD)], SSE) == FAILED


def test_an_error_that_answers_nobody_fails_all_where_it_is_the_whole_answer() -> None:
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32700, "message": "Parse error"}}
    assert read([json.dumps(error).encode()], JSON, THREE) == ((0, 1), (2,))
    # Among others it says nothing of the calls that are still to be answered.
    assert read([json.dumps([error]).encode()], JSON, THREE) == ((), (0, 1, 2))
    assert read([event(error)], SSE, THREE) == ((), (0, 1, 2))


@pytest.mark.parametrize("media_type", ["text/html", "", "application/octet-stream"])
def test_an_answer_of_another_kind_answers_nothing(media_type: str) -> None:
    assert read([json.dumps(GOOD).encode()], media_type) == UNANSWERED


def test_an_answer_that_is_too_long_is_not_kept() -> None:
    reader = JsonRpcAnswers(ONE, orjson.loads, JSON)
    reader.feed(b'{"id": 1, "error": "')
    for _ in range(RPC_BODY_MAX_BYTES // 65_536):
        reader.feed(b"x" * 65_536)
    assert len(reader._pending) == 0
    reader.feed(b'"}')
    assert reader.finish() == UNANSWERED


@pytest.mark.parametrize("size", [RPC_EVENT_MAX_BYTES, 2 * RPC_EVENT_MAX_BYTES + 3])
def test_an_event_that_is_too_long_is_skipped_and_the_next_one_read(size: int) -> None:
    reader = JsonRpcAnswers(ONE, orjson.loads, SSE)
    stream = event({"id": 1, "error": "x" * size})
    for start in range(0, len(stream), 65_536):
        reader.feed(stream[start : start + 65_536])
        assert len(reader._pending) <= 2 * RPC_EVENT_MAX_BYTES + 65_536
    assert reader.finish() == UNANSWERED
    reader.feed(event(ERROR))
    assert reader.finish() == FAILED


@given(st.lists(st.binary(max_size=30), max_size=8), st.sampled_from([JSON, SSE]))
def test_no_bytes_from_an_agent_make_it_fail(chunks: list[bytes], media_type: str) -> None:
    failed, unanswered = read(chunks, media_type, THREE)
    assert not set(failed) & set(unanswered)


@given(
    st.lists(st.sampled_from([GOOD, ERROR, PROGRESS, {"id": "b", "result": 1}]), max_size=5),
    st.lists(st.integers(0, 600), max_size=6),
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_it_does_not_matter_how_answers_are_cut(
    messages: list[object], cuts: list[int], end: str
) -> None:
    stream = b"".join(event(message, end) for message in messages)
    places = sorted({0, *(min(cut, len(stream)) for cut in cuts), len(stream)})
    chunks = [stream[start:stop] for start, stop in pairwise(places)]
    assert read(chunks, SSE, THREE) == read([stream], SSE, THREE)

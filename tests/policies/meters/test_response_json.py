"""`response.json`: whatever an agent answers, the units are exact or missing."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import Source
from policies.meters import UNITS_MAX
from policies.meters.response_json import JSON_BODY_MAX_BYTES, ResponseJson

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.meters.reader import Loads

POINTER = "/usage/total_tokens"
DECODERS = pytest.mark.parametrize("loads", [json.loads, orjson.loads])


def opened(pointers: Sequence[str], loads: Loads = json.loads) -> ResponseJson:
    return ResponseJson.prepare([Source("response.json", pointer) for pointer in pointers])(loads)


def read(
    chunks: Sequence[bytes], *pointers: str, loads: Loads = json.loads
) -> tuple[int | None, ...]:
    reader = opened(pointers or (POINTER,), loads)
    for chunk in chunks:
        reader.feed(chunk)
    return tuple(reader.finish())


def usage(value: object) -> bytes:
    return json.dumps({"id": "x", "usage": {"total_tokens": value}}).encode()


@DECODERS
@pytest.mark.parametrize("units", [0, 1, 30, UNITS_MAX])
def test_units_are_read_where_the_pointer_points(units: int, loads: Loads) -> None:
    assert read([usage(units)], loads=loads) == (units,)


@DECODERS
@pytest.mark.parametrize(
    ("value", "units"), [(30.0, 30), (0.0, 0), (-0.0, 0), (float(2**53), None)]
)
def test_a_whole_number_may_be_written_with_a_point(
    value: float, units: int | None, loads: Loads
) -> None:
    assert read([usage(value)], loads=loads) == (units,)


@DECODERS
@pytest.mark.parametrize(
    "value", [None, True, 1.5, 1e300, "30", -1, UNITS_MAX + 1, 10**30, [30], {"total_tokens": 30}]
)
def test_what_is_no_count_of_units_is_missing(value: object, loads: Loads) -> None:
    assert read([usage(value)], loads=loads) == (None,)


@DECODERS
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"30",
        b"[]",
        b'{"usage": 30}',
        b'{"usage": {"total_tokens": 30}',
        b'{"usage": {"total_tokens": 30}} x',
        b'\xff{"usage": {"total_tokens": 30}}',
        b"[" * 100_000,
        b"<html>",
    ],
)
def test_an_answer_that_is_not_the_json_it_should_be_is_missing(body: bytes, loads: Loads) -> None:
    assert read([body], loads=loads) == (None,)


@DECODERS
def test_a_byte_order_mark_is_no_obstacle(loads: Loads) -> None:
    assert read([b"\xef\xbb\xbf" + usage(30)], loads=loads) == (30,)


@pytest.mark.parametrize(
    ("pointer", "units"),
    [
        ("/a~1b", 1),
        ("/m~0n", 2),
        ("/~01", 3),
        ("/", 4),
        ("/list/1/n", 5),
        ("/list/01/n", None),
        ("/list/9/n", None),
        ("/list/-", None),
        ("/list/1e0", None),
        ("/ü", 6),
        ("/7", 7),
        ("/list/n", None),
        ("/missing", None),
    ],
)
def test_pointers_follow_rfc_6901(pointer: str, units: int | None) -> None:
    document = {"a/b": 1, "m~n": 2, "~1": 3, "": 4, "list": [0, {"n": 5}], "ü": 6, "7": 7}
    assert read([json.dumps(document).encode()], pointer) == (units,)


def test_several_sources_are_read_from_one_decoding() -> None:
    decoded = []

    def loads(text: bytes | bytearray) -> object:
        decoded.append(text)
        return json.loads(text)

    body = json.dumps({"usage": {"total_tokens": 30, "images": 2}}).encode()
    assert read([body], POINTER, "/usage/images", "/none", loads=loads) == (30, 2, None)
    assert len(decoded) == 1


def test_an_answer_at_the_bound_is_read_and_one_byte_more_is_not() -> None:
    body = usage(30)
    padding = b" " * (JSON_BODY_MAX_BYTES - len(body))
    assert read([padding, body]) == (30,)
    assert read([padding, body, b" "]) == (None,)
    assert read([padding + body + b" "]) == (None,)
    assert read([padding, b" ", body, body]) == (None,)


def test_the_bytes_of_an_answer_over_the_bound_are_let_go() -> None:
    reader = opened([POINTER])
    for _ in range(9):
        reader.feed(bytes(1024 * 1024))
    assert reader._chunks == []


def test_units_may_be_asked_between_chunks() -> None:
    reader = opened([POINTER])
    body = usage(30)
    reader.feed(body[:20])
    assert reader.finish() == [None]
    reader.feed(body[20:])
    assert reader.finish() == reader.finish() == [30]


@pytest.mark.parametrize(
    ("media_type", "applies"),
    [
        ("application/json", True),
        ("application/vnd.agent+json", True),
        ("application/x-ndjson", False),
        ("text/event-stream", False),
        ("", False),
    ],
)
def test_json_is_known_by_its_media_type(media_type: str, *, applies: bool) -> None:
    assert ResponseJson.applies(media_type) is applies


@given(st.data())
def test_it_does_not_matter_how_an_answer_is_cut(data: st.DataObject) -> None:
    body = usage(data.draw(st.integers(-5, 10**6) | st.text() | st.none()))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)))))
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    assert read(chunks) == read([body])


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(body: bytes) -> None:
    assert read([body], "/0", "/a") == (None, None) or body.strip()[:1] in b"[{"

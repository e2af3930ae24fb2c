"""`response.sse`: the last usage of a stream, however the stream is written and cut."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.catalog import Source
from policies.meters import UNITS_MAX, parse_source, response_sse
from policies.meters.response_sse import SSE_EVENT_MAX_BYTES, ResponseSse

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.meters.reader import Loads

POINTER = "/usage/total_tokens"
LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])


def opened(pointers: Sequence[str] = (POINTER,), loads: Loads = json.loads) -> ResponseSse:
    return ResponseSse.prepare([Source("response.sse", pointer) for pointer in pointers])(loads)


def read(
    chunks: Iterable[bytes], pointers: Sequence[str] = (POINTER,), loads: Loads = json.loads
) -> tuple[int | None, ...]:
    reader = opened(pointers, loads)
    for chunk in chunks:
        reader.feed(chunk)
    return tuple(reader.finish())


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[index : index + 1] for index in range(len(stream))]


def event(units: object) -> bytes:
    return b"data: " + json.dumps({"usage": {"total_tokens": units}}).encode() + b"\n\n"


CONTENT = b'data: {"choices": [{"delta": {"content": "hello"}}], "usage": null}\n\n'
CHAT = CONTENT * 3 + event(30) + b"data: [DONE]\n\n"


@LINE_ENDS
def test_the_usage_of_a_chat_is_read_with_any_line_end_and_any_cut(end: bytes) -> None:
    stream = CHAT.replace(b"\n", end)
    assert read([stream]) == (30,)
    assert read(one_by_one(stream)) == (30,)
    for cut in range(len(stream)):
        assert read([stream[:cut], stream[cut:]]) == (30,), cut


def test_the_last_valid_value_counts() -> None:
    running = event(1) + event(7) + event(None) + event(-1) + event("9") + CONTENT
    assert read([running]) == (7,)
    assert read([event(9) + event(2)]) == (2,)


def test_each_pointer_keeps_its_own_last_value() -> None:
    stream = (
        b'data: {"usage": {"in": 3}}\n\n'
        b'data: {"usage": {"out": 5}}\n\n'
        b'data: {"usage": {"in": 4, "out": true}}\n\n'
    )
    assert read([stream], ["/usage/in", "/usage/out", "/usage/none"]) == (4, 5, None)


@pytest.mark.parametrize(
    "stream",
    [
        b'event: done\nid: 7\nretry: 10\ndata: {"usage": {"total_tokens": 30}}\n\n',
        b': comment\n\n: total_tokens\ndata:{"usage":{"total_tokens":30}}\n\n',
        b'data: {"usage":\ndata:   {"total_tokens"\ndata::30}}\n\n',
        b'\xef\xbb\xbfdata: {"usage": {"total_tokens": 30}}\n\n',
        b'\n\n\ndata: {"usage": {"total_tokens": 30}}\n\n\n\n',
        b'data: {"usage": {"total_tokens": 30}}',
        b'data: {"usage": {"total_tokens": 30}}\n',
        b'data: {"usage": {"total_tokens": 30}}\r',
        b'data: {"usage": {"total_tokens": 30}}\n\ndata: {"usage": {"total_tokens": 31',
        b'data: {"usage": {"total_tokens": 30}}\r\n\n\r\r\ndata\n\ndata: "total_tokens"\r\r',
        b'data: {"usage": {"total_tokens": 30}}\n\ndata: {"total_tokens": \xff}\n\n',
    ],
)
def test_the_format_is_read_as_its_specification_says(stream: bytes) -> None:
    assert read([stream]) == (30,)
    assert read(one_by_one(stream)) == (30,)


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"data: [DONE]\n\n",
        b'datum: {"usage": {"total_tokens": 30}}\n\n',
        b' data: {"usage": {"total_tokens": 30}}\n\n',
        b'data: {"usage": {"total_tokens": 30}\n\n',
        b'data: {"usage": {"total_tokens": 30}}\ndata: more\n\n',
        b'data: {"usage": \ndata\n: comment\n{"total_tokens": 30}}\n\n',
        b": " + event(30),
        b"data: " + b"[" * 100_000 + b'"total_tokens"\n\n',
    ],
)
def test_a_stream_without_usage_is_missing(stream: bytes) -> None:
    assert read([stream]) == (None,)


def test_events_that_cannot_hold_the_units_are_not_decoded() -> None:
    decoded = []

    def loads(text: bytes | bytearray) -> object:
        decoded.append(text)
        return orjson.loads(text)

    assert read([CHAT], loads=loads) == (30,)
    assert len(decoded) == 1


@pytest.mark.parametrize("pointer", ["/0", "/usage/ü", "/ü/0"])
def test_keys_without_certain_bytes_are_found_all_the_same(pointer: str) -> None:
    document = {"0": 1, "usage": {"ü": 1}, "ü": [1]}
    assert read([b"data: " + json.dumps(document).encode() + b"\n\n"], [pointer]) == (1,)


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(response_sse, "SSE_EVENT_MAX_BYTES", 64)
    return 64


def sized_event(size: int, units: int) -> bytes:
    """An event of a size, without the blank line that ends it."""
    body = event(units).rstrip(b"\n")
    return b":" * (size - len(body) - 1) + b"\n" + body


def test_an_event_at_the_bound_is_read_and_one_byte_more_is_not(small_bound: int) -> None:
    for size, units in ((small_bound, 30), (small_bound + 1, None)):
        for end in (b"", b"\n", b"\n\n", b"\r\n\r\n"):
            stream = sized_event(size, 30) + end
            assert read([stream]) == (units,)
            assert read(one_by_one(stream)) == (units,)


def test_values_before_an_unread_event_are_stale_and_values_after_it_count(
    small_bound: int,
) -> None:
    for oversize in (sized_event(small_bound * 3, 30), b"x" * small_bound * 3):
        unread = event(7) + oversize + b"\n\n"
        for stream, units in ((unread, None), (unread + event(8), 8)):
            assert read([stream]) == (units,)
            assert read(one_by_one(stream)) == (units,)
            for cut in range(len(stream)):
                assert read([stream[:cut], stream[cut:]]) == (units,), cut


def test_an_endless_event_keeps_no_more_than_the_bound() -> None:
    reader = opened()
    chunk = b"x" * 65_536
    for _ in range(100):
        reader.feed(chunk)
        assert len(reader._pending) <= SSE_EVENT_MAX_BYTES + len(chunk)
    assert reader.finish() == [None]


def test_units_may_be_asked_between_chunks() -> None:
    reader = opened()
    reader.feed(event(1) + event(2)[:-5])
    assert reader.finish() == [1]
    reader.feed(event(2)[-5:])
    assert reader.finish() == reader.finish() == [2]


def test_asking_does_not_keep_what_the_rest_of_an_event_takes_back() -> None:
    reader = opened()
    reader.feed(event(1) + event(2).rstrip(b"\n"))
    assert reader.finish() == [2]
    reader.feed(b"\ndata: no JSON after all\n\n")
    assert reader.finish() == [1]


ALL = (
    "response.sse:/usage/total_tokens",
    "response.sse.sum:/usage/total_tokens",
    "response.sse.count:/usage/total_tokens",
    "response.sse.count",
)


def read_all(chunks: Iterable[bytes], sources: Sequence[str] = ALL) -> list[int | None]:
    reader = ResponseSse.prepare([parse_source(source) for source in sources])(json.loads)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


@LINE_ENDS
@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"", [None, None, 0, 0]),
        (CHAT, [30, 30, 1, 4]),
        (event(3) + event(4) + event(None) + CONTENT, [4, 7, 2, 4]),
        (event(3) + event("4") + event(-1) + event([1]), [3, 3, 4, 4]),
        (event(3) + event(4).rstrip(b"\n"), [4, 7, 2, 2]),
        (event(3) + event(4)[:-8], [3, 3, 1, 2]),
        (event(UNITS_MAX), [UNITS_MAX, UNITS_MAX, 1, 1]),
        (event(UNITS_MAX) + event(1), [1, None, 2, 2]),
        (event(0) + event(0), [0, 0, 2, 2]),
        (b": ping\n\n" * 3 + b"event: ping\n\nid: 1\n\n\n\n", [None, None, 0, 0]),
        (b"data\n\ndata:\n\ndata: x\n\ndatum: x\n\n", [None, None, 0, 3]),
        (b"data: [DONE]\n\ndata:[DONE]\n\nevent: x\ndata: [DONE]\n\n", [None, None, 0, 0]),
        (b"data: [DONE]\ndata: more\n\n", [None, None, 0, 1]),
        (b'data: {"usage": {"total_tokens": 1, "total_tokens": 2}}\n\n', [2, 2, 1, 1]),
        (b'data: [{"usage": {"total_tokens": 1}}]\n\n', [None, None, 0, 1]),
    ],
)
def test_the_sum_and_the_count_are_what_the_events_say(
    stream: bytes, expected: list[int | None], end: bytes
) -> None:
    stream = stream.replace(b"\n", end)
    assert read_all([stream]) == read_all(one_by_one(stream)) == expected
    assert read_all([b"\xef\xbb\xbf" + stream]) == expected
    for cut in range(len(stream)):
        assert read_all([stream[:cut], stream[cut:]]) == expected, cut


def test_a_comparison_is_counted_and_its_last_value_kept() -> None:
    sources = [
        "response.sse.count:/type=image.done",
        "response.sse:/type=image.done",
        "response.sse:/type=none",
        "response.sse:/missing=x",
    ]
    stream = b'data: {"type": "image.done"}\n\ndata: {"type": "image.part"}\n\n' * 3
    assert read_all([stream], sources) == [3, 0, 0, None]


def test_what_has_ended_is_known_without_the_rest() -> None:
    reader = ResponseSse.prepare([parse_source(source) for source in ALL])(json.loads)
    reader.feed(event(1) + event(2).rstrip(b"\n"))
    assert reader.so_far() == [1, 1, 1, 1]
    assert reader.finish() == [2, 3, 2, 2]
    reader.feed(b"\n")
    assert reader.so_far() == [1, 1, 1, 1]
    reader.feed(b"\n")
    assert reader.so_far() == reader.finish() == [2, 3, 2, 2]


def test_after_an_unread_event_sums_are_unknown_but_events_still_count(small_bound: int) -> None:
    unread = event(7) + sized_event(small_bound * 3, 30) + b"\n\n"
    for stream, expected in (
        (unread, [None, None, None, 2]),
        (unread + event(8), [8, None, None, 3]),
        (unread + b"\n\n" + b"x" * small_bound * 3, [None, None, None, 3]),
    ):
        assert read_all([stream]) == read_all(one_by_one(stream)) == expected
        for cut in range(len(stream)):
            assert read_all([stream[:cut], stream[cut:]]) == expected, cut


PIECES = st.sampled_from(
    [
        CONTENT,
        event(1),
        event(22),
        event(None),
        event(5).rstrip(b"\n"),
        b"data: [DONE]\n\n",
        b"data:",
        b"\xef\xbb\xbf",
        b"\n",
        b"\r",
        b"\r\n",
        b"\n\n",
        b": c\r\n\r\n",
        b'data: {"usage":\r\ndata: {"total_tokens": 3}}\r\n\r\n',
        sized_event(200, 9),
        sized_event(128, 9),
        b"x" * 128,
    ]
)


@given(st.lists(PIECES, max_size=12), st.data())
@example([event(1) + b"\n", b"\xef\xbb\xbf" + event(22)], None)
def test_it_does_not_matter_how_a_stream_is_cut(
    pieces: list[bytes], data: st.DataObject | None
) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8))) if data else []
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response_sse, "SSE_EVENT_MAX_BYTES", 128)
        whole = read([stream])
        assert read(chunks) == whole
        assert read(pieces) == whole
        assert read(one_by_one(stream)) == whole
        whole_of_all = read_all([stream])
        assert whole_of_all[:1] == list(whole)
        assert read_all(chunks) == read_all(pieces) == read_all(one_by_one(stream)) == whole_of_all
        # Without a count of everything, a needle decides what is decoded.
        assert read_all(chunks, ALL[:3]) == whole_of_all[:3]


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_no_bytes_make_it_fail(chunks: list[bytes]) -> None:
    assert len(read(chunks, ["/0"])) == 1

"""`response.ndjson`: the values of lines, however they are written and cut."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.meters import UNITS_MAX, parse_source, response_ndjson
from policies.meters.response_ndjson import NDJSON_LINE_MAX_BYTES, ResponseNdjson

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ALL = (
    "response.ndjson:/n",
    "response.ndjson.sum:/n",
    "response.ndjson.count:/n",
    "response.ndjson.count",
)


def opened(sources: Sequence[str] = ALL) -> ResponseNdjson:
    return ResponseNdjson.prepare([parse_source(source) for source in sources])(json.loads)


def read(chunks: Iterable[bytes], sources: Sequence[str] = ALL) -> list[int | None]:
    reader = opened(sources)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def one_by_one(body: bytes) -> list[bytes]:
    return [body[index : index + 1] for index in range(len(body))]


# As a local model server streams a generation: usage stands in the last line only.
GENERATION = (
    b'{"model":"m","created_at":"2026-01-01T00:00:00Z","response":"Hel","done":false}\n'
    b'{"model":"m","created_at":"2026-01-01T00:00:01Z","response":"lo \\n\\"n\\"","done":false}\n'
    b'{"model":"m","response":"","done":true,"prompt_eval_count":26,"eval_count":290}\n'
)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b" \r\n", b"\n\n\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_a_generation_is_read_with_any_line_end_and_any_cut(end: bytes, *, last: bool) -> None:
    sources = [
        "response.ndjson:/prompt_eval_count",
        "response.ndjson:/eval_count",
        "response.ndjson.count:/response",
        "response.ndjson.count:/done=true",
        "response.ndjson.count",
        "response.ndjson.sum:/none",
    ]
    body = GENERATION if last else GENERATION.rstrip(b"\n")
    body = body.replace(b"\n", end)
    expected = [26, 290, 3, 1, 3, None]
    assert read([body], sources) == expected
    assert read(one_by_one(body), sources) == expected
    for cut in range(len(body)):
        assert read([body[:cut], body[cut:]], sources) == expected, cut


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", [None, None, 0, 0]),
        (b"\n \n\r\n", [None, None, 0, 0]),
        (b'{"n": 3}\n{"n": 4}\n', [4, 7, 2, 2]),
        (b'{"n": 3}\n{"n": 4}', [4, 7, 2, 2]),
        (b'{"n": 3}\n{"n": 4', [3, 3, 1, 2]),
        (b'{"n": 3}\n{"n": null}\n{"n": "4"}\n{"n": -4}\n{"n": 1.5}\n', [3, 3, 4, 5]),
        (b'{"n": 3}\n["n", 5]\n"n"\nn\n{"n": [4]}\n', [3, 3, 2, 5]),
        (b'\xef\xbb\xbf{"n": 3}\n', [3, 3, 1, 1]),
        (b'{"n": 3}\n\xff"n"\n', [3, 3, 1, 2]),
        (b'{"n": 3}\n' + b"[" * 100_000 + b'"n"\n', [3, 3, 1, 2]),
        (b'{"n": %d}\n' % UNITS_MAX, [UNITS_MAX, UNITS_MAX, 1, 1]),
        (b'{"n": %d}\n{"n": 1}\n' % UNITS_MAX, [1, None, 2, 2]),
        (b'{"n": 1}\n{"n": %b}\n' % (b"9" * 40), [1, 1, 2, 2]),
        (b'{"n": 1, "n": 2}\n', [2, 2, 1, 1]),
        (b'{"m": {"n": 1}}\n', [None, None, 0, 1]),
    ],
)
def test_the_last_the_sum_and_the_count_are_what_the_lines_say(
    body: bytes, expected: list[int | None]
) -> None:
    assert read([body]) == expected
    assert read(one_by_one(body[:200_000])) == expected or len(body) > 200_000


@pytest.mark.parametrize(
    ("media_type", "applies"),
    [
        ("application/x-ndjson", True),
        ("application/jsonl", True),
        ("application/json", False),
        ("text/event-stream", False),
        ("", False),
    ],
)
def test_lines_are_known_by_their_media_type(media_type: str, *, applies: bool) -> None:
    assert ResponseNdjson.applies(media_type) is applies


@pytest.fixture
def small_bound(monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(response_ndjson, "NDJSON_LINE_MAX_BYTES", 64)
    return 64


def sized(size: int) -> bytes:
    return b'{"n": 5' + b" " * (size - 8) + b"}"


def test_a_line_at_the_bound_is_read_and_one_byte_more_is_not(small_bound: int) -> None:
    for end in (b"", b"\n", b"\n\n"):
        for chunks in ([sized(small_bound) + end], one_by_one(sized(small_bound) + end)):
            assert read(chunks) == [5, 5, 1, 1]
        for chunks in ([sized(small_bound + 1) + end], one_by_one(sized(small_bound + 1) + end)):
            assert read(chunks) == [None, None, None, 1]


def test_after_an_unread_line_last_values_count_again_but_no_sum(small_bound: int) -> None:
    body = b'{"n": 1}\n' + sized(small_bound * 3) + b'\n{"n": 2}\n'
    for cut in range(len(body)):
        assert read([body[:cut], body[cut:]]) == [2, None, None, 3], cut


def test_an_endless_line_keeps_no_more_than_the_bound() -> None:
    reader = opened()
    chunk = b"x" * 65_536
    for _ in range(50):
        reader.feed(chunk)
        assert len(reader._pending) <= NDJSON_LINE_MAX_BYTES
    assert reader.finish() == reader.so_far() == [None, None, None, 1]


def test_what_is_unfinished_counts_at_the_end_only() -> None:
    reader = opened()
    reader.feed(b'{"n": 1}\n{"n": 2}')
    assert reader.so_far() == [1, 1, 1, 1]
    assert reader.finish() == reader.finish() == [2, 3, 2, 2]
    reader.feed(b" no JSON after all\n")
    assert reader.so_far() == reader.finish() == [1, 1, 1, 2]


PIECES = st.sampled_from(
    [
        *(b'{"n": 1}\n', b'{"n": 22}', b'{"n": null}\r\n', b'{"m": 1}\n', b"\n", b"\r", b"\r\n"),
        *(b'{"n":', b" 7}", b"\xef\xbb\xbf", sized(64), sized(65), b"x" * 64, b'"n"\n'),
    ]
)


@given(st.lists(PIECES, max_size=12), st.data())
@example([b'{"n": 1}\n', b"\xef\xbb\xbf", b'{"n": 22}'], None)
def test_it_does_not_matter_how_lines_are_cut(
    pieces: list[bytes], data: st.DataObject | None
) -> None:
    body = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=8))) if data else []
    chunks = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response_ndjson, "NDJSON_LINE_MAX_BYTES", 64)
        whole = read([body])
        assert read(chunks) == read(pieces) == read(one_by_one(body)) == whole
        # Without a count of everything, a needle decides what is decoded.
        assert read(chunks, ALL[:3]) == whole[:3]


@given(st.lists(st.binary(max_size=40), max_size=5))
def test_no_bytes_in_lines_make_it_fail(chunks: list[bytes]) -> None:
    assert len(read(chunks)) == len(ALL)

"""A stream is asked for its usage, and the client gets what it would have got."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.meters import ensure_usage
from policies.meters.ensure_usage import HELD_EVENT_MAX_BYTES, UsageRemover, ask

if TYPE_CHECKING:
    from collections.abc import Iterable

LINE_ENDS = pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])


def asked(body: bytes) -> bytes | None:
    return ask(body, orjson.loads, orjson.dumps)


@pytest.mark.parametrize(
    "request_body",
    [
        b'{"model":"m","stream":true,"messages":[]}',
        b' \n{ "stream" : true, "messages": [{"content": "{\\"stream\\": false}"}],"n":1.10}',
        b'\xef\xbb\xbf{"messages": [], "stream": true, "seed": 123456789012345678901234567890}',
        b'{"prompt": "Once", "stream": true}',
        b'{"prompt": ["Once", "Twice"], "stream": true}',
    ],
)
def test_the_option_is_added_and_every_other_byte_stays(request_body: bytes) -> None:
    changed = asked(request_body)
    assert changed is not None
    head, _, rest = changed.partition(b'"stream_options":{"include_usage":true},')
    assert head + rest == request_body
    document = json.loads(changed.removeprefix(b"\xef\xbb\xbf"))
    assert document.pop("stream_options") == {"include_usage": True}
    assert document == json.loads(request_body.removeprefix(b"\xef\xbb\xbf"))


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (None, {"include_usage": True}),
        ({}, {"include_usage": True}),
        ({"include_usage": False}, {"include_usage": True}),
        ({"include_usage": None, "x": 1}, {"include_usage": True, "x": 1}),
    ],
)
def test_options_that_are_there_are_completed(options: object, changed: object) -> None:
    document = {"stream": True, "messages": [{"role": "user"}], "stream_options": options}
    body = asked(json.dumps(document).encode())
    assert body is not None
    assert json.loads(body) == {**document, "stream_options": changed}


@pytest.mark.parametrize(
    "body",
    [
        b'{"stream": true, "messages": [], "stream_options": {"include_usage": true}}',
        b'{"stream": true, "messages": [], "stream_options": "all"}',
        b'{"stream": false, "messages": []}',
        b'{"stream": "true", "messages": []}',
        b'{"stream": 1, "messages": []}',
        b'{"messages": []}',
        b'{"stream": true, "input": "Hello"}',
        b'{"stream": true, "input": "Hello", "prompt": {"id": "pmpt_1"}}',
        b'{"stream": true}',
        b'[{"stream": true, "messages": []}]',
        b'{"stream": true, "messages": []',
        b"",
        b"null",
        b"\xff",
        b"[" * 100_000,
    ],
)
def test_a_request_that_has_asked_or_streams_nothing_of_the_kind_stays(body: bytes) -> None:
    assert asked(body) is None


def chunk(content: str, usage: object = None) -> bytes:
    choices = [{"index": 0, "delta": {"content": content}}]
    return b"data: " + orjson.dumps({"id": "c", "choices": choices, "usage": usage}) + b"\n\n"


USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
EXTRA = b"data: " + orjson.dumps({"id": "c", "choices": [], "usage": USAGE}) + b"\n\n"
SPACED = b'id: 7\ndata: {"choices": [ ], "usage" : {"total_tokens": 3}}\n\n'
IN_LINES = b'data: {"choices":[],\ndata:  "usage":{"total_tokens":3}}\n\n'
FILTER = b'data: {"choices":[],"prompt_filter_results":[{"index":0}]}\n\n'
NO_USAGE = b'data: {"choices":[],"usage":null}\n\n'
QUOTED = chunk(r'say "choices":[] and "usage":{} \n\n')
BROKEN = b'data: {"choices":[],"usage":{}\n\n'
DONE = b"data: [DONE]\n\n"
PASSING = [
    *(chunk("Hello"), chunk("", USAGE), FILTER, NO_USAGE, QUOTED, BROKEN, DONE),
    *(b": ping\n\n", b"\n", b"data: x", b'{"choices":[],"usage":{}}\n\n', b"\xef\xbb\xbf"),
]


def passed(chunks: Iterable[bytes]) -> bytes:
    remover = UsageRemover(orjson.loads)
    return b"".join([remover.feed(part) for part in chunks]) + remover.end()


def one_by_one(stream: bytes) -> list[bytes]:
    return [stream[index : index + 1] for index in range(len(stream))]


@LINE_ENDS
@pytest.mark.parametrize("extra", [EXTRA, SPACED, IN_LINES])
def test_the_event_that_was_asked_for_is_taken_out_wherever_the_stream_is_cut(
    extra: bytes, end: bytes
) -> None:
    before = (chunk("He") + FILTER + QUOTED).replace(b"\n", end)
    after = DONE.replace(b"\n", end)
    stream = before + extra.replace(b"\n", end) + after
    assert passed([stream]) == before + after
    assert passed(one_by_one(stream)) == before + after
    for cut in range(len(stream)):
        assert passed([stream[:cut], stream[cut:]]) == before + after, cut


@LINE_ENDS
@pytest.mark.parametrize("event", PASSING)
def test_everything_else_passes_byte_for_byte(event: bytes, end: bytes) -> None:
    stream = (event + chunk("more")).replace(b"\n", end)
    assert passed([stream]) == passed(one_by_one(stream)) == stream


@pytest.mark.parametrize("left", [EXTRA[:-1], EXTRA[:-2]])
def test_a_usage_event_that_the_stream_ends_without_closing_is_taken_out(left: bytes) -> None:
    assert passed([chunk("He") + left]) == chunk("He")


@pytest.mark.parametrize("left", [EXTRA[:-3], b"data: x", b"\r", b""])
def test_another_rest_passes_at_the_end(left: bytes) -> None:
    assert passed([chunk("He") + left]) == chunk("He") + left


def test_whole_events_pass_at_once_and_only_an_incomplete_one_waits() -> None:
    remover = UsageRemover(orjson.loads)
    assert remover.feed(chunk("a")) == chunk("a")
    assert remover.feed(chunk("b") + chunk("c")[:20]) == chunk("b")
    assert remover.feed(chunk("c")[20:]) == chunk("c")


def test_an_endless_event_passes_beyond_the_bound() -> None:
    remover = UsageRemover(orjson.loads)
    sent = got = 0
    for _ in range(40):
        sent += 9_000
        got += len(remover.feed(b"x" * 9_000))
        assert sent - got <= HELD_EVENT_MAX_BYTES
    assert remover.feed(b"\n\n" + EXTRA + DONE) == b"\n\n" + DONE


def test_the_end_of_an_endless_event_stays_whole_where_it_is_cut() -> None:
    remover = UsageRemover(orjson.loads)
    endless = b"x" * (HELD_EVENT_MAX_BYTES + 1)
    got = [remover.feed(chunk) for chunk in (endless, b"\r\n\r", b"\n" + EXTRA, DONE)]
    assert got == [endless, b"\r\n\r", b"\n", DONE]


PIECES = st.sampled_from(
    [
        *(EXTRA, SPACED, IN_LINES, *PASSING, EXTRA.replace(b"\n", b"\r\n")),
        *(EXTRA.replace(b"\n", b"\r"), b"\r", b"\r\n", b"x" * 300, b"data: " + b"y" * 300 + b"\n"),
    ]
)


@given(st.lists(PIECES, max_size=10), st.data())
def test_it_does_not_matter_how_a_stream_is_cut_before_it_is_changed(
    pieces: list[bytes], data: st.DataObject
) -> None:
    stream = b"".join(pieces)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    whole = passed([stream])
    assert passed(chunks) == whole
    assert passed(pieces) == whole
    assert passed(one_by_one(stream)) == whole


BYTES = st.binary(max_size=30) | st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b": b"]), max_size=12
).map(b"".join)


@given(st.lists(BYTES, max_size=6), st.integers(4, 40))
def test_bytes_that_report_no_usage_pass_whatever_the_bound(
    chunks: list[bytes], bound: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ensure_usage, "HELD_EVENT_MAX_BYTES", bound)
        assert passed(chunks) == b"".join(chunks)

"""The meters of one call: which sources read this answer, and which value counts."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import MeterSpec, Price
from policies.meters import READABLE_ENCODINGS, MeterPlan, Tools, parse_source
from policies.meters.inflate import INFLATED_BODY_MAX_BYTES, Inflater


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


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(ANSWER)),
        ("X-GZIP ", gzip.compress(ANSWER)),
        ("gzip", gzip.compress(ANSWER[:9]) + gzip.compress(ANSWER[9:])),
        ("deflate", zlib.compress(ANSWER)),
        ("identity", ANSWER),
    ],
)
def test_compressed_answers_are_read(encoding: str, body: bytes) -> None:
    assert encoding.strip().lower() in READABLE_ENCODINGS
    assert units(CHAT, "application/json", body, encoding) == (30,)


def test_a_compressed_stream_is_read_while_it_runs() -> None:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    meter = MeterPlan(CHAT, "text/event-stream", "gzip").open(TOOLS, (), None)
    meter.feed(packer.compress(STREAM) + packer.flush(zlib.Z_SYNC_FLUSH))
    assert meter.reading().units == (30,)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("br", ANSWER),
        ("zstd", ANSWER),
        ("gzip, gzip", gzip.compress(gzip.compress(ANSWER))),
        ("gzip", ANSWER),
        ("gzip", gzip.compress(ANSWER)[:-12]),
        ("gzip", gzip.compress(ANSWER) + b"garbage"),
        ("deflate", raw_deflate(ANSWER)),
    ],
)
def test_what_cannot_be_inflated_is_missing(encoding: str, body: bytes) -> None:
    assert units(CHAT, "application/json", body, encoding) == (None,)


def test_a_corrupted_stream_does_not_keep_what_was_read_before() -> None:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    good = packer.compress(STREAM) + packer.flush(zlib.Z_FULL_FLUSH)
    assert units(CHAT, "text/event-stream", good, "gzip") == (30,)
    assert units(CHAT, "text/event-stream", good + b"\xff" * 40, "gzip") == (None,)


def test_an_answer_that_inflates_without_end_is_given_up_at_the_bound() -> None:
    bomb = gzip.compress(bytes(INFLATED_BODY_MAX_BYTES + 1), compresslevel=1)
    inflater = Inflater()
    largest = total = 0
    for piece in inflater.feed(bomb):
        largest = max(largest, len(piece))
        total += len(piece)
    assert inflater.failed
    assert total <= INFLATED_BODY_MAX_BYTES
    assert largest <= 65_536
    assert list(inflater.feed(bomb)) == []


@given(st.binary(max_size=500_000), st.integers(1, 5_000))
def test_inflating_in_pieces_gives_the_whole(body: bytes, size: int) -> None:
    packed = gzip.compress(body * 3)
    inflater = Inflater()
    chunks = [packed[index : index + size] for index in range(0, len(packed), size)]
    assert b"".join(piece for chunk in chunks for piece in inflater.feed(chunk)) == body * 3

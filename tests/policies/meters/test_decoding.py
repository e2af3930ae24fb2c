"""Compressed answers: what meters read of them is right, or missing, and always bounded."""

from __future__ import annotations

import gzip
import json
import random
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import MeterSpec, Price
from policies.meters import MeterPlan, Tools, decoding, parse_source
from policies.meters.decoding import (
    DECODED_BODY_MAX_BYTES,
    DECODED_CHUNK_MAX_BYTES,
    DECODED_PIECE_MAX_BYTES,
    MEMBERS_MAX,
    ZLIB_DECODERS,
    Decoding,
    Inflate,
    decoded_max_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TOOLS = Tools(json.loads)
CHAT = Price(
    meters=(
        MeterSpec(
            "token",
            (
                parse_source("response.json:/usage/total_tokens"),
                parse_source("response.sse:/usage/total_tokens"),
            ),
            1,
            1,
        ),
    )
)
ANSWER = json.dumps({"id": "c", "text": "words " * 20, "usage": {"total_tokens": 30}}).encode()
STREAM = b"data: " + ANSWER + b"\n\ndata: [DONE]\n\n"


def units(content_type: str, body: bytes, encoding: str) -> int | None:
    """The same however it is cut, in one and in two and byte by byte."""
    plan = MeterPlan(CHAT, content_type, encoding)
    (whole,) = plan.read_whole(TOOLS, body, (), None, 0).units
    for cut in range(len(body)):
        meter = plan.open(TOOLS, (), None)
        meter.feed(body[:cut])
        meter.feed(body[cut:])
        assert meter.reading().units == (whole,), cut
    meter = plan.open(TOOLS, (), None)
    for index in range(len(body)):
        meter.feed(body[index : index + 1])
    assert meter.reading().units == (whole,)
    return whole


def bare_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(body) + packer.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(ANSWER)),
        ("X-GZIP ", gzip.compress(ANSWER)),
        ("gzip", gzip.compress(ANSWER[:9]) + gzip.compress(ANSWER[9:])),
        ("gzip", gzip.compress(b"") + gzip.compress(ANSWER)),
        ("deflate", zlib.compress(ANSWER)),
        ("deflate", bare_deflate(ANSWER)),
        ("deflate", zlib.compress(ANSWER, 0)),
        ("identity", ANSWER),
    ],
)
def test_compressed_answers_are_read(encoding: str, body: bytes) -> None:
    assert units("application/json", body, encoding) == 30


def test_a_compressed_stream_is_read_while_it_runs() -> None:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    meter = MeterPlan(CHAT, "text/event-stream", "gzip").open(TOOLS, (), None)
    meter.feed(packer.compress(STREAM) + packer.flush(zlib.Z_SYNC_FLUSH))
    assert meter.so_far().units == meter.reading().units == (30,)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("compress", ANSWER),
        ("br", ANSWER),
        ("gzip, gzip", gzip.compress(gzip.compress(ANSWER))),
        ("gzip", ANSWER),
        ("gzip", b""),
        ("gzip", gzip.compress(ANSWER)[:-12]),
        ("gzip", gzip.compress(ANSWER) + b"garbage"),
        ("deflate", b"x"),
        ("deflate", bare_deflate(ANSWER)[:-4]),
        ("deflate", ANSWER),
    ],
)
def test_what_cannot_be_decoded_is_missing(encoding: str, body: bytes) -> None:
    assert units("application/json", body, encoding) is None


def test_a_corrupted_stream_does_not_keep_what_was_read_before() -> None:
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    good = packer.compress(STREAM) + packer.flush(zlib.Z_FULL_FLUSH)
    assert units("text/event-stream", good, "gzip") == 30
    assert units("text/event-stream", good + b"\xff" * 40, "gzip") is None


@pytest.mark.parametrize(
    ("length", "most"),
    [(0, 1024 * 1024), (1_000, 1024 * 1024 + 64_000), (10**9, DECODED_CHUNK_MAX_BYTES)],
)
def test_what_a_chunk_may_become_depends_on_its_length(length: int, most: int) -> None:
    assert decoded_max_bytes(length) == most


@pytest.mark.parametrize("decoder", ZLIB_DECODERS.values())
def test_what_inflates_without_end_is_given_up_at_the_bound_of_a_chunk(
    decoder: Callable[[], Inflate],
) -> None:
    bomb = zlib.compress(bytes(DECODED_CHUNK_MAX_BYTES), level=9)
    bounded = Decoding(decoder())
    pieces = list(map(len, bounded.feed(bomb)))
    assert bounded.failed
    assert sum(pieces) <= decoded_max_bytes(len(bomb)) < DECODED_CHUNK_MAX_BYTES
    assert max(pieces) <= DECODED_PIECE_MAX_BYTES
    assert list(bounded.feed(bomb)) == []


def packed_to(size: int) -> bytes:
    """A long gzip body, stored as it is but for its end, that becomes so many bytes."""
    noise = random.Random(7).randbytes(200_000)
    return gzip.compress(noise) + gzip.compress(bytes(size - len(noise)), compresslevel=1)


def test_what_inflates_to_the_bound_of_a_chunk_is_read_and_no_more() -> None:
    for size, failed in ((DECODED_CHUNK_MAX_BYTES, False), (DECODED_CHUNK_MAX_BYTES + 1, True)):
        bounded = Decoding(Inflate(bare=False))
        total = sum(map(len, bounded.feed(packed_to(size))))
        assert bounded.failed is failed
        assert failed or total == size


def test_a_body_is_given_up_at_its_bound_however_slowly_it_comes() -> None:
    part = gzip.compress(bytes(1024 * 1024), compresslevel=1)
    bounded = Decoding(Inflate(bare=False))
    total = 0
    for _ in range(DECODED_BODY_MAX_BYTES // (1024 * 1024)):
        total += sum(map(len, bounded.feed(part)))
        assert not bounded.failed
    assert total == DECODED_BODY_MAX_BYTES
    assert list(bounded.feed(gzip.compress(b"x"))) == []
    assert bounded.failed


def test_a_body_of_too_many_members_is_given_up() -> None:
    bounded = Decoding(Inflate(bare=False))
    list(bounded.feed(gzip.compress(b"") * MEMBERS_MAX))
    assert not bounded.failed
    list(bounded.feed(gzip.compress(b"x")))
    assert bounded.failed


def test_decoders_are_given_long_chunks_bit_by_bit() -> None:
    given_sizes = []

    class Decoder:
        def feed(self, chunk: bytes) -> list[bytes]:
            given_sizes.append(len(chunk))
            return []

    list(Decoding(Decoder()).feed(bytes(40_000)))  # type: ignore[arg-type]
    assert sum(given_sizes) == 40_000
    assert max(given_sizes) <= decoding.ENCODED_PIECE_MAX_BYTES


@given(st.binary(max_size=100_000), st.integers(1, 5_000), st.sampled_from(["gzip", "deflate"]))
def test_decoding_in_pieces_gives_the_whole(body: bytes, size: int, encoding: str) -> None:
    packed = gzip.compress(body * 3) if encoding == "gzip" else bare_deflate(body * 3)
    bounded = Decoding(ZLIB_DECODERS[encoding]())
    chunks = [packed[index : index + size] for index in range(0, len(packed), size)]
    assert b"".join(piece for chunk in chunks for piece in bounded.feed(chunk)) == body * 3


@given(st.lists(st.binary(max_size=60), max_size=6), st.sampled_from(sorted(ZLIB_DECODERS)))
def test_no_bytes_make_decoding_fail_otherwise(chunks: list[bytes], encoding: str) -> None:
    bounded = Decoding(ZLIB_DECODERS[encoding]())
    for chunk in chunks:
        list(bounded.feed(chunk))

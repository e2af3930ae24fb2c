"""br and zstd: answers in them are metered, within the same bounds as gzip."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.decoders import (
    DECODERS,
    METER_TOOLS,
    READABLE_ENCODINGS,
    ZSTD_WINDOW_LOG_MAX,
    Zstd,
)
from policies.catalog import MeterSpec, Price
from policies.meters import MeterPlan, parse_sources
from policies.meters.decoding import (
    DECODED_CHUNK_MAX_BYTES,
    DECODED_PIECE_MAX_BYTES,
    MEMBERS_MAX,
    DecodeError,
    Decoding,
    decoded_max_bytes,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable

ENCODERS: dict[str, Callable[[bytes], bytes]] = {"br": brotli.compress, "zstd": zstd.compress}
ENCODINGS = pytest.mark.parametrize("encoding", ENCODERS)
TOTAL = Price(meters=(MeterSpec("token", parse_sources("openai.total_tokens"), 1, 1),))
ANSWER = json.dumps({"text": "words " * 40, "usage": {"total_tokens": 30}}).encode()
STREAM = b'data: {"usage": null}\n\ndata: ' + ANSWER + b"\n\ndata: [DONE]\n\n"


def units(encoding: str, body: bytes, content_type: str = "application/json") -> int | None:
    """The same wherever the body is cut in two, and byte by byte."""
    plan = MeterPlan(TOTAL, content_type, encoding)
    (whole,) = plan.read_whole(METER_TOOLS, body, (), None, 0).units
    for cut in range(len(body)):
        meter = plan.open(METER_TOOLS, (), None)
        meter.feed(body[:cut])
        meter.feed(body[cut:])
        assert meter.reading().units == (whole,), cut
    meter = plan.open(METER_TOOLS, (), None)
    for index in range(len(body)):
        meter.feed(body[index : index + 1])
    assert meter.reading().units == (whole,)
    return whole


def test_every_encoding_that_is_asked_for_can_be_read() -> None:
    assert set(READABLE_ENCODINGS) == {"identity", "gzip", "x-gzip", "deflate", *ENCODERS}
    assert set(DECODERS) == set(ENCODERS)


@ENCODINGS
def test_compressed_answers_and_streams_are_read(encoding: str) -> None:
    encode = ENCODERS[encoding]
    assert units(encoding, encode(ANSWER)) == 30
    assert units(encoding.upper(), encode(STREAM), "text/event-stream") == 30


@ENCODINGS
def test_a_stream_is_read_before_it_ends(encoding: str) -> None:
    plan = MeterPlan(TOTAL, "text/event-stream", encoding)
    meter = plan.open(METER_TOOLS, (), None)
    if encoding == "br":
        packer = brotli.Compressor()
        meter.feed(packer.process(STREAM) + packer.flush())
    else:
        frame = zstd.ZstdCompressor()
        meter.feed(frame.compress(STREAM) + frame.flush(frame.FLUSH_BLOCK))
    assert meter.so_far().units == (30,)


@ENCODINGS
def test_a_broken_body_is_missing(encoding: str) -> None:
    good = ENCODERS[encoding](ANSWER)
    for body in (ANSWER, b"", good[:-9], good + b"garbage", good[:9] + b"\xff" * 40):
        assert units(encoding, body) is None


def test_zstd_bodies_may_have_several_frames_and_some_to_skip() -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip"
    body = zstd.compress(ANSWER[:9]) + skipped + zstd.compress(b"") + zstd.compress(ANSWER[9:])
    assert units("zstd", body) == 30


def test_a_zstd_body_of_too_many_frames_is_given_up() -> None:
    bounded = Decoding(Zstd())
    list(bounded.feed(zstd.compress(b"") * MEMBERS_MAX))
    assert not bounded.failed
    list(bounded.feed(zstd.compress(b"")))
    assert bounded.failed


def test_a_zstd_frame_that_wants_more_memory_than_http_allows_is_refused() -> None:
    def frame(window_log: int) -> bytes:
        options = {zstd.CompressionParameter.window_log: window_log}
        compressor = zstd.ZstdCompressor(options=options)
        return compressor.compress(ANSWER * 40) + compressor.flush()

    assert 2**ZSTD_WINDOW_LOG_MAX == 8 * 1024 * 1024
    assert b"".join(Zstd().feed(frame(ZSTD_WINDOW_LOG_MAX))) == ANSWER * 40
    with pytest.raises(DecodeError):
        list(Zstd().feed(frame(ZSTD_WINDOW_LOG_MAX + 1)))


@ENCODINGS
def test_what_decodes_without_end_is_given_up_at_the_bound_of_a_chunk(encoding: str) -> None:
    bomb = ENCODERS[encoding](bytes(DECODED_CHUNK_MAX_BYTES))
    assert len(bomb) < 2_000
    bounded = Decoding(DECODERS[encoding]())
    pieces = list(map(len, bounded.feed(bomb)))
    assert bounded.failed
    assert sum(pieces) <= decoded_max_bytes(len(bomb)) < DECODED_CHUNK_MAX_BYTES
    assert max(pieces) <= 2 * DECODED_PIECE_MAX_BYTES
    assert list(bounded.feed(b"x")) == []


@ENCODINGS
@given(body=st.binary(max_size=50_000), times=st.integers(1, 9), size=st.integers(1, 5_000))
def test_decoding_bit_by_bit_gives_the_whole(
    encoding: str, body: bytes, times: int, size: int
) -> None:
    packed = ENCODERS[encoding](body * times)
    bounded = Decoding(DECODERS[encoding]())
    chunks = [packed[index : index + size] for index in range(0, len(packed), size)]
    assert b"".join(piece for chunk in chunks for piece in bounded.feed(chunk)) == body * times
    assert not bounded.failed


@ENCODINGS
@given(data=st.data())
def test_a_body_with_wrong_bytes_never_fails_otherwise(encoding: str, data: st.DataObject) -> None:
    packed = bytearray(ENCODERS[encoding](ANSWER))
    for _ in range(data.draw(st.integers(0, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    body = bytes(packed) + data.draw(st.binary(max_size=8))
    cut = data.draw(st.integers(0, len(body)))
    bounded = Decoding(DECODERS[encoding]())
    for chunk in (body[:cut], body[cut:]):
        list(bounded.feed(chunk))

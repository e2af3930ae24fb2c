"""Frames are the same however the network cuts them; what is no frame is refused by its code."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from gateway.proxy.websocket_frames import (
    CONTROL_MAX_BYTES,
    REASON_MAX_BYTES,
    BrokenFramesError,
    FrameReader,
    begins_message,
    close_frame,
    close_payload,
    is_data,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

TEXT, BINARY, CONT = Opcode.TEXT, Opcode.BINARY, Opcode.CONT
PING, PONG, CLOSE = Opcode.PING, Opcode.PONG, Opcode.CLOSE

CONVERSATION = [
    Frame(TEXT, b"whole"),
    Frame(TEXT, b"in ", fin=False),
    Frame(PING, b"are you there"),
    Frame(CONT, b"three ", fin=False),
    Frame(PONG, b""),
    Frame(CONT, b"parts"),
    Frame(BINARY, b""),
    Frame(BINARY, bytes(126)),
    Frame(TEXT, b"\xff is for the reader to refuse"),
    Frame(CLOSE, close_payload(4001, "bye")),
]


def told(frames: Sequence[Frame]) -> list[tuple[Opcode, bytes, bool]]:
    return [(frame.opcode, bytes(frame.data), frame.fin) for frame in frames]


def read(*parts: bytes, masked: bool = True, message_max_bytes: int = 1_000) -> list[Frame]:
    """The frames in parts of a stream, each asked for as soon as it can be there."""
    reader = FrameReader(masked=masked, message_max_bytes=message_max_bytes)
    frames = []
    for part in parts:
        reader.feed(part)
        while (frame := reader.next()) is not None:
            frames.append(frame)
    assert reader.unread_bytes == 0
    return frames


def refused(data: bytes, *, masked: bool = False, message_max_bytes: int = 1_000) -> int:
    """The code with which a stream is refused."""
    with pytest.raises(BrokenFramesError) as caught:
        read(data, masked=masked, message_max_bytes=message_max_bytes)
    return caught.value.code


@pytest.mark.parametrize("masked", [True, False])
def test_a_stream_cut_at_any_position_has_the_same_frames(masked: bool) -> None:
    data = b"".join(frame.serialize(mask=masked) for frame in CONVERSATION)
    assert told(read(data, masked=masked)) == told(CONVERSATION)
    for cut in range(len(data)):
        assert told(read(data[:cut], data[cut:], masked=masked)) == told(CONVERSATION), cut
    assert told(read(*(data[i : i + 1] for i in range(len(data))), masked=masked)) == told(
        CONVERSATION
    )


@given(st.lists(st.binary(max_size=40), max_size=8), st.booleans())
def test_no_bytes_make_it_fail_otherwise_than_by_refusing(parts: list[bytes], masked: bool) -> None:
    reader = FrameReader(masked=masked, message_max_bytes=64)
    with suppress(BrokenFramesError):
        for part in parts:
            reader.feed(part)
            while reader.next() is not None:
                pass


@given(
    st.lists(
        st.tuples(st.sampled_from([TEXT, BINARY]), st.lists(st.binary(max_size=300), min_size=1)),
        max_size=5,
    ),
    st.data(),
)
def test_messages_in_any_fragments_and_cuts_are_the_same_frames(
    messages: list[tuple[Opcode, list[bytes]]], data: st.DataObject
) -> None:
    frames = [
        Frame(opcode if index == 0 else CONT, part, fin=index == len(parts) - 1)
        for opcode, parts in messages
        for index, part in enumerate(parts)
    ]
    stream = b"".join(frame.serialize(mask=True) for frame in frames)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    bounds = [0, *cuts, len(stream)]
    parts = [stream[start:end] for start, end in pairwise(bounds)]
    assert told(read(*parts, message_max_bytes=10**6)) == told(frames)


BROKEN = {
    "masked by an agent": Frame(TEXT, b"hi").serialize(mask=True),
    "a reserved bit": bytes([0xC1, 0]),
    "another reserved bit": bytes([0xA1, 0]),
    "the third reserved bit": bytes([0x91, 0]),
    "an unknown opcode": bytes([0x83, 0]),
    "an unknown control opcode": bytes([0x8B, 0]),
    "a ping in parts": bytes([0x09, 0]),
    "a ping too long": bytes([0x89, 126, 0, CONTROL_MAX_BYTES + 1]) + bytes(CONTROL_MAX_BYTES + 1),
    "a part of nothing": Frame(CONT, b"x").serialize(mask=False),
    "a message within another": Frame(TEXT, b"a", fin=False).serialize(mask=False)
    + Frame(TEXT, b"b").serialize(mask=False),
    "a close of one byte": bytes([0x88, 1, 3]),
    **{
        f"a close with {code}": bytes([0x88, 2]) + code.to_bytes(2)
        for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
    },
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_the_protocol_is_1002(name: str) -> None:
    assert refused(BROKEN[name]) == 1002


def test_a_client_that_does_not_mask_breaks_the_protocol() -> None:
    assert refused(Frame(TEXT, b"hi").serialize(mask=False), masked=True) == 1002


def test_a_reason_that_is_no_text_is_1007() -> None:
    assert refused(bytes([0x88, 3, 0x03, 0xE8, 0xFF])) == 1007


@pytest.mark.parametrize(
    "frames",
    [
        [Frame(BINARY, bytes(201))],
        [Frame(BINARY, bytes(201), fin=False)],
        [Frame(BINARY, bytes(100), fin=False), Frame(CONT, bytes(101))],
        [Frame(BINARY, bytes(200), fin=False), Frame(CONT, b"", fin=False), Frame(CONT, b"x")],
    ],
)
def test_a_message_over_its_bound_is_1009_however_it_is_cut(frames: list[Frame]) -> None:
    data = b"".join(frame.serialize(mask=False) for frame in frames)
    assert refused(data, message_max_bytes=200) == 1009


def test_a_message_of_its_bound_passes_and_leaves_the_whole_bound_to_the_next() -> None:
    frames = [
        Frame(BINARY, bytes(150), fin=False),
        Frame(PING, bytes(CONTROL_MAX_BYTES)),
        Frame(CONT, bytes(50)),
        Frame(TEXT, bytes(200)),
    ]
    data = b"".join(frame.serialize(mask=False) for frame in frames)
    assert told(read(data, masked=False, message_max_bytes=200)) == told(frames)


@pytest.mark.parametrize("length", [1_001, 2**31, 2**63 - 1, 2**64 - 1])
def test_a_length_over_the_bound_is_refused_before_its_bytes_come(length: int) -> None:
    assert refused(bytes([0x82, 127]) + length.to_bytes(8)) == 1009


def test_what_counts_as_a_message_and_as_its_beginning() -> None:
    assert [is_data(frame) for frame in CONVERSATION[:5]] == [True, True, False, True, False]
    assert [begins_message(frame) for frame in CONVERSATION[:4]] == [True, True, False, False]


def test_a_reason_is_cut_between_two_characters_where_it_is_too_long() -> None:
    assert close_payload(1000) == b"\x03\xe8"
    payload = close_payload(1008, "ü" * 100)
    assert payload == b"\x03\xf0" + ("ü" * 61).encode()
    assert len(payload) <= REASON_MAX_BYTES + 2
    [frame] = read(close_frame(payload, masked=True))
    assert bytes(frame.data) == payload

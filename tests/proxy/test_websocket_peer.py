"""One end of a WebSocket: read ahead within bounds, woken when something is there."""

from __future__ import annotations

import asyncio

import pytest
from websockets.frames import Frame, Opcode

from gateway.proxy.websocket_frames import BrokenFramesError, close_payload
from gateway.proxy.websocket_peer import READ_AHEAD_MAX_BYTES, Peer
from tests.support.conversations import masked

TEXT = Opcode.TEXT


class Wire:
    """A socket that does as it is told."""

    def __init__(self) -> None:
        self.writing_paused = False
        self.reading = True
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def pause_reading(self) -> None:
        assert self.reading
        self.reading = False

    def resume_reading(self) -> None:
        assert not self.reading
        self.reading = True


def client() -> tuple[Peer, Wire]:
    wire = Wire()
    return Peer(wire, client=True, message_max_bytes=10 * READ_AHEAD_MAX_BYTES), wire


async def test_a_frame_is_waited_for_however_its_bytes_come() -> None:
    peer, _ = client()
    waiting = asyncio.create_task(peer.next())
    for byte in masked(TEXT, b"hello"):
        assert peer.feed_data(bytes([byte])) == (False, b"")
        await asyncio.sleep(0)
    frame = await waiting
    assert frame is not None
    assert bytes(frame.data) == b"hello"


async def test_what_came_before_the_end_is_given_before_the_end() -> None:
    peer, _ = client()
    peer.feed_data(masked(TEXT, b"a") + masked(TEXT, b"b") + masked(TEXT, b"c")[:3])
    peer.feed_eof()
    assert [frame and bytes(frame.data) for frame in [await peer.next() for _ in "123"]] == [
        b"a",
        b"b",
        None,
    ]


async def test_a_wait_that_was_given_up_loses_nothing() -> None:
    peer, _ = client()
    waiting = asyncio.create_task(peer.next())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    peer.feed_data(masked(TEXT, b"a"))
    assert await peer.next() is not None


async def test_beyond_the_bound_nothing_is_read_until_frames_are_taken() -> None:
    peer, wire = client()
    frame = masked(TEXT, bytes(1_000))
    fed = 0
    while wire.reading:
        peer.feed_data(frame)
        fed += 1
    assert READ_AHEAD_MAX_BYTES <= fed * len(frame) <= READ_AHEAD_MAX_BYTES + 2 * len(frame)
    peer.feed_data(frame)  # a loop may have had one more
    taken = 0
    while not wire.reading:
        assert await peer.next() is not None
        taken += 1
    assert taken <= 4
    for _ in range(fed + 1 - taken):
        assert await peer.next() is not None


async def test_a_frame_larger_than_the_bound_is_read_to_its_end() -> None:
    peer, wire = client()
    data = masked(TEXT, bytes(5 * READ_AHEAD_MAX_BYTES))
    for start in range(0, len(data), 10_000):
        assert wire.reading
        peer.feed_data(data[start : start + 10_000])
    frame = await peer.next()
    assert frame is not None
    assert len(frame.data) == 5 * READ_AHEAD_MAX_BYTES


async def test_room_to_write_is_waited_for_until_the_time_or_the_peer_is_gone() -> None:
    peer, wire = client()
    await peer.drained(0.01)
    wire.writing_paused = True
    with pytest.raises(TimeoutError):
        await peer.drained(0.01)
    waiting = asyncio.create_task(peer.drained(10))
    await asyncio.sleep(0)
    peer.writable()  # too early
    await asyncio.sleep(0.01)
    assert not waiting.done()
    wire.writing_paused = False
    peer.writable()
    await waiting
    wire.writing_paused = True
    waiting = asyncio.create_task(peer.drained(10))
    await asyncio.sleep(0)
    peer.feed_eof()
    await waiting


async def test_a_client_has_parted_when_it_closes_and_an_agent_when_it_is_gone() -> None:
    peer, _ = client()
    parting = asyncio.create_task(peer.parted())
    peer.feed_data(masked(TEXT, b"ignored") * 3)
    await asyncio.sleep(0.01)
    assert not parting.done()
    peer.feed_data(masked(Opcode.CLOSE, close_payload(1000)))
    await parting
    agent = Peer(Wire(), client=False, message_max_bytes=100)
    parting = asyncio.create_task(agent.parted())
    agent.feed_data(Frame(Opcode.CLOSE, close_payload(1000)).serialize(mask=False))
    await asyncio.sleep(0.01)
    assert not parting.done()
    agent.feed_eof()
    await parting


async def test_what_broke_is_read_on_only_for_its_end() -> None:
    peer, wire = client()
    peer.feed_data(b"\xff" * 100)
    with pytest.raises(BrokenFramesError):
        await peer.next()
    assert not wire.reading
    parting = asyncio.create_task(peer.parted())
    await asyncio.sleep(0)
    assert wire.reading
    for _ in range(100):
        peer.feed_data(b"\xff" * READ_AHEAD_MAX_BYTES)
    assert wire.reading
    assert peer._frames.unread_bytes <= 100
    peer.feed_eof()
    await parting


async def test_what_is_sent_to_an_agent_is_masked_and_to_a_client_not() -> None:
    peer, wire = client()
    peer.pass_on(Frame(TEXT, b"x"))
    peer.close(b"")
    assert wire.written == b"\x81\x01x\x88\x00"
    wire = Wire()
    Peer(wire, client=False, message_max_bytes=1).pass_on(Frame(TEXT, b"x"))
    assert wire.written[:2] == b"\x81\x81"

"""Bodies that are read before credits are held: bounded over all calls, and shared fairly."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.proxy import forward
from gateway.proxy.forward import BodyReader, BodyTimeoutError, BodyTooLargeError, TooMuchReadError

WAIT_S = 60.0


class Sender:
    """A client that has sent some of its body."""

    def __init__(self, *parts: bytes) -> None:
        self._parts: asyncio.Queue[bytes] = asyncio.Queue()
        for part in parts:
            self.send(part)
        self.payload = SimpleNamespace(readany=self._parts.get)

    def send(self, part: bytes) -> None:
        self._parts.put_nowait(part)


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for 800 bytes, of which an account has 100 for sure; 300 for a body."""
    monkeypatch.setattr(forward, "READ_AHEAD_MAX_BYTES", 800)
    monkeypatch.setattr(forward, "REQUEST_READ_MAX_BYTES", 300)


def read(reader: BodyReader, sender: Sender, account_id: int = 1, limit: int = 1_000) -> Any:
    return reader.read(sender, account_id, WAIT_S, limit)  # type: ignore[arg-type]


async def test_a_body_is_read_to_its_end_or_to_the_bound() -> None:
    reader = BodyReader()
    assert await read(reader, Sender(b"ab", b"c", b"")) == (b"abc", True)
    assert await read(reader, Sender(b"x" * 200, b"y" * 200, b"z")) == (
        b"x" * 200 + b"y" * 200,
        False,
    )


async def test_the_routes_limit_holds_before_the_bound() -> None:
    with pytest.raises(BodyTooLargeError):
        await read(BodyReader(), Sender(b"x" * 51), limit=50)


async def test_nobody_is_waited_for_longer_than_allowed() -> None:
    with pytest.raises(BodyTimeoutError):
        await BodyReader().read(Sender(b"x"), 1, 0.01)  # type: ignore[arg-type]


async def test_one_account_can_not_keep_the_others_from_being_read() -> None:
    reader = BodyReader()
    waiting = [asyncio.ensure_future(read(reader, Sender(b"x" * 200))) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(TooMuchReadError):  # half is used, and more than its share by this account
        await read(reader, Sender(b"x", b""))
    assert await read(reader, Sender(b"x" * 100, b""), 2) == (b"x" * 100, True)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    # What they had is free again.
    assert await read(reader, Sender(b"x" * 300, b"")) == (b"x" * 300, True)


async def test_all_accounts_together_are_bounded() -> None:
    reader = BodyReader()
    waiting = [asyncio.ensure_future(read(reader, Sender(b"x" * 100), n)) for n in range(8)]
    await asyncio.sleep(0)
    with pytest.raises(TooMuchReadError):
        await read(reader, Sender(b"x", b""), 9)
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)

"""Wires that fail: to Redis, between two commands; to an agent, before a connection is made."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

from tests.support.faulty_redis import FaultyWire

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self


class RedisWire(FaultyWire):
    """A faulty wire to a Redis on TCP that can also stop in the middle of something.

    `hold_reply_to`: when a request holds these bytes, it runs, and its connection then passes
    nothing more back. `hold_request`: such a request is not even sent. `held` tells of either.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__("")
        self._address = host, port
        self.hold_reply_to: bytes | None = None
        self.hold_request: bytes | None = None
        self.held = asyncio.Event()

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        return self

    def heal(self) -> None:
        """Pass everything from now on, on new connections."""
        self.hold_reply_to = self.hold_request = self.lose_reply_to = None
        self.held.clear()
        self.cut()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        redis_reader, redis_writer = await asyncio.open_connection(*self._address)
        losing = holding = False

        async def forward() -> None:
            nonlocal losing, holding
            while data := await reader.read(65536):
                if self.hold_request is not None and self.hold_request in data:
                    self.held.set()
                    await asyncio.Event().wait()
                if self.hold_reply_to is not None and self.hold_reply_to in data:
                    holding = True
                losing = losing or self._loses(data)
                redis_writer.write(data)

        async def back() -> None:
            while data := await redis_reader.read(65536):
                if losing:
                    return
                if holding:
                    self.held.set()
                else:
                    writer.write(data)

        ways = [asyncio.ensure_future(forward()), asyncio.ensure_future(back())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            redis_writer.transport.abort()


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """The URL of a host whose connections are never made: its queue of new ones is full."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)  # noqa: FBT003 - positional only
            filler.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"

"""Sending a request's body piece by piece, beside waiting for the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.upstream.errors import UpstreamBroken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from gateway.upstream.protocol import Connection

# RFC 9110, section 10.1.1: a client must not wait for 100 (Continue) for ever; old servers never
# send it.
CONTINUE_WAIT_S = 1.0


class Upload:
    """The body of one call on its way out, in a task of its own.

    `length` is what the head promised (None: chunked framing is put around the pieces). A body of
    another length fails the call with ValueError: the agent would take the next call's head for
    its rest.
    """

    def __init__(
        self,
        connection: Connection,
        body: bytes | AsyncIterator[bytes],
        length: int | None,
        expect_continue: Callable[[], object] | None,
    ) -> None:
        self._connection = connection
        self._body = body
        self._length = length
        self._expect_continue = expect_continue
        self._continued = asyncio.Event()
        self._drained: asyncio.Future[None] | None = None
        self._stopped = False
        self.waiting = expect_continue is not None  # for 100 (Continue); nothing of the body is out
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins; the head must be written already."""
        self._task = asyncio.create_task(self._run())

    def go_on(self) -> None:
        """The agent said 100 (Continue)."""
        self._continued.set()

    def drained(self) -> None:
        """The socket takes bytes again."""
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    def stop(self) -> None:
        """No more is sent; the body's iterator is cancelled where it waits."""
        self._stopped = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def _run(self) -> None:
        connection = self._connection
        try:
            await self._send()
        except asyncio.CancelledError:
            if not self._stopped:
                connection.fail(UpstreamBroken("the request's body was cancelled", sent=True))
            raise
        except Exception as error:  # noqa: BLE001  # whatever the body raises, `send` raises
            if not self._stopped:
                connection.fail(error)
        finally:
            # An iterator left where it was would hold what it reads from until it is collected.
            close = getattr(self._body, "aclose", None)
            if close is not None:
                await close()

    async def _send(self) -> None:
        if self._expect_continue is not None:
            await self._await_continue(self._expect_continue)
        if isinstance(self._body, bytes):
            await self._write((self._body,))
        elif self._length is None:
            await self._send_chunks(self._body)
        else:
            await self._send_pieces(self._body, self._length)
        if not self._stopped:
            self._connection.uploaded()

    async def _await_continue(self, callback: Callable[[], object]) -> None:
        try:
            async with asyncio.timeout(CONTINUE_WAIT_S):
                await self._continued.wait()
        except TimeoutError:
            pass
        self.waiting = False
        callback()

    async def _send_chunks(self, body: AsyncIterator[bytes]) -> None:
        async for piece in body:
            if piece:  # an empty chunk would be the end
                await self._write((b"%x\r\n" % len(piece), piece, b"\r\n"))
        await self._write((b"0\r\n\r\n",))

    async def _send_pieces(self, body: AsyncIterator[bytes], length: int) -> None:
        left = length
        async for piece in body:
            left -= len(piece)
            if left < 0:
                break
            if piece:
                await self._write((piece,))
        if left:
            raise ValueError("the request's body is not as long as its Content-Length")

    async def _write(self, parts: tuple[bytes, ...]) -> None:
        connection = self._connection
        connection.transport.writelines(parts)
        if connection.transport.is_closing():
            # Nothing pauses a dead socket, and a body that is always ready would never let the
            # loop tell us of its end.
            await asyncio.sleep(0)
        if connection.write_paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained


def promised_length(head: bytes, body: bytes | AsyncIterator[bytes]) -> int:
    """How long the body has to be, by the request's head.

    Raises: ValueError when a body in pieces comes without exactly one Content-Length.
    """
    if isinstance(body, bytes):
        return len(body)
    found = [
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")[1:]
        if line[:15].lower() == b"content-length:"
    ]
    if len(found) != 1:
        raise ValueError("a body in pieces needs chunked=True or one Content-Length in its head")
    return int(found[0])

"""An agent's answer: complete at once, or read as it comes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.upstream.errors import UpstreamTruncated

if TYPE_CHECKING:
    import asyncio

    from gateway.upstream.protocol import Connection


class Answer:
    """Status, headers and body of one answer.

    `body` is the whole body when it had arrived together with the head (then the connection is
    free again already), else None: `read()` gives it piece by piece. `content_length` is what the
    header said, also for HEAD, where the body is b""; None when there was no such header, even if
    `body` is known (a chunked answer in one packet).
    """

    __slots__ = ("_taken", "body", "content_length", "headers", "http_version", "reason", "status")

    def __init__(  # noqa: PLR0917  # made once per call: keywords would cost
        self,
        status: int,
        reason: bytes,
        http_version: str,
        headers: list[tuple[bytes, bytes]],
        content_length: int | None,
        body: bytes | None,
    ) -> None:
        self.status = status
        self.reason = reason
        self.http_version = http_version  # "1.0" or "1.1"
        self.headers = headers
        self.content_length = content_length
        self.body = body
        self._taken = False

    async def read(self) -> bytes:
        """The next bytes of the body, as soon as there are any; b"" at its clean end."""
        if self._taken:
            return b""
        self._taken = True
        return self.body or b""

    @property
    def ended(self) -> bool:
        """Whether all is read and the body came to its clean end: the next `read()` is b""."""
        return self._taken

    def abort(self) -> None:
        """Closes the connection unless the answer is complete. Harmless when repeated."""


class StreamedAnswer(Answer):
    """An answer whose body is still coming. One reader at a time.

    The connection appends to `chunks` and goes back to the pool as soon as the last byte is here,
    read or not.
    """

    __slots__ = ("_connection", "_error", "_waiter", "chunks", "unread_bytes")

    def __init__(  # noqa: PLR0917  # as its base
        self,
        status: int,
        reason: bytes,
        http_version: str,
        headers: list[tuple[bytes, bytes]],
        content_length: int | None,
        connection: Connection,
        chunks: list[bytes],
    ) -> None:
        super().__init__(status, reason, http_version, headers, content_length, None)
        self._connection: Connection | None = connection  # None: ended, cleanly or by _error
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.chunks = chunks
        self.unread_bytes = sum(map(len, chunks))

    async def read(self) -> bytes:
        """The next bytes of the body, as soon as there are any; b"" at its clean end.

        Raises: UpstreamTruncated when the body ended early, UpstreamTimeout when idle or total time
        ran out, or what the caller's upload raised. What arrived before is given out first.
        """
        chunks = self.chunks
        while not chunks and self._connection is not None:
            await self._more()
        if chunks:
            data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
            chunks.clear()
            self.unread_bytes = 0
            if self._connection is not None:
                self._connection.resume()
            return data
        if self._error is not None:
            raise self._error
        return b""

    @property
    def ended(self) -> bool:
        """Whether all is read and the body came to its clean end: the next `read()` is b""."""
        return self._connection is None and self._error is None and not self.chunks

    async def _more(self) -> None:
        connection = self._connection
        if connection is None:
            return
        if self._waiter is not None:
            raise RuntimeError("an answer has one reader at a time")
        self._waiter = connection.loop.create_future()
        try:
            await self._waiter
        except BaseException:
            self.abort()
            raise
        finally:
            self._waiter = None

    def abort(self) -> None:
        """Closes the connection unless the answer is complete. Harmless when repeated."""
        connection = self._connection
        if connection is not None:
            connection.fail(UpstreamTruncated("the answer was aborted by its reader"))

    def arrived(self) -> None:
        """Tells the reader that `chunks` has grown. The connection's business."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, error: BaseException | None) -> None:
        """No more will come: cleanly when `error` is None. The connection's business."""
        self._connection = None
        self._error = error
        self.arrived()

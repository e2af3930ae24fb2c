"""A gate between a client and Postgres: it can lose answers, refuse connections, and cut."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


# "Ready for query, not in a transaction": what came before is committed.
READY = b"Z\x00\x00\x00\x05I"


class PostgresGate:
    """Passes bytes both ways until told otherwise."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self.closed = False
        self.lose_answer_of: bytes | None = None
        self.answers_lost = 0

    def shut(self) -> None:
        """Refuse new connections and cut those there are."""
        self.closed = True
        for writer in self._writers:
            writer.transport.abort()

    def open(self) -> None:
        self.closed = False

    def lose_next_answer(self, request: bytes) -> None:
        """When a request with these bytes was answered, cut instead of passing the answer on."""
        self.lose_answer_of = request

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(*self._address)
        except OSError:  # Postgres is away
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        asked = asyncio.Event()
        try:
            await asyncio.gather(
                self._pass_requests(reader, server_writer, asked),
                self._pass_answers(server_reader, writer, asked),
            )
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers -= {writer, server_writer}
            for each in (writer, server_writer):
                each.transport.abort()

    async def _pass_requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        while data := await reader.read(65536):
            if self.lose_answer_of is not None and self.lose_answer_of in data:
                self.lose_answer_of = None
                asked.set()
            writer.write(data)
            await writer.drain()
        writer.close()

    async def _pass_answers(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, asked: asyncio.Event
    ) -> None:
        answer = b""
        while data := await reader.read(65536):
            if not asked.is_set():
                writer.write(data)
                await writer.drain()
                continue
            answer += data
            if answer.endswith(READY):
                self.answers_lost += 1
                writer.transport.abort()
                return
        writer.close()


@contextlib.asynccontextmanager
async def postgres_gate(url: str) -> AsyncIterator[tuple[PostgresGate, str]]:
    """The gate, and the URL that leads through it."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    gate = PostgresGate(parts.hostname, parts.port or 5432)
    server = await asyncio.start_server(gate.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    login = parts.netloc.rpartition("@")[0]
    through = urlunsplit(parts._replace(netloc=f"{login}@{host}:{port}"))
    try:
        yield gate, through
    finally:
        gate.shut()
        server.close()

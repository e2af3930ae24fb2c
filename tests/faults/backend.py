"""An agent that writes down every call, durably, before it answers anything.

One line of JSON per call (`{"call": id, "nonce": …, "path": …, "at": seconds}`), synced to the disk
before the first byte of the answer, and one per usage report of a stream (`{"call", "tokens",
"at"}`), written before it is sent. What it says is the truth about which calls were made.

    python tests/faults/backend.py --port 9800 --journal FILE

Paths, with what the query may say:
    /fixed   ms=     a JSON answer, after so many milliseconds
    /tokens  tokens= ms=       a JSON answer with that usage
    /stream  tokens= chunks= ms=   a stream of chunks that many ms apart, usage growing by tokens
    /fail            400
    /hang            nothing, until the caller gives up
    /die     ms=     half an answer; after so many ms the connection ends
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import uvloop

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Mapping

BACKLOG = 4_096
HEAD_BYTES_MAX = 65_536


class Request(NamedTuple):
    """One call as it came."""

    call_id: str
    path: str
    query: Mapping[str, str]

    def number(self, name: str, default: int = 0) -> int:
        return int(self.query.get(name, default))


class Journal:
    """Lines that are on the disk once `synced` returns; calls that come together share a sync."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._lines: list[bytes] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._wake = asyncio.Event()

    def write(self, **line: object) -> None:
        """Note something; it is in the file with the next sync, at the latest."""
        self._lines.append(json.dumps(line).encode() + b"\n")
        self._wake.set()

    async def synced(self) -> None:
        """Return when everything noted so far is on the disk."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        self._wake.set()
        await waiter

    async def run(self) -> None:
        """Write and sync, for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            lines, self._lines = self._lines, []
            waiting, self._waiting = self._waiting, []
            os.write(self._file.fileno(), b"".join(lines))
            if waiting:
                await asyncio.to_thread(os.fsync, self._file.fileno())
            for waiter in waiting:
                if not waiter.done():
                    waiter.set_result(None)


class Agent:
    """Answers calls as their paths ask for."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection, call after call."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while request := await _read(reader):
                self._journal.write(
                    call=request.call_id,
                    nonce=request.query.get("n", ""),
                    path=request.path,
                    at=time.time(),
                )
                await self._journal.synced()
                if not await self._answer(request, reader, writer):
                    break
        writer.close()

    async def _answer(self, request: Request, reader: StreamReader, writer: StreamWriter) -> bool:
        """Answer; whether the connection can go on."""
        match request.path:
            case "/stream":
                await self._stream(request, writer)
            case "/hang":
                await reader.read()
                return False
            case "/die":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n" + b"x" * 2_000)
                await writer.drain()
                await asyncio.sleep(request.number("ms", 50) / 1000)
                return False
            case "/fail":
                await _send_json(writer, 400, {"error": "no"})
            case _:
                await asyncio.sleep(request.number("ms") / 1000)
                usage = {"total_tokens": request.number("tokens")}
                await _send_json(writer, 200, {"text": "done", "usage": usage})
        return True

    async def _stream(self, request: Request, writer: StreamWriter) -> None:
        tokens = request.number("tokens", 10)
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(1, request.number("chunks", 10) + 1):
            await asyncio.sleep(request.number("ms", 50) / 1000)
            if writer.is_closing():
                return
            so_far = number * tokens
            self._journal.write(call=request.call_id, tokens=so_far, at=time.time())
            _send_event(writer, json.dumps({"usage": {"total_tokens": so_far}}))
            await writer.drain()
        _send_event(writer, "[DONE]")
        writer.write(b"0\r\n\r\n")
        await writer.drain()


async def _read(reader: StreamReader) -> Request | None:
    """The next call with its body, None at the connection's end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    start, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    await reader.readexactly(int(headers.get("content-length", 0)))
    url = urlsplit(start.split(" ")[1])
    return Request(headers.get("x-request-id", ""), url.path, dict(parse_qsl(url.query)))


async def _send_json(writer: StreamWriter, status: int, document: object) -> None:
    body = json.dumps(document).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


def _send_event(writer: StreamWriter, data: str) -> None:
    event = f"data: {data}\n\n".encode()
    writer.write(b"%x\r\n%b\r\n" % (len(event), event))


async def main(port: int, path: Path) -> None:
    """Serve until killed."""
    journal = Journal(path)
    server = await asyncio.start_server(
        Agent(journal).serve, "127.0.0.1", port, backlog=BACKLOG, limit=HEAD_BYTES_MAX
    )
    async with server:
        await journal.run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--journal", type=Path, required=True)
    options = parser.parse_args()
    uvloop.run(main(options.port, options.journal))

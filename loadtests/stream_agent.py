"""An agent for `streams.py`: events that say when they were sent, at a steady pace.

`POST /stream` with `{"events": n, "interval_ms": m}` is answered with n server-sent events and one
with the usage. The first goes out with the head. Times are those of CLOCK_MONOTONIC, in
nanoseconds, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import time

import orjson
import uvloop

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n"
    b"Connection: close\r\n\r\n"
)
# As long as an event of a chat.
PADDING = b"x" * 150


async def serve(port: int) -> None:
    """Serve until terminated."""
    server = await asyncio.start_server(_stream, "127.0.0.1", port, backlog=1_024)
    async with server:
        await server.serve_forever()


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        wanted = orjson.loads(await reader.readexactly(length))
        writer.write(HEAD)
        interval_s = wanted["interval_ms"] / 1000
        due = time.monotonic()
        for _ in range(wanted["events"]):
            writer.write(_chunk(b'data: {"sent":%d,"pad":"%b"}\n\n' % (_now_ns(), PADDING)))
            due += interval_s
            await asyncio.sleep(max(0, due - time.monotonic()))
        usage = b'data: {"usage":{"total_tokens":%d}}\n\n' % wanted["events"]
        writer.write(_chunk(usage) + b"0\r\n\r\n")
        await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass  # the client has seen enough
    finally:
        writer.close()


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _now_ns() -> int:
    return time.monotonic_ns()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))

"""The fastest agent we could write, so that a benchmark measures the proxies before it.

Answers every request with the same chat completion of 30 tokens; needs Content-Length, not chunks.

    python loadtests/backend.py --port 9800
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re

import uvloop

ANSWER = json.dumps(
    {
        "id": "chatcmpl-benchmark",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "benchmark",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "A short answer from the agent."},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30},
    }
).encode()
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(ANSWER)
) + ANSWER
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class Backend(asyncio.Protocol):
    """One connection; requests may come in pieces or several at once."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that is whole."""
        received = self._received + data if self._received else data
        while (head := received.find(b"\r\n\r\n")) >= 0:
            length = LENGTH.search(received, 0, head)
            end = head + 4 + (int(length[1]) if length else 0)
            if len(received) < end:
                break
            self._transport.write(RESPONSE)  # type: ignore[attr-defined]
            received = received[end:]
        self._received = received


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Backend, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(_serve(parser.parse_args().port))

"""What a stream that waits for its next event costs: memory of the worker per idle SSE stream.

Opens 2 000 streams through one worker, waits until each has had its first event, and divides what
the memory of the worker grew by. Then all clients leave at once; every call must still be settled.

    python loadtests/idle_streams.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import psutil
from rig import Rig, Verdict, allow_open_files

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

BYTES_PER_KB = 1024
CONNECT_AT_ONCE = 100
IDLE_MS = 600_000
LEAVING_S = 2
STREAM_KB_MAX = 25
SETTLE_DOWN_S = 2
TIMEOUT_S = 120
WARM_UP_STREAMS = 100
BODY = json.dumps({"stream": True, "messages": [{"role": "user", "content": "hello"}]})
ROUTES = """
[[routes]]
name = "chat"
match = "POST /v1/chat/completions"
upstream = "{agent}"
timeout_s = 1200
idle_timeout_s = 900
connections_max = 8192

[routes.price]
per_request = "0.1"

[[routes.price.meters]]
unit = "token"
from = "response.sse:/usage/total_tokens"
credits_per_unit = "0.001"
reserve_units = 100
"""


@dataclass(frozen=True, slots=True)
class Streams:
    """Idle streams, open until `leave`."""

    writers: list[asyncio.StreamWriter]

    async def leave(self) -> None:
        """All clients close their connection."""
        for writer in self.writers:
            writer.close()
        await asyncio.sleep(LEAVING_S)


def main() -> int:
    """Measure and print; exit code 1 when a stream costs too much or a call was not settled."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=2000, help="open at once (2000)")
    parser.add_argument(
        "--kb-max", type=int, default=STREAM_KB_MAX, help=f"allowed per stream ({STREAM_KB_MAX})"
    )
    options = parser.parse_args()
    allow_open_files()
    verdict = Verdict()
    with Rig(ROUTES) as rig:
        worker = psutil.Process(rig.ready["worker_pids"][0])

        async def run() -> tuple[int, int]:
            await (await _open(rig.url, rig.key, WARM_UP_STREAMS)).leave()
            return await _grown(worker, lambda: _open(rig.url, rig.key, options.streams))

        before, after = asyncio.run(run())
        per_stream = (after - before) / options.streams / BYTES_PER_KB
        print(
            f"worker: {before // BYTES_PER_KB} kB before, {after // BYTES_PER_KB} kB with", end=" "
        )
        print(f"{options.streams} idle streams: {per_stream:.1f} kB per stream")
        verdict.true(f"at most {options.kb_max} kB per stream", holds=per_stream <= options.kb_max)
        calls = WARM_UP_STREAMS + options.streams
        books = rig.books(calls)
        left = sum(row["calls"] for row in books["rows"] if row["ending"] == "client_disconnect")
        agent = rig.seen_by_agent()["/v1/chat/completions"]["abandoned"]
        verdict.equal("streams left and settled", clients=calls, postgres=left, agent=agent)
        verdict.equal("audit", wanted=[], found=rig.audit())
    return verdict.conclude()


async def _grown(
    process: psutil.Process, opening: Callable[[], Awaitable[Streams]]
) -> tuple[int, int]:
    """A process's resident bytes before and with the streams; the streams are closed again."""
    before = process.memory_info().rss
    streams = await opening()
    await asyncio.sleep(SETTLE_DOWN_S)
    after = process.memory_info().rss
    await streams.leave()
    return before, after


async def _open(url: str, key: str, count: int) -> Streams:
    """Opens streams until each has its first event."""
    parts = urlsplit(url)
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"X-Agent-Chunks: 2\r\nX-Agent-Chunk-Ms: {IDLE_MS}\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
    ).encode()
    gate = asyncio.Semaphore(CONNECT_AT_ONCE)

    async def one() -> asyncio.StreamWriter:
        async with gate:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            if b" 200 " not in head.partition(b"\r\n")[0]:
                raise ConnectionError(head.decode())
            await reader.readuntil(b"data: ")
            return writer

    async with asyncio.timeout(TIMEOUT_S):
        return Streams(list(await asyncio.gather(*(one() for _ in range(count)))))


if __name__ == "__main__":
    sys.exit(main())

"""A gibibyte passes up and down in a bounded amount of memory: back-pressure works both ways."""

from __future__ import annotations

import asyncio
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import orjson

from gateway.config import GatewayConfig
from tests.support.gateway import PEPPER, Gateway, open_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.nasty_upstream import Conversation

BODY_BYTES = 2**30
PIECE = b"x" * 2**18
MEMORY_GROWTH_MAX_BYTES = 64 * 2**20


async def big_agent(talk: Conversation) -> None:
    """Reads an upload to its end, or sends as much."""
    head = await talk.head()
    if head.startswith(b"POST"):
        left = BODY_BYTES
        while left:
            left -= len(await talk.reader.read(min(left, 2**18)))
        await talk.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    else:
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % BODY_BYTES)
        for _ in range(BODY_BYTES // len(PIECE)):
            await talk.send(PIECE)
    await talk.gone()


@asynccontextmanager
async def worker_process(config: GatewayConfig) -> AsyncIterator[int]:
    """A worker of its own, so that its memory can be told from the test's: its pid."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway.worker"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    message = {"gateway": asdict(config), "pepper": PEPPER.hex(), "index": 0}
    process.stdin.write(orjson.dumps(message) + b"\n")
    try:
        assert orjson.loads(await process.stdout.readline())["event"] == "ready"
        yield process.pid
        process.stdin.close()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()


def peak_bytes(pid: int) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


async def upload(gateway: Gateway) -> bytes:
    reader, writer = await gateway.connect()
    writer.write(gateway.head("POST /any/up HTTP/1.1", f"Content-Length: {BODY_BYTES}"))
    for _ in range(BODY_BYTES // len(PIECE)):
        writer.write(PIECE)
        await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\nok")
    writer.close()
    return answer


async def download(gateway: Gateway) -> int:
    reader, writer = await gateway.connect()
    writer.write(gateway.head("GET /any/down HTTP/1.1"))
    await reader.readuntil(b"\r\n\r\n")
    left = BODY_BYTES
    while left:
        piece = await reader.read(min(left, 2**18))
        assert piece, f"{left} bytes are missing"
        left -= len(piece)
    writer.close()
    return BODY_BYTES


async def test_a_gibibyte_up_and_down_in_64_mebibytes(
    clean_redis_url: str, postgres_url: str, unused_tcp_port: int
) -> None:
    config = GatewayConfig(
        proxy_listen=f"127.0.0.1:{unused_tcp_port}",
        redis_url=clean_redis_url,
        postgres_url=postgres_url,
    )
    async with (
        nasty_upstream(big_agent) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
        worker_process(config) as pid,
    ):
        gateway.port = unused_tcp_port
        before = peak_bytes(pid)
        assert (await upload(gateway)).startswith(b"HTTP/1.1 200 ")
        assert await download(gateway) == BODY_BYTES
        assert peak_bytes(pid) - before < MEMORY_GROWTH_MAX_BYTES
        rows = await gateway.settlements(2)
        assert [row.ending for row in rows] == ["completed", "completed"]

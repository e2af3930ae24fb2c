"""Large bodies pass through in bounded memory, measured in a process of their own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.nasty_upstream import Conversation, nasty_upstream
from tests.support.upstream_calls import HI, OK

PROJECT = Path(__file__).parents[2]
MIB = 1024 * 1024
BODY_BYTES = 256 * MIB
GROWTH_MAX_BYTES = 16 * MIB
PIECE = b"x" * 65536

# Prints by how much the process's peak grew over one call, in bytes. Not by ru_maxrss: that one
# starts with what the parent had when it forked.
MEASURED = """
import asyncio, sys, uvloop
from gateway.upstream import Origin, UpstreamClient

url, way, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
piece = b"x" * 65536

async def body():
    for _ in range(size // len(piece)):
        yield piece

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

async def main():
    origin, _ = Origin.parse(url)
    async with UpstreamClient() as client:
        head = b"GET /small HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
        await (await client.send(origin, head, method=b"GET", safe=True)).read()
        before = peak()
        if way == "upload":
            head = b"POST / HTTP/1.1\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
            answer = await client.send(
                origin, head, body(), method=b"POST", safe=False, chunked=True
            )
            assert answer.body == b"hi", answer.body
        else:
            head = b"GET /large HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n"
            answer = await client.send(origin, head, method=b"GET", safe=True)
            got = 0
            while chunk := await answer.read():
                got += len(chunk)
                if got < size // 64:
                    await asyncio.sleep(0.001)  # a reader slower than the agent
            assert got == size, got
        print(peak() - before)

uvloop.run(main())
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="measured by /proc")
@pytest.mark.parametrize("way", ["upload", "download", "chunked_download"])
def test_a_large_body_passes_in_bounded_memory(way: str) -> None:
    assert asyncio.run(growth_bytes(way)) < GROWTH_MAX_BYTES


async def growth_bytes(way: str) -> int:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(HI)
        await talk.head()
        if way == "upload":
            tail = b""
            while not tail.endswith(b"0\r\n\r\n"):
                tail = tail[-16:] + await talk.reader.read(1 << 20)
            await talk.send(HI)
        elif way == "download":
            await talk.send(OK + b"Content-Length: %d\r\n\r\n" % BODY_BYTES)
            await talk.send(*[PIECE] * (BODY_BYTES // len(PIECE)))
        else:
            await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
            chunk = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
            await talk.send(*[chunk] * (BODY_BYTES // len(PIECE)), b"0\r\n\r\n")
        await talk.gone()

    async with nasty_upstream(script) as agent:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", MEASURED, agent.url, way, str(BODY_BYTES)),
            cwd=PROJECT,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
    assert process.returncode == 0
    return int(output)

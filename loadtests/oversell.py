"""A thousand calls of one credit at once, on a balance of a hundred, through two workers.

Exactly 100 may pass. The agent takes its time, so that all calls are under way together.

    python loadtests/oversell.py
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import sys
from urllib.parse import urlsplit

from rig import Rig, Verdict, allow_open_files

PATH = "/agents/suggest"
AGENT_DELAY_MS = 500
ANSWER_BYTES_MAX = 1 << 16
CALL_TIMEOUT_S = 60
MICROCREDITS_PER_CREDIT = 1_000_000
ROUTES = """
[[routes]]
name = "suggest"
match = "POST /agents/suggest"
upstream = "{agent}"
connections_max = 4096

[routes.price]
per_request = "1"
"""


def main() -> int:
    """Run it and print what each witness says; the exit code is the verdict."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=1000, help="calls at once (1000)")
    parser.add_argument("--balance", type=int, default=100, help="credits of the account (100)")
    parser.add_argument("--workers", type=int, default=2, help="gateway processes (2)")
    options = parser.parse_args()
    allow_open_files()
    passing = min(options.calls, options.balance)
    verdict = Verdict()
    with Rig(ROUTES, workers=options.workers, credits=str(options.balance)) as rig:
        statuses = asyncio.run(_call_all_at_once(rig.url, rig.key, options.calls))
        seen, books = rig.seen_by_agent()[PATH], rig.books(passing)
        verdict.equal("passed", wanted=passing, clients=statuses[200], agent=seen["calls"])
        verdict.equal("refused with 402", wanted=options.calls - passing, clients=statuses[402])
        verdict.equal("answers of another kind", wanted={}, clients=_others(statuses))
        verdict.equal("settled", wanted=passing, postgres=books["calls"])
        charged = passing * MICROCREDITS_PER_CREDIT
        verdict.equal("microcredits charged", wanted=charged, postgres=books["charged"])
        verdict.equal("audit", wanted=[], found=rig.audit())
    return verdict.conclude()


async def _call_all_at_once(url: str, key: str, calls: int) -> collections.Counter[int]:
    """Opens every connection first, then sends all calls in one go; the statuses that came back."""
    parts = urlsplit(url)
    async with asyncio.timeout(CALL_TIMEOUT_S):
        connections = [
            await asyncio.open_connection(parts.hostname, parts.port) for _ in range(calls)
        ]
        request = (
            f"POST {PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
            f"Content-Length: 2\r\nX-Agent-Delay-Ms: {AGENT_DELAY_MS}\r\n\r\n{{}}"
        ).encode()
        for _, writer in connections:
            writer.write(request)
        statuses = collections.Counter(
            await asyncio.gather(*(_status(reader) for reader, _ in connections))
        )
        for _, writer in connections:
            writer.close()
    return statuses


async def _status(reader: asyncio.StreamReader) -> int:
    """The status of a whole answer; 0 when the connection broke."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(min(int(length), ANSWER_BYTES_MAX))
        return int(head[9:12])
    except (asyncio.IncompleteReadError, ConnectionError, ValueError):
        return 0


def _others(statuses: collections.Counter[int]) -> dict[int, int]:
    return {status: count for status, count in statuses.items() if status not in {200, 402}}


if __name__ == "__main__":
    sys.exit(main())

"""A thousand calls of one credit at once, on a balance of a hundred, through two workers.

Exactly 100 may pass. The agent takes its time, so that all calls are under way together.

    python loadtests/oversell.py
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import sys
from typing import NamedTuple
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


class Answer(NamedTuple):
    """What one call got."""

    status: int
    body: bytes


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
        answers = asyncio.run(_call_all_at_once(rig.url, rig.key, options.calls))
        statuses = collections.Counter(answer.status for answer in answers)
        seen, books = rig.seen_by_agent()[PATH], rig.books(passing)
        verdict.equal("passed", wanted=passing, clients=statuses[200], agent=seen["calls"])
        verdict.equal("refused with 402", wanted=options.calls - passing, clients=statuses[402])
        verdict.equal("other answers", wanted={}, clients=_others(answers))
        verdict.equal("settled", wanted=passing, postgres=books["calls"])
        charged = passing * MICROCREDITS_PER_CREDIT
        verdict.equal("microcredits charged", wanted=charged, postgres=books["charged"])
        verdict.equal("audit", wanted=[], found=rig.audit())
    return verdict.conclude()


async def _call_all_at_once(url: str, key: str, calls: int) -> list[Answer]:
    """Opens every connection first, then sends all calls in one go; what came back."""
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
        answers = await asyncio.gather(*(_answer(reader) for reader, _ in connections))
        for _, writer in connections:
            writer.close()
    return answers


async def _answer(reader: asyncio.StreamReader) -> Answer:
    """A whole answer; status 0 when the connection broke."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        body = await reader.readexactly(min(int(length), ANSWER_BYTES_MAX))
        return Answer(int(head[9:12]), body)
    except (asyncio.IncompleteReadError, ConnectionError, ValueError) as problem:
        return Answer(0, repr(problem).encode())


def _others(answers: list[Answer]) -> dict[str, int]:
    """What is neither 200 nor 402, by its status and the reason it gives."""
    others: collections.Counter[str] = collections.Counter()
    for status, body in answers:
        if status not in {200, 402}:
            others[f"{status} {_detail(body)}"] += 1
    return dict(others)


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])
    except (ValueError, TypeError, KeyError):
        return repr(body)


if __name__ == "__main__":
    sys.exit(main())

"""What metering costs a stream: the time to its first byte, and whether it keeps up.

Each event says when the agent sent it, so its way is timed without guessing: first of one stream at
a time, straight from the agent and through the gateway in turns; then of many at once, on one
worker. Every event has to arrive, and every stream has to be charged what it used.

    python loadtests/streams.py --streams 200 --rate 50 --seconds 10
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import sys
import time
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson
import uvloop
from rig import HERE, Rig, Verdict, await_url, free_ports, pin

PROXY_CPU, REST_CPU = 0, 1
FIRST_BYTES = 300  # streams of one event, each way
# Beyond these the gateway would hold streams up: the figure, and one event's interval.
ADDED_MS_MAX = 1.0
BEHIND_MS_MAX = 20.0
PATH = "/stream"
ROUTES = """
[[routes]]
name = "stream"
match = "POST /stream"
upstream = "{agent}"

[routes.price]
per_request = "0.1"

[[routes.price.meters]]
unit = "token"
from = "response.sse:/usage/total_tokens"
credits_per_unit = "0.001"
reserve_units = 100
"""
_SENT = re.compile(rb'data: \{"sent":(\d+)')


class Seen(NamedTuple):
    """One stream as its client saw it: milliseconds that each event took."""

    ways_ms: list[float]
    charged: str | None


def main() -> int:
    """Measure and print; exit code 1 when a stream was held up, lost an event or a charge."""
    options = _options()
    port = free_ports(1)[0]
    agent = f"http://127.0.0.1:{port}"
    verdict = Verdict()
    with Rig(ROUTES, agent=agent) as rig:
        process = rig.start(
            [sys.executable, str(HERE / "stream_agent.py"), "--port", str(port)], "stream_agent"
        )
        await_url(agent)
        pin(process.pid, REST_CPU)
        for name in ("redis_pid", "postgres_pid"):
            pin(rig.ready[name], REST_CPU)
        for worker in rig.ready["worker_pids"]:
            pin(worker, PROXY_CPU)
        uvloop.run(_measure(agent, rig.url, rig.key, options, verdict))
        calls = FIRST_BYTES + options.streams
        books = rig.books(calls)
        verdict.equal("settlements", asked=calls, postgres=books["calls"])
        wrong = rig.audit()
        verdict.true("audit: " + (wrong[0] if wrong else "clean"), holds=not wrong)
    return verdict.conclude()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, default=200, help="at once (200)")
    parser.add_argument("--rate", type=int, default=50, help="events a second of each (50)")
    parser.add_argument("--seconds", type=int, default=10, help="length of each (10)")
    return parser.parse_args()


async def _measure(
    agent: str, gateway: str, key: str, options: argparse.Namespace, verdict: Verdict
) -> None:
    straight, through = [], []
    for _ in range(FIRST_BYTES):
        for url, ways in ((agent, straight), (gateway, through)):
            ways.append((await _stream(url, key, 1, 0)).ways_ms[0])
    added_ms = statistics.median(through) - statistics.median(straight)
    print(
        f"first event: {statistics.median(straight):.3f} ms straight, "
        f"{statistics.median(through):.3f} ms through the gateway (medians of {FIRST_BYTES})"
    )
    verdict.true(f"the gateway adds {added_ms:.3f} ms", holds=added_ms <= ADDED_MS_MAX)

    events = options.rate * options.seconds
    began = time.monotonic()
    streams = [_stream(gateway, key, events, 1000 / options.rate) for _ in range(options.streams)]
    seen = await asyncio.gather(*streams)
    took_s = time.monotonic() - began
    arrived = sum(len(one.ways_ms) for one in seen)
    verdict.equal("events", sent=options.streams * events, arrived=arrived)
    told = {one.charged for one in seen}
    due = f"{(100_000 + events * 1_000) / 1_000_000:.6f}".rstrip("0").rstrip(".")
    verdict.equal("credits of each stream", due={due}, told=told)
    quarter = events // 4
    first = [way for one in seen for way in one.ways_ms[:quarter]]
    last = [way for one in seen for way in one.ways_ms[-quarter:]]
    for name, ways in (("first quarter", first), ("last quarter", last)):
        p99 = statistics.quantiles(ways, n=100)[98]
        middle = statistics.median(ways)
        print(f"{name}: {middle:.2f} ms median, {p99:.2f} ms p99, {max(ways):.0f} ms at most")
    print(f"{arrived / took_s:.0f} events/s in {options.streams} streams, {took_s:.1f} s")
    behind_ms = statistics.median(last)
    verdict.true("the streams keep up with their agent", holds=behind_ms <= BEHIND_MS_MAX)


async def _stream(url: str, key: str, events: int, interval_ms: float) -> Seen:
    """One stream to its end."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**20)
    body = orjson.dumps({"events": events, "interval_ms": interval_ms})
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    ways_ms: list[float] = []
    charged = None
    try:
        while line := await reader.readline():
            now_ns = time.monotonic_ns()
            if sent := _SENT.match(line):
                ways_ms.append((now_ns - int(sent[1])) / 1_000_000)
            elif found := re.match(rb": credits-charged=([\d.]+)", line):
                charged = found[1].decode()
                break  # a short answer comes whole, without chunks
            elif line == b"0\r\n":
                break
    finally:
        writer.close()
    return Seen(ways_ms, charged)


if __name__ == "__main__":
    sys.exit(main())

"""Sends load: `wrk` where it is installed, else a small generator of our own.

Both keep N connections busy for S seconds with one POST each at a time, and tell requests per
second, latencies, and what failed. Ours is Python and shares its core with the backend, so it slows
fast proxies down; ratios then come out too small, never too large.

    python loadtests/generator.py http://127.0.0.1:8080/path --key tk_... --connections 32
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

import uvloop

BODY = json.dumps({"model": "benchmark", "messages": [{"role": "user", "content": "hello"}]})
CONNECT_TIMEOUT_S = 10
MS = {"us": 0.001, "ms": 1.0, "s": 1000.0}
WRK_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer {key}"
wrk.body = '{body}'
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """One round's result. `failed`: answers other than 2xx, and broken connections."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    failed: int


def measure(url: str, key: str, connections: int, seconds: int) -> Figures:
    """One round with the better of the two generators."""
    if shutil.which("wrk"):
        return _wrk(url, key, connections, seconds)
    command = [sys.executable, __file__, url, "--key", key]
    command += ["--connections", str(connections), "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Figures(**json.loads(done.stdout))


def generator_name() -> str:
    """Which of the two `measure` uses."""
    return "wrk" if shutil.which("wrk") else "the built-in generator (wrk is not installed)"


def _wrk(url: str, key: str, connections: int, seconds: int) -> Figures:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(WRK_SCRIPT.format(key=key, body=BODY))
        script.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        out = subprocess.run(
            [*command, "-s", script.name, url], capture_output=True, text=True, check=True
        ).stdout
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", out)
    rate = re.search(r"Requests/sec: +([\d.]+)", out)
    return Figures(
        requests_per_s=float(rate[1]) if rate else 0.0,
        p50_ms=_wrk_ms(out, "50"),
        p99_ms=_wrk_ms(out, "99"),
        failed=(int(failed[1]) if failed else 0) + sum(map(int, broken.groups() if broken else ())),
    )


def _wrk_ms(out: str, quantile: str) -> float:
    found = re.search(rf"{quantile}% +([\d.]+)(us|ms|s)", out)
    return float(found[1]) * MS[found[2]] if found else 0.0


class Caller(asyncio.Protocol):
    """One connection that always has one request under way."""

    def __init__(self, request: bytes, latencies_s: list[float]) -> None:
        self._request, self._latencies_s = request, latencies_s
        self._received = b""
        self._sent_at = 0.0
        self.failed = 0
        self.stopped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Count the answer once it is whole, send the next request."""
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        length = re.search(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)", self._received)
        if head < 0 or length is None or len(self._received) < head + 4 + int(length[1]):
            return
        self._latencies_s.append(time.perf_counter() - self._sent_at)
        if self._received[9:10] != b"2":
            self.failed += 1
        self._send()

    def connection_lost(self, _exc: Exception | None) -> None:
        """A connection that goes before the end is a failure."""
        if not self.stopped:
            self.failed += 1

    def stop(self) -> None:
        """The end of the round."""
        self.stopped = True
        self._transport.abort()  # type: ignore[attr-defined]

    def _send(self) -> None:
        self._received = b""
        self._sent_at = time.perf_counter()
        self._transport.write(self._request)  # type: ignore[attr-defined]


async def _built_in(url: str, key: str, connections: int, seconds: int) -> Figures:
    parts = urlsplit(url)
    request = (
        f"POST {parts.path or '/'} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(BODY)}\r\n\r\n{BODY}"
    ).encode()
    latencies_s: list[float] = []
    loop = asyncio.get_running_loop()
    callers = []
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        for _ in range(connections):
            _, caller = await loop.create_connection(
                lambda: Caller(request, latencies_s), parts.hostname, parts.port
            )
            callers.append(caller)
    began, skipped = time.perf_counter(), len(latencies_s)
    await asyncio.sleep(seconds)
    took_s = time.perf_counter() - began
    for caller in callers:
        caller.stop()
    counted = sorted(latencies_s[skipped:]) or [0.0]
    return Figures(
        requests_per_s=(len(latencies_s) - skipped) / took_s,
        p50_ms=counted[len(counted) // 2] * 1000,
        p99_ms=counted[len(counted) * 99 // 100] * 1000,
        failed=sum(caller.failed for caller in callers),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--key", required=True)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=int, default=4)
    options = parser.parse_args()
    round_ = _built_in(options.url, options.key, options.connections, options.seconds)
    print(json.dumps(asdict(uvloop.run(round_))))

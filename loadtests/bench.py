"""This gateway, with everything on, against a plain aiohttp reverse proxy: `make bench`.

Both get one process on one core, the same backend and the same load, in alternating rounds, because
absolute figures drift with the machine; the ratio of each pair of rounds is what counts.

    python loadtests/bench.py --rounds 5 --seconds 4 --connections 32
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

from generator import Figures, generator_name, measure
from rig import HERE, Rig, await_url, free_ports, pin

PATH = "/v1/chat/completions"
PROXY_CPU, REST_CPU = 0, 1
ROUTES = """
[[routes]]
name = "bench"
match = "POST /v1/chat/completions"
upstream = "{agent}"

[routes.price]
per_request = "0.1"

[[routes.price.meters]]
unit = "token"
from = "response.json:/usage/total_tokens"
credits_per_unit = "0.001"
reserve_units = 100
"""


def main() -> int:
    """Run the rounds and print them; exit code 1 when a call failed or the books are wrong."""
    options = _options()
    backend, proxy = free_ports(2)
    with Rig(ROUTES, agent=f"http://127.0.0.1:{backend}") as rig:
        started = [
            (_script("backend.py", "--port", backend), REST_CPU),
            (
                _script(
                    "plain_proxy.py", "--port", proxy, "--backend", f"http://127.0.0.1:{backend}"
                ),
                PROXY_CPU,
            ),
        ]
        for command, cpu in started:
            pin(rig.start(command, Path(command[1]).stem).pid, cpu)
        for pid in (rig.gateway_pid, rig.ready["redis_pid"], rig.ready["postgres_pid"]):
            _pin_tree(pid, REST_CPU)
        for worker in rig.ready["worker_pids"]:
            pin(worker, PROXY_CPU)
        pin(os.getpid(), REST_CPU)
        targets = {
            "plain aiohttp": f"http://127.0.0.1:{proxy}{PATH}",
            "tollkeeper": f"{rig.url}{PATH}",
        }
        await_url(f"http://127.0.0.1:{backend}/")
        await_url(targets["plain aiohttp"])
        rounds = _rounds(targets, rig.key, options)
        wrong = rig.audit()
    return _report(rounds, wrong, as_json=options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="pairs of rounds (5)")
    parser.add_argument("--seconds", type=int, default=4, help="length of a round (4)")
    parser.add_argument("--connections", type=int, default=32, help="calls at once (32)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser.parse_args()


def _script(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(HERE / name), *map(str, arguments)]


def _pin_tree(pid: int, cpu: int) -> None:
    """A server and the processes it has already started, such as Postgres' backends."""
    import psutil  # noqa: PLC0415 - only where the embedded servers are installed

    for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
        pin(process.pid, cpu)


def _rounds(
    targets: dict[str, str], key: str, options: argparse.Namespace
) -> dict[str, list[Figures]]:
    print(f"load: {generator_name()}, {options.connections} connections", file=sys.stderr)
    for url in targets.values():
        measure(url, key, options.connections, 1)  # warm up: not counted
    rounds: dict[str, list[Figures]] = {name: [] for name in targets}
    for number in range(1, options.rounds + 1):
        for name, url in targets.items():
            figures = measure(url, key, options.connections, options.seconds)
            rounds[name].append(figures)
            told = f"round {number}: {name:<14}{figures.requests_per_s:>8.0f} req/s"
            print(told + (f", {figures.failed} FAILED" if figures.failed else ""), file=sys.stderr)
    return rounds


def _report(rounds: dict[str, list[Figures]], wrong: list[str], *, as_json: bool) -> int:
    table = {
        name: {
            "requests_per_s": statistics.median(one.requests_per_s for one in done),
            "p50_ms": statistics.median(one.p50_ms for one in done),
            "p99_ms": statistics.median(one.p99_ms for one in done),
            "failed": sum(one.failed for one in done),
        }
        for name, done in rounds.items()
    }
    ratio = statistics.median(
        ours.requests_per_s / theirs.requests_per_s
        for ours, theirs in zip(rounds["tollkeeper"], rounds["plain aiohttp"], strict=True)
    )
    if as_json:
        print(json.dumps({"ratio": ratio, "audit": wrong, **table}))
    else:
        print(f"\n{'':<16}{'req/s':>8}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}")
        for name, row in table.items():
            figures = f"{row['requests_per_s']:>8.0f}{row['p50_ms']:>9.2f}{row['p99_ms']:>9.2f}"
            print(f"{name:<16}{figures}{row['failed']:>8.0f}")
        print(f"\ntollkeeper is {ratio:.2f} x the plain proxy, with everything on")
        print("audit: " + ("clean" if not wrong else wrong[0]))
    return 1 if wrong or any(row["failed"] for row in table.values()) else 0


if __name__ == "__main__":
    sys.exit(main())

"""Runs simulations: `python -m tests.simulation --seed 42 --steps 5000`."""

from __future__ import annotations

import argparse
import os
import sys

SEEDS = 2**31


def main() -> None:
    """Parse, make sure that nothing depends on hashing, run."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="default: chosen, and printed")
    parser.add_argument("--count", type=int, default=1, help="of seeds, counted up from the first")
    parser.add_argument("--steps", type=int, default=5_000, help="of each simulation, at least")
    parser.add_argument("--trace", action="store_true", help="show the trace of a clean run, too")
    parser.add_argument("--lines", type=int, default=60, help="of the trace, shown on failure")
    parser.add_argument(
        "--harsh", action="store_true", help="break things while others are broken, too"
    )
    parser.add_argument("--sabotage", metavar="NAME", help="break the product, see sabotage.py")
    parser.add_argument("--redis", help="URL of a Redis, which is emptied; default: starts one")
    parser.add_argument("--postgres", help="URL of a migrated database; default: starts a server")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    from tests.simulation import running

    if arguments.seed is None:
        arguments.seed = int.from_bytes(os.urandom(4)) % SEEDS
    if arguments.redis and arguments.postgres:
        running.simulate(arguments)
    elif not running.run_on_new_servers(arguments, sys.argv[1:]):
        sys.exit(1)


if __name__ == "__main__":
    main()

"""Runs simulations: `python -m tests.simulation --seed 42 --steps 5000`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory


def main() -> None:
    """Parse, make sure that nothing depends on hashing, run."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="default: chosen, and printed")
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--trace", action="store_true", help="show the trace of a clean run, too")
    parser.add_argument("--lines", type=int, default=80, help="of the trace, shown on failure")
    parser.add_argument(
        "--harsh", action="store_true", help="break things while others are broken, too"
    )
    parser.add_argument("--redis", help="URL of an empty Redis; default: starts one")
    parser.add_argument("--postgres", help="URL of a migrated database; default: starts one")
    parser.add_argument("--sabotage", metavar="NAME", help="break the product, see sabotage.py")
    arguments = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])
    from tests.simulation.running import run_with_servers

    seed = arguments.seed if arguments.seed is not None else int.from_bytes(os.urandom(4))
    with TemporaryDirectory(prefix="simulation-") as home:
        run_with_servers(Path(home), arguments, seed)


if __name__ == "__main__":
    main()

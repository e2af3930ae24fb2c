"""Runs every fault at full length, then kills each component at 200 seeded moments.

    make faults                                                      everything, about an hour
    make faults ARGS="--rows"                                        the table of faults only
    make faults ARGS="--kills 200 --component redis --seed 7"        one component only
    make faults ARGS="--kills 20 --together 1 --component gateway"   a judgement after every kill

Exit code 1 when a promise was broken. The seed of a run is in its first and its last line.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.killing import COMPONENTS, Killing  # noqa: E402 - found by the line above
from tests.faults.stage import running_stage  # noqa: E402

ROWS_AT_FULL_LENGTH = {"TOLLKEEPER_FAULTS": "full"}


def main() -> int:
    """The process's exit code."""
    logging.disable(logging.WARNING)  # connections that were lost, which is the point
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="of each component (200)")
    parser.add_argument("--component", choices=COMPONENTS, help="only this one, and no rows")
    parser.add_argument("--seed", type=int, help="repeats a run's calls, moments and victims")
    parser.add_argument("--together", type=int, default=4, help="kills between judgements (4)")
    parser.add_argument("--rows", action="store_true", help="only the table of faults")
    options = parser.parse_args()
    broken = 0
    if options.component is None:
        broken += _run_rows()
    if not options.rows:
        seed = secrets.randbelow(10**9) if options.seed is None else options.seed
        for component in [options.component] if options.component else COMPONENTS:
            broken += asyncio.run(_kill(component, options.kills, options.together, seed))
    return int(broken > 0)


def _run_rows() -> int:
    command = [sys.executable, "-m", "pytest", "tests/faults", "-v"]
    environment = {**os.environ, **ROWS_AT_FULL_LENGTH}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


async def _kill(component: str, kills: int, together: int, seed: int) -> int:
    _say(f"{component}: {kills} kills, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="tollkeeper-faults-") as name:
        async with running_stage(Path(name), wired=False) as stage:
            killing = Killing(stage, component, seed)
            try:
                report = await killing.run(kills, together=together, say=_say)
            except BaseException:
                _say(f"{killing.report}, unfinished")
                _say(stage.gateway.log.read_text()[-10_000:])
                raise
    _say(str(report))
    return len(report.violations)


def _say(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

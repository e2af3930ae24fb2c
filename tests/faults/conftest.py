"""One deployment for all faults of a run: every test leaves it serving, at rest and clean.

`make faults` runs the same tests at full length (`scaled`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest_asyncio

from tests.faults.stage import Stage, running_stage

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

FULL = os.environ.get("TOLLKEEPER_FAULTS") == "full"


def scaled(sample: int, full: int) -> int:
    """How often or how long: a sample in `make test`, all of it in `make faults`."""
    return full if FULL else sample


@pytest_asyncio.fixture(scope="session")
async def the_stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with running_stage(tmp_path_factory.mktemp("faults")) as stage:
        yield stage


@pytest_asyncio.fixture
async def stage(the_stage: Stage) -> Stage:
    """The deployment, whatever the test before left of it: with all workers, on open wires."""
    the_stage.wire.heal()
    the_stage.gate.open()
    await the_stage.gateway.all_ready()
    return the_stage

"""A sample of what `make faults` does two hundred times: kills at seeded moments under load."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from tests.faults.killing import COMPONENTS, Killing

if TYPE_CHECKING:
    from tests.faults.stage import Stage

KILLS = {"gateway": 1, "redis": 2, "postgres": 1}


@pytest.mark.parametrize("component", COMPONENTS)
async def test_kills_under_load_leave_every_call_charged_as_it_should_be(
    stage: Stage, component: str
) -> None:
    seed = secrets.randbelow(10**9)
    stage.forget()
    report = await Killing(stage, component, seed).run(KILLS[component], together=2)
    assert report.violations == [], str(report)
    assert report.well

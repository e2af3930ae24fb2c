"""`duration`: time in seconds that have begun, or milliseconds."""

from __future__ import annotations

import json

import pytest

from policies.catalog import MeterSpec, Price, Source
from policies.meters import MeterPlan, Tools, parse_source

TOOLS = Tools(json.loads)


def plan(*sources: str) -> MeterPlan:
    return MeterPlan(
        Price(meters=(MeterSpec("second", tuple(map(parse_source, sources)), 1, 1),)), ""
    )


@pytest.mark.parametrize(
    ("elapsed_ms", "seconds"),
    [(0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (86_400_000, 86_400), (-5, 0)],
)
def test_each_second_counts_that_has_begun(elapsed_ms: int, seconds: int) -> None:
    timed = plan("duration:s")
    assert timed.timed
    assert timed.read_whole(TOOLS, b"", (), None, elapsed_ms).units == (seconds,)
    meter = timed.open(TOOLS, (), None)
    assert meter.so_far(elapsed_ms).units == meter.reading(elapsed_ms).units == (seconds,)


@pytest.mark.parametrize(("elapsed_ms", "units"), [(0, 0), (1, 1), (1999, 1999), (-5, 0)])
def test_milliseconds_are_counted_as_they_are(elapsed_ms: int, units: int) -> None:
    assert plan("duration:ms").read_whole(TOOLS, b"", (), None, elapsed_ms).units == (units,)


def test_only_plans_that_ask_for_the_time_say_so() -> None:
    assert not plan("response.json:/n").timed
    assert plan("response.json:/n", "duration:ms").timed
    guess = MeterSpec("t", (), 1, 1, estimate_from=Source("duration", "s"), estimate_per_unit=2)
    guessed = MeterPlan(Price(meters=(guess,)), "")
    assert guessed.timed
    assert guessed.open(TOOLS, (), None).reading(3_000).estimates == (2,)

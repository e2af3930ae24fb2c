"""`request.bytes`: the length of the request, where it is known."""

from __future__ import annotations

import json

import pytest

from policies.catalog import MeterSpec, Price, Source
from policies.meters import MeterPlan, RequestFacts, Tools

SOURCE = Source("request.bytes", "")
PLAN = MeterPlan(Price(meters=(MeterSpec("byte", (SOURCE,), 1, 1),)), "text/plain")


def facts(body: bytes | None, size: int | None) -> RequestFacts:
    return RequestFacts(json.loads, "POST", "/v1", "/v1", "", body, size)


@pytest.mark.parametrize(
    ("body", "size", "units"),
    [(b"", 0, 0), (b"{}", 2, 2), (b"\xff" * 9, 9, 9), (None, 10**9, 10**9), (None, None, None)],
)
def test_the_length_is_read(body: bytes | None, size: int | None, units: int | None) -> None:
    request = facts(body, size)
    assert request.units(SOURCE) == units
    assert PLAN.read_whole(Tools(json.loads), b"", (), request, 0).units == (units,)


def test_without_a_request_it_is_missing() -> None:
    assert PLAN.read_whole(Tools(json.loads), b"", (), None, 0).units == (None,)


def test_a_length_that_is_known_only_at_the_end_of_the_upload_counts() -> None:
    request = facts(None, None)
    meter = PLAN.open(Tools(json.loads), (), request)
    assert meter.reading().units == (None,)
    request.body_bytes = 70_000
    assert meter.reading().units == (70_000,)

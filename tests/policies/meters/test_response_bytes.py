"""`response.bytes`: what passes is counted, whatever it is and however it is cut."""

from __future__ import annotations

import gzip
import json

import pytest

from policies.catalog import MeterSpec, Price
from policies.meters import MeterPlan, Tools, mistake_in_source, parse_source

TOOLS = Tools(json.loads)
TEXT = b'{"usage": {"tokens": "none"}}' * 9


def price(*sources: str) -> Price:
    return Price(meters=(MeterSpec("byte", tuple(map(parse_source, sources)), 1, 1),))


@pytest.mark.parametrize("sources", [["response.bytes"], ["response.json:/n", "response.bytes"]])
@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream", "image/png", ""])
@pytest.mark.parametrize(
    ("encoding", "body"), [("", TEXT), ("gzip", gzip.compress(TEXT)), ("br", TEXT), ("gzip", TEXT)]
)
def test_bytes_are_counted_as_they_pass(
    sources: list[str], content_type: str, encoding: str, body: bytes
) -> None:
    plan = MeterPlan(price(*sources), content_type, encoding)
    assert plan.read_whole(TOOLS, body, (), None, 0).units == (len(body),)
    for cut in range(len(body)):
        meter = plan.open(TOOLS, (), None)
        meter.feed(body[:cut])
        assert meter.so_far().units == meter.reading().units == (cut,)
        meter.feed(body[cut:])
        assert meter.reading().units == (len(body),)


def test_an_answer_without_a_body_has_none() -> None:
    assert MeterPlan(price("response.bytes"), "").open(TOOLS, (), None).reading().units == (0,)


def test_it_takes_no_argument() -> None:
    assert mistake_in_source(parse_source("response.bytes")) is None
    assert "takes no argument" in (mistake_in_source(parse_source("response.bytes:/n")) or "")

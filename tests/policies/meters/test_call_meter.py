"""The meters of one call: which sources read this answer, and which value counts."""

from __future__ import annotations

import json

import pytest

from policies.catalog import MeterSpec, Price
from policies.meters import MeterPlan, Tools, parse_source


def price(**meters: list[str]) -> Price:
    return Price(
        meters=tuple(
            MeterSpec(unit, tuple(map(parse_source, sources)), 1, 1)
            for unit, sources in meters.items()
        )
    )


TOOLS = Tools(json.loads)
CHAT = price(token=["response.json:/usage/total_tokens", "response.sse:/usage/total_tokens"])
ANSWER = json.dumps({"usage": {"total_tokens": 30, "images": 2}}).encode()
STREAM = b"data: " + ANSWER + b"\n\ndata: [DONE]\n\n"


def units(
    offer: Price, content_type: str, body: bytes, encoding: str = ""
) -> tuple[int | None, ...]:
    plan = MeterPlan(offer, content_type, encoding)
    meter = plan.open(TOOLS, (), None)
    for index in range(0, len(body), 7):
        meter.feed(body[index : index + 7])
    reading = meter.reading()
    assert reading == meter.reading() == plan.read_whole(TOOLS, body, (), None, 0)
    return reading.units


def test_a_price_without_meters_opens_none() -> None:
    plan = MeterPlan(Price(per_request_microcredits=1), "application/json")
    assert plan.open(TOOLS, (), None).reading().units == ()


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        ("application/json", ANSWER, 30),
        ("Application/JSON ; charset=utf-8", ANSWER, 30),
        ("text/event-stream; charset=utf-8", STREAM, 30),
        ("text/event-stream", ANSWER, None),
        ("application/json", STREAM, None),
        ("text/html", ANSWER, None),
        ("", ANSWER, None),
    ],
)
def test_the_content_type_chooses_the_source(
    content_type: str, body: bytes, expected: int | None
) -> None:
    assert units(CHAT, content_type, body) == (expected,)


def test_of_a_meters_sources_the_first_with_a_value_counts() -> None:
    offer = price(
        token=["response.json:/none", "response.json:/usage/total_tokens", "response.json:/x"],
        image=["response.sse:/usage/images", "response.json:/usage/images"],
        second=["response.json:/none"],
    )
    assert units(offer, "application/json", ANSWER) == (30, 2, None)
    assert units(offer, "text/event-stream", STREAM) == (None, 2, None)


def test_a_kind_of_a_newer_version_is_missing_and_does_not_fail_the_call() -> None:
    offer = price(token=["response.protobuf:9", "response.json:/usage/total_tokens"])
    assert units(offer, "application/json", ANSWER) == (30,)

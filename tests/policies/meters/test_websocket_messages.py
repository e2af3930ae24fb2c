"""`websocket.messages`: what the proxy says it has passed."""

from __future__ import annotations

import json

import pytest

from policies.catalog import MeterSpec, Price
from policies.meters import CallMeter, MeterPlan, Tools, parse_source

DIRECTIONS = ("websocket.messages:in", "websocket.messages:out", "websocket.messages")


def opened(*sources: str) -> CallMeter:
    meters = tuple(MeterSpec(source[-2:], (parse_source(source),), 1, 1) for source in sources)
    return MeterPlan(Price(meters=meters), "").open(Tools(json.loads), (), None)


def test_messages_are_counted_by_their_direction() -> None:
    meter = opened(*DIRECTIONS)
    meter.note_messages(0, 0)
    assert meter.reading().units == (0, 0, 0)
    meter.note_messages(1, 0)
    meter.note_messages(0, 2)
    meter.note_messages(1, 1)
    assert meter.so_far().units == meter.reading().units == (2, 3, 5)


@pytest.mark.parametrize("source", DIRECTIONS)
def test_an_answer_that_is_no_websocket_has_no_messages(source: str) -> None:
    assert opened(source).reading().units == (None,)


def test_messages_are_counted_beside_what_is_fed() -> None:
    meter = opened("websocket.messages", "response.bytes")
    meter.note_messages(1, 0)
    meter.feed(b"12345")
    assert meter.reading().units == (1, 5)

"""Refusals in JSON-RPC's style: what each id that waits is answered, and with which status."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway import errors
from gateway.errors import (
    NO_IDS,
    Refusal,
    RpcIds,
    http_status,
    refusal_of,
    render,
    render_event,
)
from policies.catalog import ErrorStyle
from policies.decision import InsufficientCredits, RateLimited
from policies.meters.jsonrpc import RpcId

TOOL = RpcIds((RpcId('"a"', tool=True),))
METHOD = RpcIds((RpcId("7", tool=False),))
BOTH = RpcIds((*TOOL.ids, *METHOD.ids), batch=True)
NO_CREDITS = refusal_of(
    InsufficientCredits(needed=2_000_000, available=500_000, held=0), "https://pay.example/up"
)
TOO_OFTEN = refusal_of(RateLimited(limit=5, retry_after_ms=2_100, source="account"), None)


def answered(refusal: Refusal, ids: RpcIds) -> tuple[int, Any]:
    kind, body = render(refusal, ErrorStyle.JSONRPC, "r1", ids)
    assert kind == b"application/json"
    return http_status(refusal, ErrorStyle.JSONRPC, ids), json.loads(body)


def test_a_refused_tool_is_a_tool_that_failed_and_says_what_is_needed() -> None:
    status, answer = answered(NO_CREDITS, TOOL)
    assert status == 200
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] == "a"
    result = answer["result"]
    assert result["isError"] is True
    text = result["content"][0]["text"]
    assert all(fact in text for fact in ("2 credits", "0.5", "https://pay.example/up"))
    assert result["_meta"]["tollkeeper/refusal"] == {
        "status": 402,
        "code": "insufficient_credits",
        "request_id": "r1",
        "needed": "2",
        "available": "0.5",
        "upgrade_url": "https://pay.example/up",
    }


def test_another_refused_method_is_an_error_with_the_facts() -> None:
    status, answer = answered(TOO_OFTEN, METHOD)
    assert status == 200
    assert answer["id"] == 7
    assert answer["error"]["code"] == 429
    assert answer["error"]["message"] == TOO_OFTEN.detail
    assert answer["error"]["data"] == {
        "status": 429,
        "code": "rate_limited",
        "request_id": "r1",
        "retry_after_s": 3,
        "limit": 5,
        "limit_source": "account",
    }


def test_a_refused_batch_is_answered_with_a_batch() -> None:
    _, answers = answered(NO_CREDITS, BOTH)
    assert [("result" in each, each["id"]) for each in answers] == [(True, "a"), (False, 7)]
    _, answers = answered(NO_CREDITS, TOOL._replace(batch=True))
    assert [each["id"] for each in answers] == ["a"]


@pytest.mark.parametrize("ids", [TOOL, METHOD, BOTH])
def test_a_body_that_cannot_be_trusted_answers_nobody(ids: RpcIds) -> None:
    status, answer = answered(errors.bad_request("The body has two methods."), ids)
    assert status == 400
    assert answer["id"] is None
    assert answer["error"]["code"] == -32600


def test_a_key_that_is_not_valid_keeps_its_status() -> None:
    status, answer = answered(errors.UNAUTHENTICATED, TOOL)
    assert status == 401
    assert answer["id"] == "a"
    assert answer["error"]["code"] == 401


def test_without_ids_a_refusal_is_a_problem_with_its_status() -> None:
    kind, body = render(NO_CREDITS, ErrorStyle.JSONRPC, "r1")
    assert kind == b"application/problem+json"
    assert json.loads(body)["status"] == 402
    assert http_status(NO_CREDITS, ErrorStyle.JSONRPC, NO_IDS) == 402


@pytest.mark.parametrize("style", [ErrorStyle.PROBLEM, ErrorStyle.OPENAI, ErrorStyle.ANTHROPIC])
def test_ids_mean_nothing_in_other_styles(style: ErrorStyle) -> None:
    assert render(NO_CREDITS, style, "r1", TOOL) == render(NO_CREDITS, style, "r1")
    assert http_status(NO_CREDITS, style, TOOL) == 402


def test_a_stream_that_ends_early_answers_every_id_in_an_event() -> None:
    stream = render_event(NO_CREDITS, ErrorStyle.JSONRPC, "r1", b"text/event-stream", BOTH)
    events = [event.split(b"\n") for event in stream.split(b"\n\n")[:-1]]
    assert [event[0] for event in events] == [b"event: message"] * 2
    assert [json.loads(event[1].removeprefix(b"data: "))["id"] for event in events] == ["a", 7]

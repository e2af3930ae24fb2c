"""A refusal in each style: what the route's clients expect, and every fact in each of them."""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest
from anthropic._error_classes import ERROR_CLASSES
from anthropic.types.shared.error_type import ErrorType

from gateway import errors
from gateway.errors import Refusal, header_lines, refusal_of, render, render_event
from policies.catalog import ErrorStyle
from policies.decision import InsufficientCredits

FACTS = {"needed": "1.1", "available": "0.2", "upgrade_url": "https://a.example/up"}
BROKE = Refusal(402, "insufficient_credits", "This call may cost 1.1 credits.", FACTS)
SSE = b"text/event-stream; charset=utf-8"


def body(refusal: Refusal, style: ErrorStyle) -> dict[str, Any]:
    found = json.loads(render(refusal, style, "r1")[1])
    assert isinstance(found, dict)
    return found


def test_anthropic_style_is_that_apis_error_with_the_facts_in_its_details() -> None:
    assert render(BROKE, ErrorStyle.ANTHROPIC, "r1")[0] == b"application/json"
    assert body(BROKE, ErrorStyle.ANTHROPIC) == {
        "type": "error",
        "error": {
            "type": "billing_error",
            "message": BROKE.detail,
            "details": {"error_code": "insufficient_credits", **FACTS},
        },
        "request_id": "r1",
    }


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (409, "conflict_error"),
        (422, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
    ],
)
def test_anthropic_style_names_each_status_as_that_api_does(status: int, kind: str) -> None:
    refusal = Refusal(status, "some_code", "No.")
    assert body(refusal, ErrorStyle.ANTHROPIC)["error"]["type"] == kind
    assert kind in get_args(ErrorType)


def test_no_code_of_ours_means_something_else_to_anthropics_sdk() -> None:
    ours = {
        *("bad_request", "unauthenticated", "insufficient_credits", "spend_cap_reached"),
        *("forbidden", "no_route", "idempotency_in_progress", "idempotency_mismatch"),
        *("request_too_large", "rate_limited", "quota_exceeded", "concurrency_limited"),
        *("upstream_error", "upstream_timeout", "temporarily_unavailable", "internal_error"),
    }
    assert {code for _, code in ERROR_CLASSES} & ours == set()


def test_openai_style_is_one_error_object_with_the_facts_in_it() -> None:
    assert render(BROKE, ErrorStyle.OPENAI, "r1")[0] == b"application/json"
    assert body(BROKE, ErrorStyle.OPENAI) == {
        "error": {
            "message": BROKE.detail,
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_credits",
            "request_id": "r1",
            **FACTS,
        }
    }


def test_a_problem_is_a_problem() -> None:
    assert render(BROKE, ErrorStyle.PROBLEM, "r1")[0] == b"application/problem+json"
    assert body(BROKE, ErrorStyle.PROBLEM) == {
        "type": "urn:tollkeeper:problem:insufficient_credits",
        "title": "Payment Required",
        "status": 402,
        "detail": BROKE.detail,
        "code": "insufficient_credits",
        "request_id": "r1",
        **FACTS,
    }


@pytest.mark.parametrize(
    ("style", "event"),
    [(ErrorStyle.OPENAI, None), (ErrorStyle.ANTHROPIC, "error"), (ErrorStyle.PROBLEM, "error")],
)
def test_a_streams_last_event_is_one_whole_event_with_the_same_error(
    style: ErrorStyle, event: str | None
) -> None:
    two_lines = BROKE._replace(detail="One.\nTwo.")
    text = render_event(two_lines, style, "r1", SSE).decode()
    assert text.endswith("\n\n")
    assert text.count("\n\n") == 1
    fields = dict(line.split(": ", 1) for line in text.splitlines() if line)
    assert fields.get("event") == event
    assert json.loads(fields["data"]) == body(two_lines, style)


@pytest.mark.parametrize(
    "media_type", [b"application/x-ndjson", b"Application/NDJSON ; charset=utf-8"]
)
def test_a_stream_of_json_lines_ends_with_a_line(media_type: bytes) -> None:
    line = render_event(BROKE, ErrorStyle.OPENAI, "r1", media_type)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert json.loads(line) == body(BROKE, ErrorStyle.OPENAI)


@pytest.mark.parametrize("media_type", [b"", b"application/json", b"audio/mpeg", b"text/plain"])
def test_nothing_is_added_to_other_streams(media_type: bytes) -> None:
    assert render_event(BROKE, ErrorStyle.PROBLEM, "r1", media_type) == b""


def test_only_a_wait_too_long_to_sleep_through_is_not_to_be_retried() -> None:
    def lines(style: ErrorStyle, wait_s: int | None) -> bytes:
        return header_lines(Refusal(429, "c", "No.", {}, wait_s), style, "r1")

    most = errors.SDK_RETRY_WAIT_S_MAX
    for wait_s in (None, 1, most):
        assert lines(ErrorStyle.OPENAI, wait_s) == b""
        assert lines(ErrorStyle.ANTHROPIC, wait_s) == b"Request-Id: r1\r\n"
    for style in (ErrorStyle.OPENAI, ErrorStyle.ANTHROPIC):
        assert b"X-Should-Retry: false\r\n" in lines(style, most + 1)
    assert lines(ErrorStyle.PROBLEM, most + 1) == b""


def test_the_way_to_more_credits_is_in_the_sentence_that_people_see() -> None:
    refusal = refusal_of(InsufficientCredits(2, 1, 0), "https://a.example/up")
    assert refusal.detail.endswith("Get more at https://a.example/up")
    assert refusal.facts["upgrade_url"] == "https://a.example/up"
    assert "Get more" not in refusal_of(InsufficientCredits(2, 1, 0), None).detail


def test_who_only_has_to_wait_is_told_to_wait() -> None:
    refusal = refusal_of(InsufficientCredits(2, 1, 5), "https://a.example/up")
    assert refusal.detail.endswith("try again when they have ended.")
    assert refusal.retry_after_s == errors.IN_FLIGHT_RETRY_AFTER_S

"""The one place where a denial or a failure becomes an HTTP answer.

Inside the gateway an expected "no" is a `Refusal` value. Its `detail` is public text: it never
names another account, an upstream's address, or a secret. What operators need beyond it goes to
the log under the request id.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from policies.catalog import ErrorStyle
from policies.decision import (
    AccountSuspended,
    ConcurrencyLimited,
    InsufficientCredits,
    KeyRefused,
    QuotaExceeded,
    RateLimited,
    SpendCapReached,
)
from policies.meters.jsonrpc import RpcId
from policies.units import format_credits

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBLEM_TYPE_BASE = "urn:tollkeeper:problem:"
IN_FLIGHT_RETRY_AFTER_S = 1
UNAVAILABLE_RETRY_AFTER_S = 1
# The longest wait that an SDK is left to sit out. OpenAI's gives up beyond two minutes by itself;
# Anthropic's would sleep until next month's quota.
SDK_RETRY_WAIT_S_MAX = 120

_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    429: "Too Many Requests",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
# Whose limit or cap it is, and what time it is for, as sentences have them.
_OWNERS = {
    "account": "this account",
    "key": "this API key",
    "route": "this account on this route",
    "session": "this session",
}
_WINDOWS = {"day": "a day", "month": "a month", "total": "in all", "session": "in one session"}
# Statuses that are not here are "api_error".
_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_EVENT_STREAM = b"text/event-stream"
_LINES_OF_JSON = frozenset(
    {
        b"application/x-ndjson",
        b"application/ndjson",
        b"application/jsonl",
        b"application/x-jsonlines",
        b"application/jsonlines",
    }
)
# JSON-RPC's own codes; other refusals have their HTTP status, outside of what is reserved.
_RPC_CODES = {400: -32600, 500: -32603}
# In the result of a refused tool call: what a program needs of the refusal.
REFUSAL_META = "tollkeeper/refusal"


class RpcIds(NamedTuple):
    """Which answers a JSON-RPC request asks for: to these ids, in an array if it was a batch."""

    ids: tuple[RpcId, ...] = ()
    batch: bool = False


NO_IDS = RpcIds()
NOBODY = RpcIds((RpcId("null", tool=False),))  # the ids of a request that was not read


class Refusal(NamedTuple):
    """A public "no": status, the contract's code, a sentence, and the facts a program needs."""

    status: int
    code: str
    detail: str
    facts: Mapping[str, Any] = {}
    retry_after_s: int | None = None
    close: bool = False


def bad_request(detail: str, *, status: int = 400) -> Refusal:
    """The request can't be forwarded safely.

    The connection is closed, because its framing can't be trusted.
    """
    return Refusal(status, "bad_request", detail, close=True)


UNAUTHENTICATED = Refusal(
    401,
    "unauthenticated",
    "Send a valid API key as 'Authorization: Bearer tk_...' or 'X-API-Key: tk_...'.",
)
NO_ROUTE = Refusal(404, "no_route", "No agent is offered at this method and path.")
UPSTREAM_UNREACHABLE = Refusal(502, "upstream_error", "The agent could not be reached.")
UPSTREAM_BROKEN = Refusal(502, "upstream_error", "The agent did not give a valid answer.")
UPSTREAM_TIMEOUT = Refusal(504, "upstream_timeout", "The agent did not answer in time.")
BODY_TIMEOUT = Refusal(408, "bad_request", "The request's body did not arrive in time.", close=True)
INTERNAL = Refusal(500, "internal_error", "The gateway failed; the request id names its log.")


def unavailable(detail: str) -> Refusal:
    """Redis gone, shard rebuilding, shutting down: always with Retry-After."""
    return Refusal(503, "temporarily_unavailable", detail, retry_after_s=UNAVAILABLE_RETRY_AFTER_S)


NOT_RESERVED = unavailable("Credits can't be reserved at the moment.")


def too_large(limit_bytes: int) -> Refusal:
    """The request's body is over the route's limit, in bytes."""
    return Refusal(
        413,
        "request_too_large",
        f"The body is larger than this route's limit of {limit_bytes} bytes.",
        {"limit_bytes": limit_bytes},
        close=True,
    )


def too_large_for_key(limit_bytes: int) -> Refusal:
    """The request has an idempotency key, so its body has to be read whole, which is bounded."""
    return Refusal(
        413,
        "request_too_large",
        f"With an Idempotency-Key a body can have at most {limit_bytes} bytes.",
        {"limit_bytes": limit_bytes},
        close=True,
    )


def above_bound(needed: int, bound: int) -> Refusal:
    """The call costs more than its caller's own X-Max-Credits, both in microcredits."""
    facts = {
        "limit_source": "caller",
        "needed": format_credits(needed),
        "limit": format_credits(bound),
    }
    detail = (
        f"This call costs {facts['needed']} credits, more than the {facts['limit']} that "
        "X-Max-Credits allows."
    )
    return Refusal(402, "spend_cap_reached", detail, facts)


def not_listed(value: str | None) -> Refusal:
    """The route's price has no case for what this request asks for."""
    what = "What this request asks for" if value is None else f'"{value[:64]}"'
    return Refusal(400, "bad_request", f"{what} is not offered here.")


def unclear(why: str) -> Refusal:
    """The request may ask the agent for something else than what would be paid for."""
    return Refusal(400, "bad_request", f"The request {why}: its price depends on that.")


def refusal_of(decision: object, upgrade_url: str | None) -> Refusal:  # noqa: PLR0911 - one per denial
    """The public form of a denial by the admit script.

    Raises: TypeError for a decision that is no denial.
    """
    match decision:
        case KeyRefused():
            return UNAUTHENTICATED
        case AccountSuspended():
            return Refusal(403, "forbidden", "This account is suspended; ask its owner.")
        case RateLimited(limit=limit, retry_after_ms=wait_ms, source=source):
            detail = f"Too many requests for now: the rate limit of {_OWNERS[source]} is {limit}."
            return _limited("rate_limited", detail, limit, source, wait_ms)
        case QuotaExceeded(limit=limit, retry_after_ms=wait_ms, source=source):
            detail = f"The {limit} requests of {_OWNERS[source]} for this period are used."
            return _limited("quota_exceeded", detail, limit, source, wait_ms)
        case ConcurrencyLimited(limit=limit, source=source):
            detail = f"{limit} calls are running already, the most for {_OWNERS[source]} at once."
            wait_ms = IN_FLIGHT_RETRY_AFTER_S * 1000
            return _limited("concurrency_limited", detail, limit, source, wait_ms)
        case SpendCapReached():
            return _capped(decision)
        case InsufficientCredits():
            return _insufficient(decision, upgrade_url)
        case _:
            raise TypeError(f"{decision!r} is no denial")


def render(
    refusal: Refusal, style: ErrorStyle, request_id: str, rpc_ids: RpcIds = NO_IDS
) -> tuple[bytes, bytes]:
    """Content type and body of a refusal.

    `application/problem+json` (RFC 9457), or the route's style. Where that is JSON-RPC's, `rpc_ids`
    are what the request asks answers for; without any it is a problem as elsewhere.
    """
    if rpc_ids.ids and style is ErrorStyle.JSONRPC:
        answers = _rpc_answers(refusal, request_id, rpc_ids)
        whole = answers if rpc_ids.batch and not refusal.close else answers[0]
        return b"application/json", orjson.dumps(whole)
    if style is ErrorStyle.OPENAI:
        return b"application/json", orjson.dumps(_openai(refusal, request_id))
    if style is ErrorStyle.ANTHROPIC:
        return b"application/json", orjson.dumps(_anthropic(refusal, request_id))
    return b"application/problem+json", orjson.dumps(_problem(refusal, request_id))


def http_status(refusal: Refusal, style: ErrorStyle, rpc_ids: RpcIds = NO_IDS) -> int:
    """The status that a refusal is answered with.

    JSON-RPC's clients look for an answer to their id and show little of another status than 200;
    what is about no one call (a key that is not valid, a body that can't be trusted) keeps its own.
    """
    if style is not ErrorStyle.JSONRPC or not rpc_ids.ids or rpc_ids is NOBODY:
        return refusal.status
    return 200 if _of_one_call(refusal) else refusal.status


def header_lines(refusal: Refusal, style: ErrorStyle, request_id: str) -> bytes:
    """Header lines that a style's SDKs look for, beside those that every refusal has.

    They retry a 429 after its `Retry-After`, and a 402 never, unasked; what they need to be told
    is that a wait of days is not worth sleeping through.
    """
    lines = b""
    if style is ErrorStyle.ANTHROPIC:
        lines = b"Request-Id: %b\r\n" % request_id.encode("ascii")
    elif style is not ErrorStyle.OPENAI:
        return b""
    if (refusal.retry_after_s or 0) > SDK_RETRY_WAIT_S_MAX:
        lines += b"X-Should-Retry: false\r\n"
    return lines


def render_event(
    refusal: Refusal,
    style: ErrorStyle,
    request_id: str,
    media_type: bytes,
    rpc_ids: RpcIds = NO_IDS,
) -> bytes:
    """The last event of a stream that the gateway ends, as this style's clients understand it.

    `media_type` is the stream's, with or without parameters: an event of an SSE stream, a line of
    an NDJSON one, nothing (b"") of any other. It may follow whole events only: one that was left
    unfinished would take it in.
    """
    kind = media_type.partition(b";")[0].strip().lower()
    if kind in _LINES_OF_JSON:
        return render(refusal, style, request_id)[1] + b"\n"
    if kind != _EVENT_STREAM:
        return b""
    if rpc_ids.ids and style is ErrorStyle.JSONRPC:
        return b"".join(
            b"event: message\ndata: %b\n\n" % orjson.dumps(answer)
            for answer in _rpc_answers(refusal, request_id, rpc_ids)
        )
    body = render(refusal, style, request_id)[1]
    if style is ErrorStyle.OPENAI:
        # Without a "[DONE]" behind it, which would say that the answer is complete.
        return b"data: %b\n\n" % body
    return b"event: error\ndata: %b\n\n" % body


def _problem(refusal: Refusal, request_id: str) -> dict[str, Any]:
    return {
        "type": PROBLEM_TYPE_BASE + refusal.code,
        "title": reason(refusal.status),
        "status": refusal.status,
        "detail": refusal.detail,
        "code": refusal.code,
        "request_id": request_id,
        **refusal.facts,
    }


def _openai(refusal: Refusal, request_id: str) -> dict[str, Any]:
    error = {
        "message": refusal.detail,
        "type": _OPENAI_TYPES.get(refusal.status, "api_error"),
        "param": None,
        "code": refusal.code,
        "request_id": request_id,
        **refusal.facts,
    }
    return {"error": error}


def _anthropic(refusal: Refusal, request_id: str) -> dict[str, Any]:
    """The facts are in `details`, whose `error_code` is where that SDK looks for a code."""
    error = {
        "type": _ANTHROPIC_TYPES.get(refusal.status, "api_error"),
        "message": refusal.detail,
        "details": {"error_code": refusal.code, **refusal.facts},
    }
    return {"type": "error", "error": error, "request_id": request_id}


def _rpc_answers(refusal: Refusal, request_id: str, asked: RpcIds) -> list[dict[str, Any]]:
    """What each id is answered; nobody (null) where the request can't be trusted."""
    if refusal.close:
        return [{"jsonrpc": "2.0", "id": None, **_rpc_error(refusal, request_id)}]
    return [_rpc_answer(refusal, request_id, rpc_id) for rpc_id in asked.ids]


def _rpc_answer(refusal: Refusal, request_id: str, rpc_id: RpcId) -> dict[str, Any]:
    """A refused tool call is a tool that failed: that is what MCP clients show their users."""
    answer = {"jsonrpc": "2.0", "id": orjson.Fragment(rpc_id.text)}
    if not rpc_id.tool or not _of_one_call(refusal):
        return {**answer, **_rpc_error(refusal, request_id)}
    result = {
        "content": [{"type": "text", "text": refusal.detail}],
        "isError": True,
        "resultType": "complete",
        "_meta": {REFUSAL_META: _rpc_data(refusal, request_id)},
    }
    return {**answer, "result": result}


def _rpc_error(refusal: Refusal, request_id: str) -> dict[str, Any]:
    return {
        "error": {
            "code": _RPC_CODES.get(refusal.status, refusal.status),
            "message": refusal.detail,
            "data": _rpc_data(refusal, request_id),
        }
    }


def _rpc_data(refusal: Refusal, request_id: str) -> dict[str, Any]:
    data = {"status": refusal.status, "code": refusal.code, "request_id": request_id}
    if refusal.retry_after_s is not None:
        data["retry_after_s"] = refusal.retry_after_s
    return {**data, **refusal.facts}


def _of_one_call(refusal: Refusal) -> bool:
    return not refusal.close and refusal.status != 401


def reason(status: int) -> str:
    """The reason phrase of a status that the gateway itself answers with."""
    return _REASONS[status]


def _limited(code: str, detail: str, limit: int, source: str, wait_ms: int) -> Refusal:
    facts = {"limit": limit, "limit_source": source}
    return Refusal(429, code, detail, facts, retry_after_s=_seconds(wait_ms))


def _capped(denial: SpendCapReached) -> Refusal:
    limit, spent = format_credits(denial.limit), format_credits(denial.spent)
    facts = {
        "limit_source": denial.source,
        "window": denial.window,
        "limit": limit,
        "spent": spent,
    }
    detail = (
        f"This call could go over the {limit} credits that {_OWNERS[denial.source]} may spend "
        f"{_WINDOWS[denial.window]}: {spent} are spent, or held by running calls."
    )
    wait_s = _seconds(denial.retry_after_ms) if denial.retry_after_ms else None
    return Refusal(402, "spend_cap_reached", detail, facts, retry_after_s=wait_s)


def _seconds(wait_ms: int) -> int:
    return max(1, -(-wait_ms // 1000))


def _insufficient(denial: InsufficientCredits, upgrade_url: str | None) -> Refusal:
    needed, available = format_credits(denial.needed), format_credits(denial.available)
    facts: dict[str, Any] = {"needed": needed, "available": available}
    detail = f"This call may cost {needed} credits; {available} are available."
    if upgrade_url:
        facts["upgrade_url"] = upgrade_url
    if not denial.in_flight:
        if upgrade_url:
            # In the sentence too: it is all that most clients show.
            detail += f" Get more at {upgrade_url}"
        return Refusal(402, "insufficient_credits", detail, facts)
    facts["in_flight"] = format_credits(denial.held)
    detail += " Running calls hold the rest: try again when they have ended."
    return Refusal(402, "insufficient_credits", detail, facts, IN_FLIGHT_RETRY_AFTER_S)

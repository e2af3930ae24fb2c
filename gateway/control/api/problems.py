"""What the API answers when it can't do as asked (RFC 9457), and what becomes of exceptions.

A `Problem` is raised by whoever notices; this file alone knows which failure is which status.
"""

from __future__ import annotations

import math
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.counters.errors import CountersUnavailable
from gateway.identity.seal import CannotOpenError, NotConfiguredError
from gateway.ledger.errors import LedgerRejected, LedgerUnavailable
from gateway.operations.errors import (
    ConflictError,
    DocumentError,
    NotToldError,
    OperationError,
    UnknownError,
    UsageError,
)
from gateway.operations.spread import NotEffectiveError
from gateway.operations.withdraw import NotTakenError
from gateway.stripe_sync.errors import (
    KeysMissingError,
    NeedsMendingError,
    NotSetUpError,
    StripeKeyError,
    StripeRefusedError,
    StripeUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

PROBLEM_TYPE_BASE = "urn:tollkeeper:problem:"
CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_S = 1
ERRORS_MAX = 100


class FieldError(NamedTuple):
    """What is wrong with one field, named as in `price.meters[0].unit`; "" is the whole."""

    field: str
    message: str


class Problem(Exception):  # noqa: N818 - RFC 9457 calls it so
    """An answer that says what is wrong and what to do."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def response(self, request_id: str) -> web.Response:
        """As it is sent."""
        body: dict[str, Any] = {
            "type": PROBLEM_TYPE_BASE + self.code,
            "title": self.code.replace("_", " ").capitalize(),
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        if self.errors:
            body["errors"] = [error._asdict() for error in self.errors]
        return web.Response(
            body=orjson.dumps(body),
            status=self.status,
            content_type=CONTENT_TYPE,
            headers=self.headers,
        )


def invalid(*errors: FieldError) -> Problem:
    """Fields are wrong: all of them, each with its name."""
    named = ", ".join(dict.fromkeys(error.field or "the body" for error in errors))
    detail = f"These are wrong: {named}. 'errors' says what about each."
    return Problem(422, "invalid", detail, errors=errors[:ERRORS_MAX])


def invalid_field(field: str, message: str) -> Problem:
    """One field is wrong."""
    return invalid(FieldError(field, message))


def not_found(what: str = "resource") -> Problem:
    """Also of what belongs to somebody else."""
    return Problem(404, "not_found", f"There is no such {what} here.")


def conflict(code: str, detail: str) -> Problem:
    """What is asked can't be as things are."""
    return Problem(409, code, detail)


def forbidden(detail: str = "Your role may not do this.") -> Problem:
    """Known, but not allowed."""
    return Problem(403, "forbidden", detail)


def unauthenticated() -> Problem:
    """One body for no credential and for wrong, revoked or expired ones."""
    return Problem(
        401,
        "unauthenticated",
        "Send a valid token or API key as 'Authorization: Bearer ...'.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def too_many(retry_after_ms: int, detail: str) -> Problem:
    """Asked too often; never for credits."""
    wait_s = max(math.ceil(retry_after_ms / 1000), 1)
    return Problem(429, "rate_limited", detail, headers={"Retry-After": str(wait_s)})


def unavailable(detail: str, retry_after_s: int = RETRY_AFTER_S) -> Problem:
    """Nothing is wrong with the request; ask again."""
    headers = {"Retry-After": str(retry_after_s)}
    return Problem(503, "temporarily_unavailable", detail, headers=headers)


def problem_of(failure: BaseException) -> Problem | None:
    """What an exception is to whoever asked; None: a mistake of ours."""
    if isinstance(failure, Problem):
        return failure
    if isinstance(failure, ValidationError):
        return of_validation(failure)
    if isinstance(failure, OperationError):
        return _of_operation(failure)
    if isinstance(failure, LedgerUnavailable):
        return unavailable("The database does not answer at the moment.")
    if isinstance(failure, CountersUnavailable):
        return unavailable("Redis does not answer at the moment.")
    return _of_stripe(failure) or _of_values(failure)


def _of_operation(failure: OperationError) -> Problem:
    """Its text is written for people and holds no secret."""
    text = str(failure)
    match failure:
        case DocumentError(problems=problems):
            return invalid(*(FieldError(*problem) for problem in problems))
        case UnknownError(kind=kind):
            return not_found(kind)
        case UsageError():
            return Problem(422, "invalid", text, errors=[FieldError("", text)])
        case NotToldError() | NotEffectiveError():
            headers = {"Retry-After": str(RETRY_AFTER_S)}
            return Problem(503, "not_effective_yet", text, headers=headers)
        case NotTakenError():
            return unavailable(text)
        case _:
            code = failure.code if isinstance(failure, ConflictError) else "conflict"
            return conflict(code, text)


def _of_stripe(failure: BaseException) -> Problem | None:
    """Stripe's own words are for people, and hold at most the ends of a key."""
    match failure:
        case NotSetUpError():
            return conflict("stripe_not_set_up", f"{failure}.")
        case KeysMissingError(told=told):
            return conflict("stripe_not_set_up", f"{told}.")
        case NeedsMendingError():
            return conflict("stripe_needs_mending", f"{failure}.")
        case StripeRefusedError() | StripeKeyError():
            return conflict("stripe_refused", f"Stripe refuses this: {failure}")
        case StripeUnavailableError():
            return unavailable("Stripe does not answer at the moment.")
    return None


def _of_values(failure: BaseException) -> Problem | None:
    if isinstance(failure, NotConfiguredError):
        return conflict("not_configured", f"{failure}.")
    if isinstance(failure, CannotOpenError):
        return unavailable("The master key is not the one that sealed this: ask the operator.")
    if isinstance(failure, LedgerRejected):
        return Problem(422, "invalid", "A value is out of range.")
    if isinstance(failure, web.HTTPRequestEntityTooLarge):
        return Problem(413, "request_too_large", "The body is too large.")
    return None


def of_validation(failure: ValidationError, kind: type[BaseModel] | None = None) -> Problem:
    """Every mistake that pydantic found; in a document of this kind, if one is named."""
    found = failure.errors(include_url=False, include_context=False, include_input=False)
    if any(error["type"] == "json_invalid" for error in found):
        return Problem(400, "bad_request", "The body is not valid JSON.")
    return invalid(*field_errors(failure, kind))


def field_errors(failure: ValidationError, kind: type[BaseModel] | None = None) -> list[FieldError]:
    """The same by their fields."""
    found = failure.errors(include_url=False, include_context=False, include_input=False)
    return [FieldError(field_name(error["loc"]), _message(error, kind)) for error in found]


def field_name(path: Iterable[int | str]) -> str:
    """A place in a document as `price.meters[0].unit`."""
    name = ""
    for part in path:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def _message(error: Mapping[str, Any], kind: type[BaseModel] | None) -> str:
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    if kind is None or len(error["loc"]) > 1:
        return "Unknown field."
    names = [field.alias or name for name, field in kind.model_fields.items()]
    if near := get_close_matches(str(error["loc"][0]), names, n=1):
        return f'Unknown field: did you mean "{near[0]}"?'
    return f"Unknown field: there are {', '.join(names)}."

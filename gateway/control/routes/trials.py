"""Dry runs of routes, as the API writes and reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import orjson
from pydantic import Field, StringConstraints

from gateway.control.api.fields import Credits, Model
from gateway.control.api.problems import invalid_field
from gateway.control.api.written import PercentText
from gateway.control.routes.models import NewRoute, Seconds
from gateway.control.routes.prices import Units
from gateway.operations.dry_run import Priced, SampleAnswer, SampleCall
from policies.catalog import Ending
from policies.units import parse_percent

EndingName = Literal[
    "completed",
    "client_error",
    "upstream_error",
    "upstream_timeout",
    "client_disconnect",
    "exhausted",
    "unknown",
]
Line = Annotated[str, StringConstraints(pattern=r"^[ -~]*$", max_length=8_190)]
Method = Annotated[str, StringConstraints(pattern=r"^[A-Z]{1,20}$")]
_JSON_OR_TEXT = "JSON; or a text, which is taken as it is."


class AgentAnswer(Model):
    """What an agent might answer."""

    status: Annotated[int, Field(ge=200, le=599)] = 200
    content_type: Line = "application/json"
    headers: dict[str, Line] = Field(default={})
    body: Any = Field(default=None, description=_JSON_OR_TEXT)
    seconds: Seconds | None = Field(default=None, description="How long the call took.")


class Sample(Model):
    """A call to try the price on."""

    method: Method = "POST"
    path: Annotated[str, StringConstraints(min_length=1, max_length=8_190)]
    query: Line | None = None
    body: Any = Field(default=None, description=_JSON_OR_TEXT)
    max_credits: Credits | None = Field(
        default=None, description="The most that the caller would pay: X-Max-Credits."
    )
    discount_percent: PercentText | None = Field(default=None, description="The account's.")
    answer: AgentAnswer | None = None
    units: dict[str, Units] | None = Field(
        default=None, description="In place of what would be read of an answer."
    )
    used: dict[str, Units] | None = Field(
        default=None,
        description="What the account has used of tiered units before, in its billing period.",
    )
    ending: EndingName | None = Field(
        default=None, description="How the call ends; null: as its answer's status says."
    )


class StoredTrial(Model):
    """What to try of a route that there is."""

    sample: Sample | None = None
    reach: bool = Field(default=False, description="Connect to the upstream, too.")


class Trial(StoredTrial):
    """A route to be tried before it is made."""

    route: NewRoute


class Reach(Model):
    """What came of a connection to the upstream. No agent runs by it."""

    ok: bool
    ms: int
    tls: str | None = Field(description="The version of TLS; null: without.")
    problem: str | None


class Refusal(Model):
    """Why the call, or its answer, would be refused."""

    status: int
    code: str
    detail: str


class TrialCall(Model):
    """A JSON-RPC call of the request that has a price of its own."""

    name: str
    credits: Credits


class Charge(Model):
    """What the sample would cost. Null: it would be refused, or its end is not said."""

    refused: Refusal | None
    free: bool
    case: str | None = Field(description="The value of the price's table that this call has.")
    floor_credits: Credits | None = Field(description="Without any metered work.")
    held_credits: Credits | None = Field(description="Held before the call.")
    charged_credits: Credits | None = Field(description="Charged at its end.")
    ending: EndingName | None
    units: dict[str, int | None] = Field(description="Read of the answer; null: nothing was found.")
    calls: list[TrialCall]
    flags: list[str] = Field(description="Words about the charge, as settlements have them.")


class TrialResult(Model):
    """What came of it; the route has no mistakes."""

    charge: Charge | None = Field(description="Null without a sample.")
    reach: Reach | None = Field(description="Null unless it was asked for.")


def sample_call(sample: Sample) -> SampleCall:
    """The sample as it is priced. Raises: Problem for a body that can't be sent."""
    answer = sample.answer
    discount, ending = sample.discount_percent, sample.ending
    try:
        discount_basis_points = 0 if discount is None else parse_percent(discount)
    except ValueError as error:
        raise invalid_field("sample.discount_percent", str(error)) from None
    return SampleCall(
        method=sample.method,
        target=sample.path if sample.query is None else f"{sample.path}?{sample.query}",
        body=_sent(sample.body, "sample.body"),
        answer=None if answer is None else _sample_answer(answer),
        ending=None if ending is None else Ending(ending),
        units=sample.units,
        used=sample.used or {},
        discount_basis_points=discount_basis_points,
        most_microcredits=sample.max_credits,
    )


def charge_document(priced: Priced) -> Charge:
    """The answer's document."""
    refused, ending = priced.refused, priced.ending
    return Charge(
        refused=None if refused is None else Refusal(**refused._asdict()),
        free=priced.free,
        case=priced.case,
        floor_credits=priced.floor,
        held_credits=priced.held,
        charged_credits=priced.charged,
        ending=None if ending is None else ending.value,
        units=dict(priced.units),
        calls=[TrialCall(name=call.name, credits=call.microcredits) for call in priced.calls],
        flags=list(priced.flags),
    )


def _sample_answer(answer: AgentAnswer) -> SampleAnswer:
    return SampleAnswer(
        status=answer.status,
        content_type=answer.content_type,
        headers=answer.headers,
        body=_sent(answer.body, "sample.answer.body"),
        elapsed_ms=round((answer.seconds or 0) * 1000),
    )


def _sent(body: Any, field: str) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:
        message = "This can't be written as JSON here: give it as a text."
        raise invalid_field(field, message) from None

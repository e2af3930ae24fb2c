"""Values as the API writes them: amounts as decimal strings, times in RFC 3339, ids, cursors.

Inside the gateway an amount is an integer of microcredits and a time one of milliseconds; models
are made from these, and read and write the texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, core_schema

from policies.units import AMOUNT_MICROCREDITS_MAX, format_credits, parse_credits

ItemT = TypeVar("ItemT")

PAGE_ROWS_MAX = 200
PAGE_ROWS = 50
CURSOR_CHARACTERS_MAX = 512
_MOMENT_MS_MAX = 253_402_300_799_000  # the end of the year 9999
ID_MAX = 2**53 - 1


class Model(BaseModel):
    """A document of the API. What it does not know is a mistake, and nothing is guessed."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


class Query(BaseModel):
    """The parameters of a query, which are texts by nature."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What a text looks like, in an annotation of it; `words` tell people, with an example."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        """The text's own schema with the pattern; whatever is wrong with it, `words` are said."""
        text = {**handler(source), "pattern": self.pattern}
        return core_schema.custom_error_schema(
            text,
            custom_error_type="pattern",
            custom_error_message=self.words,
        )


def _read_credits(value: Any, info: ValidationInfo) -> int:
    if isinstance(value, str):
        amount = parse_credits(value)
    elif type(value) is int and info.mode == "python":
        amount = value
    else:
        raise ValueError('Amounts are texts, because floats lose credits: write "12.5".')
    if abs(amount) > AMOUNT_MICROCREDITS_MAX:
        raise ValueError("More credits than can be counted.")
    return amount


def _read_signed_credits(value: Any, info: ValidationInfo) -> int:
    if isinstance(value, str) and value.startswith("-"):
        return -_read_credits(value[1:], info)
    return _read_credits(value, info)


def _write_signed_credits(microcredits: int) -> str:
    text = format_credits(abs(microcredits))
    return f"-{text}" if microcredits < 0 else text


def _read_moment(value: Any, info: ValidationInfo) -> int:
    if type(value) is int and info.mode == "python":
        return value
    if not isinstance(value, str) or "T" not in value.upper():
        raise ValueError('Times are RFC 3339 texts: write "2026-12-31T18:00:00Z".')
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError('Times need a zone: write "2026-12-31T18:00:00Z" for UTC.')
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    moment_ms = since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000
    if not 0 <= moment_ms <= _MOMENT_MS_MAX:
        raise ValueError("Times are from 1970 to 9999.")
    return moment_ms


def write_moment(moment_ms: int) -> str:
    """RFC 3339 in UTC, to the millisecond: "2026-12-31T18:00:00.000Z"."""
    moment = datetime.fromtimestamp(moment_ms // 1_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment_ms % 1_000:03}Z"


def or_never(moment_ms: int) -> int | None:
    """The gateway's 0 is the API's null."""
    return moment_ms or None


_CREDITS = {"type": "string", "pattern": r"^\d{1,9}(\.\d{1,6})?$", "examples": ["12.5"]}
_SOME = {
    "type": "string",
    "pattern": r"^([1-9]\d{0,8}(\.\d{1,6})?|0\.\d{0,5}[1-9])$",
    "examples": ["12.5"],
}
_SIGNED = {"type": "string", "pattern": r"^-?\d{1,9}(\.\d{1,6})?$", "examples": ["-2.5"]}
_MOMENT = {"type": "string", "format": "date-time", "examples": ["2026-12-31T18:00:00.000Z"]}

Credits = Annotated[
    int,
    BeforeValidator(_read_credits),
    Field(ge=0),
    PlainSerializer(format_credits, return_type=str),
    WithJsonSchema(_CREDITS),
]
SomeCredits = Annotated[
    int,
    BeforeValidator(_read_credits),
    Field(gt=0),
    PlainSerializer(format_credits, return_type=str),
    WithJsonSchema(_SOME),
]
SignedCredits = Annotated[
    int,
    BeforeValidator(_read_signed_credits),
    PlainSerializer(_write_signed_credits, return_type=str),
    WithJsonSchema(_SIGNED),
]
Moment = Annotated[
    int,
    BeforeValidator(_read_moment),
    PlainSerializer(write_moment, return_type=str),
    WithJsonSchema(_MOMENT),
]
Id = Annotated[int, Field(ge=1, le=ID_MAX)]
Slug = Annotated[
    str,
    Pattern(
        r"^[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?$",
        'Write a name of a to z, 0 to 9, "-" and "_", as in "big-pack".',
    ),
]
CallId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Note = Annotated[str, StringConstraints(max_length=500)]


class Page(Model, Generic[ItemT]):
    """A part of a list; `next_cursor` asks for what follows, null: that is all."""

    data: list[ItemT]
    next_cursor: str | None = None


class PageQuery(Query):
    """Which part of a list."""

    limit: Annotated[int, Field(ge=1, le=PAGE_ROWS_MAX, description="At most so many.")] = PAGE_ROWS
    cursor: Annotated[
        str | None,
        Field(
            max_length=CURSOR_CHARACTERS_MAX,
            pattern=r"^[A-Za-z0-9_-]+$",
            description="What `next_cursor` of the part before said.",
        ),
    ] = None

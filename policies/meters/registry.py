"""The kinds of meters there are.

A new kind is one file, one line in `KINDS` (one more for each way in which its family adds values
up), one test file, and one heading in the README of policies; a test demands all four.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.catalog import Source
from policies.meters.response_bytes import ResponseBytes
from policies.meters.response_json import ResponseJson
from policies.meters.response_sse import ResponseSse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.meters.reader import BodyKind, LookUp

BODY_KINDS: Mapping[str, type[BodyKind]] = {
    "response.json": ResponseJson,
    "response.sse": ResponseSse,
}
LOOK_UPS: Mapping[str, type[LookUp]] = {
    "response.bytes": ResponseBytes,
}
KINDS: Mapping[str, type[BodyKind | LookUp]] = {**BODY_KINDS, **LOOK_UPS}


def parse_source(text: str) -> Source:
    """The source in a text such as "response.json:/usage/total_tokens"."""
    kind, _, argument = text.partition(":")
    return Source(kind, argument)


def mistake_in_source(source: Source) -> str | None:
    """What keeps a source from being read, for the person who wrote it."""
    kind = KINDS.get(source.kind)
    if kind is None:
        return f'"{source.kind}" is not a kind of meter; there is {", ".join(KINDS)}'
    mistake = kind.mistake_in(source)
    return f'"{source}" {mistake}' if mistake else None

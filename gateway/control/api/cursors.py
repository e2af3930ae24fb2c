"""Where a list goes on: the last row's place, as a text that clients need not understand."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

import orjson

from gateway.control.api.problems import invalid_field

if TYPE_CHECKING:
    from collections.abc import Sequence

Place = int | str


def write_cursor(*place: Place) -> str:
    """The cursor of a row's place in its list's order."""
    return base64.urlsafe_b64encode(orjson.dumps(place)).rstrip(b"=").decode()


def next_cursor(after: Place | None) -> str | None:
    """The cursor of a page's end; None: it was the last."""
    return None if after is None else write_cursor(after)


def read_cursor(cursor: str | None, *kinds: type[Place]) -> Sequence[Place] | None:
    """The place of a cursor, of these kinds; None without a cursor.

    Raises: Problem for a text that is no cursor of this list.
    """
    if cursor is None:
        return None
    try:
        place = orjson.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError):
        place = None
    fits = isinstance(place, list) and tuple(map(type, place)) == kinds
    if not fits or any(type(part) is int and abs(part) >= 2**63 for part in place):
        raise invalid_field("cursor", "This is no cursor of this list: send 'next_cursor' back.")
    return tuple(place)


def read_id_cursor(cursor: str | None) -> int | None:
    """The same of a list in the order of ids."""
    place = read_cursor(cursor, int)
    return None if place is None else int(place[0])


def read_text_cursor(cursor: str | None) -> str | None:
    """The same of a list in the order of names."""
    place = read_cursor(cursor, str)
    return None if place is None else str(place[0])

"""Reads one table of the config, collecting mistakes instead of stopping at the first.

Asking for a key makes it known; `close` reports the keys that nobody asked for. A getter that
finds a mistake notes it and returns its default (or an empty value), so that reading goes on; the
caller never uses the result because a config with problems is refused as a whole.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

from gateway.config.problems import Problem, did_you_mean
from policies.units import parse_credits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from enum import StrEnum

ValueT = TypeVar("ValueT")
StrEnumT = TypeVar("StrEnumT", bound="StrEnum")

SECONDS_MAX = 86_400
_KINDS = {
    bool: "true or false",
    int: "a whole number",
    str: "a text",
    list: "a list",
    dict: "a table",
}


class Section:
    """One table: its values, where it is, and the list of the whole file's problems."""

    def __init__(
        self,
        table: Mapping[str, object],
        where: str,
        problems: list[Problem],
        *,
        numbered: bool = False,
    ) -> None:
        """`numbered`: tables of a list are called by their places, as in `meters[0]`."""
        self.where = where
        self._table = table
        self._problems = problems
        self._numbered = numbered
        self._known: dict[str, None] = {}  # in the order of asking, for messages

    def __contains__(self, key: str) -> bool:
        self._known[key] = None
        return key in self._table

    def take_keys(self) -> list[str]:
        """The keys that are written, all of them known, for tables whose keys are data."""
        self._known.update(dict.fromkeys(self._table))
        return list(self._table)

    def complain(self, key: str, message: str) -> None:
        """Note a mistake about a key of this table; "" is the table itself."""
        where = ".".join(part for part in (self.where, key) if part)
        self._problems.append(Problem(where, message))

    def problems_so_far(self) -> int:
        """Grows with each mistake, so that a caller can tell whether a part was read cleanly."""
        return len(self._problems)

    def text(self, key: str, default: str | None = None) -> str:
        """A text; without a default the key must be there."""
        return self._typed(key, str, default, "")

    def optional_text(self, key: str) -> str | None:
        """A text, or None where the key is not there."""
        return self.text(key) if key in self else None

    def texts(self, key: str) -> list[str]:
        """A list of texts; empty where the key is not there."""
        items: list[object] = self._typed(key, list, [], [])
        texts = [item for item in items if isinstance(item, str)]
        if len(texts) < len(items):
            self.complain(key, "must be a list of texts")
        return texts

    def flag(self, key: str) -> bool:
        """A boolean; false where the key is not there."""
        return self._typed(key, bool, default=False, fallback=False)

    def integer(self, key: str, default: int | None = None, *, least: int, most: int) -> int:
        """A whole number within bounds; without a default the key must be there."""
        number = self._typed(key, int, default, least)
        if not least <= number <= most:
            self.complain(key, f"must be from {least} to {most}, not {number}")
        return number

    def seconds(self, key: str, default: float) -> float:
        """A time above zero, whole or with a fraction, up to a day."""
        self._known[key] = None
        value = self._table.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.complain(key, f"must be a number of seconds, not {_shown(value)}")
            return default
        # Below a millisecond a time-out would be none; NaN fails every comparison.
        if not (math.isfinite(value) and 0.001 <= value <= SECONDS_MAX):
            self.complain(key, f"must be from 0.001 to {SECONDS_MAX} seconds, not {value}")
            return default
        return value

    def milliseconds(self, key: str, default_ms: int) -> int:
        """As `seconds`, in whole milliseconds."""
        return round(self.seconds(key, default_ms / 1000) * 1000)

    def amount(
        self, key: str, parse: Callable[[str], int] = parse_credits, default: str | None = "0"
    ) -> int:
        """A decimal string of credits, in the integer unit of `parse`."""
        value = self._table.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._known[key] = None
            self.complain(key, f'amounts are texts, because floats lose credits: write "{value}"')
            return 0
        return self.parsed(key, parse, 0, default)

    def parsed(
        self, key: str, parse: Callable[[str], ValueT], fallback: ValueT, default: str | None = None
    ) -> ValueT:
        """What `parse` makes of a text; its ValueError is a mistake."""
        before = self.problems_so_far()
        text = self.text(key, default)
        if self.problems_so_far() > before:
            return fallback
        try:
            return parse(text)
        except ValueError as error:
            self.complain(key, str(error))
            return fallback

    def choice(self, key: str, kind: type[StrEnumT], default: StrEnumT) -> StrEnumT:
        """A word of an enumeration."""

        def parse(word: str) -> StrEnumT:
            try:
                return kind(word)
            except ValueError:
                hint = did_you_mean(word, [option.value for option in kind])
                raise ValueError(f'"{word}" is unknown; {hint}') from None

        return self.parsed(key, parse, default, default.value)

    def table(self, key: str) -> Section:
        """A table below this one; empty where the key is not there."""
        table: dict[str, object] = self._typed(key, dict, {}, {})
        return self._below(table, f"{self.where}.{key}".removeprefix("."))

    def tables(self, key: str, named_by: str) -> list[Section]:
        """A list of tables, each called by the value of one of its keys, or else by its number."""
        items: list[object] = self._typed(key, list, [], [])
        base = f"{self.where}.{key}".removeprefix(".")
        sections = []
        for number, item in enumerate(items, start=1):
            if not isinstance(item, dict):
                self.complain(key, f"must be a list of tables, each opened by [[{base}]]")
                continue
            name = item.get(named_by)
            label = name if isinstance(name, str) and name else f"#{number}"
            if self._numbered:
                label = str(number - 1)
            sections.append(self._below(item, f"{base}[{label}]"))
        return sections

    def value(self, key: str) -> object:
        """Whatever is written, for keys that take several kinds of values; None if not there."""
        self._known[key] = None
        return self._table.get(key)

    def close(self) -> None:
        """Report the keys that nobody asked for."""
        for key in self._table:
            if key not in self._known:
                self.complain(key, f"unknown key; {did_you_mean(key, self._known)}")

    def _below(self, table: Mapping[str, object], where: str) -> Section:
        return Section(table, where, self._problems, numbered=self._numbered)

    def _typed(
        self, key: str, kind: type[ValueT], default: ValueT | None, fallback: ValueT
    ) -> ValueT:
        self._known[key] = None
        if key not in self._table:
            if default is None:
                self.complain(key, "is missing")
                return fallback
            return default
        value = self._table[key]
        if type(value) is not kind:  # exactly: a bool is an int, too
            self.complain(key, f"must be {_KINDS[kind]}, not {_shown(value)}")
            return fallback
        return value


def _shown(value: object) -> str:
    """A value as a message shows it; never a text, which may be a secret in the wrong place."""
    kind = _KINDS.get(type(value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float) or kind is None:
        return str(value)
    return kind

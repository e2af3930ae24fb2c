"""Form parameters with brackets, read against the shape that a route declares.

A shape is a nested mapping of names to readers; a reader turns what was sent into a value or
refuses it. What no shape names is refused, as Stripe does. An empty string unsets: it is read as
None, whatever the reader; within metadata it deletes the key (see `store.merge_metadata`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from .errors import StripeError, invalid

Tree = dict[str, Any]
Read = Callable[[Any, str], Any]

BRACKETS = re.compile(r"\[([^\[\]]*)\]")
DEPTH_MAX = 8
LIST_ITEMS_MAX = 100
METADATA_KEYS_MAX = 50
METADATA_NAME_MAX = 40
METADATA_VALUE_MAX = 500
TEXT_MAX = 5000


def parse(text: str) -> Tree:
    """A form or a query as nested mappings of strings: lists are still mappings by index."""
    tree: Tree = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text))
    except ValueError as error:
        raise invalid(f"Invalid form: {error}") from error
    for name, value in pairs:
        head, bracket, rest = name.partition("[")
        keys = [head, *BRACKETS.findall(bracket + rest)]
        if not head or len(keys) > DEPTH_MAX or head + _brackets(keys[1:]) != name:
            raise invalid(f"Invalid parameter name: {name}", name)
        _put(tree, keys, value, name)
    return tree


def _brackets(keys: list[str]) -> str:
    return "".join(f"[{key}]" for key in keys)


def _put(tree: Tree, keys: list[str], value: str, name: str) -> None:
    for key in keys[:-1]:
        inner = tree.setdefault(key, {})
        if not isinstance(inner, dict):
            raise invalid(f"Invalid mix of a value and a hash: {name}", name)
        tree = inner
    last = keys[-1] or str(len(tree))
    if last in tree:
        raise invalid(f"Received the parameter more than once: {name}", name)
    tree[last] = value


def text(value: Any, name: str) -> str:
    """Any string."""
    if not isinstance(value, str):
        raise invalid(f"Invalid string: {value}", name)
    if len(value) > TEXT_MAX:
        raise invalid(f"Invalid string: longer than {TEXT_MAX} characters", name)
    return value


def integer(value: Any, name: str) -> int:
    """A whole number."""
    if not isinstance(value, str) or not re.fullmatch(r"-?\d{1,15}", value):
        raise invalid(f"Invalid integer: {value}", name, "parameter_invalid_integer")
    return int(value)


def boolean(value: Any, name: str) -> bool:
    """`true` or `false`."""
    if value not in {"true", "false"}:
        raise invalid(f"Invalid boolean: {value}", name)
    return bool(value == "true")


def metadata(value: Any, name: str) -> dict[str, str]:
    """Names and values; an empty value deletes its name, the whole being empty deletes all."""
    if not isinstance(value, dict) or len(value) > METADATA_KEYS_MAX:
        raise invalid(f"Invalid metadata: at most {METADATA_KEYS_MAX} keys are allowed", name)
    for key, each in value.items():
        if len(key) > METADATA_NAME_MAX or len(text(each, f"{name}[{key}]")) > METADATA_VALUE_MAX:
            raise invalid("Metadata keys or values are too long", f"{name}[{key}]")
    return value


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of some words."""

    words: tuple[str, ...]

    def __call__(self, value: Any, name: str) -> str:
        if value not in self.words:
            known = ", ".join(self.words)
            raise invalid(f"Invalid {name}: must be one of {known}", name)
        return str(value)


def one_of(*words: str) -> OneOf:
    """A reader for one of these words."""
    return OneOf(words)


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of one kind of thing."""

    item: Shape | Read

    def __call__(self, value: Any, name: str) -> list[Any]:
        if not isinstance(value, dict) or not all(key.isdecimal() for key in value):
            raise invalid(f"Invalid array: {name}", name)
        if len(value) > LIST_ITEMS_MAX:
            raise invalid(f"Array {name} has more than {LIST_ITEMS_MAX} items", name)
        keys = sorted(value, key=int)
        return [_read_one(value[key], f"{name}[{key}]", self.item) for key in keys]


def list_of(item: Shape | Read) -> ListOf:
    """A reader for a list."""
    return ListOf(item)


@dataclass(frozen=True, slots=True)
class Either:
    """A mapping of a shape, or else a single value."""

    shape: Shape
    value: Read

    def __call__(self, value: Any, name: str) -> Any:
        return _read_one(value, name, self.shape if isinstance(value, dict) else self.value)


Shape = Mapping[str, "Read | Shape"]


def read(tree: Tree, shape: Shape, prefix: str = "") -> Tree:
    """The values of a form by a shape.

    Raises: StripeError for a name that the shape has not, or a value that its reader refuses.
    """
    values: Tree = {}
    for key, value in tree.items():
        name = f"{prefix}[{key}]" if prefix else key
        if key not in shape:
            raise StripeError(
                400, f"Received unknown parameter: {name}", code="parameter_unknown", param=name
            )
        values[key] = _read_one(value, name, shape[key])
    return values


def _read_one(value: Any, name: str, by: Read | Shape) -> Any:
    if value == "":
        return None
    if not isinstance(by, Mapping):
        return by(value, name)
    if not isinstance(value, dict):
        raise invalid(f"Invalid object: {name}", name)
    return read(value, by, name)


RANGE: Shape = {"gt": integer, "gte": integer, "lt": integer, "lte": integer}
CREATED = Either(RANGE, integer)
PAGE: Shape = {"limit": integer, "starting_after": text, "ending_before": text}
EXPAND: Shape = {"expand": list_of(text)}

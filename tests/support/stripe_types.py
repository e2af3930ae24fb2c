"""What the installed stripe package says of its API: its calls, their parameters, its objects.

The package is generated from Stripe's own description: each service method names a path, the type
of its parameters and the type of its answer. A fake that is held against them can't drift.

    calls()["POST", "/v1/refunds"]           -> parameters RefundCreateParams, answer Refund
    faults(json_of_a_refund, stripe.Refund)  -> ["refund.reason: 'because' is none of …"]
"""

from __future__ import annotations

import ast
import importlib
import types
import typing
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, Union, get_args, get_origin

import stripe
import typing_extensions
from stripe import StripeObject
from stripe._list_object import ListObject
from stripe._request_options import RequestOptions
from stripe._stripe_object import UntypedStripeObject
from stripe.events import _event_classes
from stripe.v2.core import Event as ThinEvent

if TYPE_CHECKING:
    from collections.abc import Callable

# Parameters are typed together with these options of the client, which are not sent as such.
OPTIONS = frozenset(RequestOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the API as the package makes it. Its types are names, known to its module."""

    module: str
    params_name: str | None
    answer_name: str

    @property
    def params(self) -> Any:
        """The class of its parameters, None if it takes none."""
        return None if self.params_name is None else _type_named(self.params_name, self.module)

    @property
    def answer(self) -> Any:
        """The class, or the list of a class, that it answers."""
        return _type_named(self.answer_name, self.module)


@cache
def calls() -> dict[tuple[str, str], Call]:
    """Every call of the package by its method and its path, whose variables are all `{}`."""
    found: dict[tuple[str, str], Call] = {}
    root = Path(stripe.__file__).parent
    for path in sorted(root.rglob("_*_service.py")):
        module = ".".join(("stripe", *path.relative_to(root).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found.update(_call_of(node, module))
    return found


@cache
def event_types() -> frozenset[str]:
    """The types of events that the package knows."""
    return frozenset(get_args(fields(stripe.Event)["type"]))


@cache
def thin_event_types() -> frozenset[str]:
    """The types of thin events that the package knows."""
    return frozenset(_event_classes._V2_EVENT_NOTIFICATION_CLASS_LOOKUP)


@cache
def fields(shape: Any) -> dict[str, Any]:
    """The fields of a class of the package by name, with their types."""
    found: dict[str, Any] = {}
    for cls in reversed(typing.cast("type", shape).__mro__):
        if cls.__module__.startswith("stripe") and cls is not StripeObject:
            said = vars(cls).get("__annotations__", {})
            if typing_extensions.is_typeddict(shape):
                said = {name: kind for name, kind in said.items() if name not in OPTIONS}
            bare = types.SimpleNamespace(__annotations__=said)
            known = _names(cls.__module__)
            found |= typing.get_type_hints(bare, known, known, include_extras=True)
    return {
        name: kind
        for name, kind in found.items()
        if not name.startswith("_") and get_origin(kind) is not typing.ClassVar
    }


def faults(value: Any, shape: Any, at: str = "") -> list[str]:
    """What is wrong with the JSON `value`, were it of the type `shape`; empty if nothing.

    Wrong is a field that the type has not, the lack of one that is never null, a value of
    another type, and a word that is none of those listed (the package itself lets any through).
    """
    origin = get_origin(shape)
    if shape in {Any, object}:
        return []
    if origin is NotRequired:
        return faults(value, get_args(shape)[0], at)
    if origin in FAULTS_OF:
        return FAULTS_OF[origin](value, get_args(shape), at)
    if isinstance(shape, type) and issubclass(shape, StripeObject):
        return _faults_of_object(value, shape, at or shape.__name__)
    return _faults_of_scalar(value, shape, at)


class Words(tuple[str, ...]):
    """In a tree of parameters, all the words that may be sent in one place."""

    __slots__ = ()


def unknown_parameters(form: Any, shape: Any, at: str = "") -> list[str]:
    """The names, and the words, in a tree of parameters that the package's type of it has not."""
    origin = get_origin(shape)
    if isinstance(form, Words):
        return [f"{at}={word}" for word in form if faults(word, shape)]
    if origin in {Union, types.UnionType}:
        return min((unknown_parameters(form, one, at) for one in get_args(shape)), key=len)
    if origin is NotRequired:
        return unknown_parameters(form, get_args(shape)[0], at)
    if isinstance(form, list) and origin is list:
        inner = get_args(shape)[0]
        return [name for one in form for name in unknown_parameters(one, inner, f"{at}[]")]
    if isinstance(form, dict) and typing_extensions.is_typeddict(shape):
        return _unknown_of_fields(form, fields(shape), at)
    free = origin in {dict, UntypedStripeObject} or not isinstance(form, dict | list)
    return [] if free else [at]


def _unknown_of_fields(form: dict[str, Any], known: dict[str, Any], at: str) -> list[str]:
    found = []
    for name, one in form.items():
        place = f"{at}[{name}]" if at else name
        found += unknown_parameters(one, known[name], place) if name in known else [place]
    return found


def _call_of(method: ast.FunctionDef, module: str) -> dict[tuple[str, str], Call]:
    """What a method of a service calls, by its method and path; empty if it calls nothing."""
    for node in ast.walk(method):
        match node:
            case ast.Call(
                func=ast.Attribute(attr="_request"), args=[ast.Constant(value=str(verb)), path, *_]
            ):
                params = [one for one in method.args.args if one.arg == "params"]
                named = ast.unparse(params[0].annotation) if params and params[0].annotation else ""
                return {
                    (verb.upper(), _template(path)): Call(
                        module=module,
                        params_name=named.removeprefix("Optional[").strip("]'\"") or None,
                        answer_name=ast.unparse(method.returns).strip("'\"")
                        if method.returns
                        else "None",
                    )
                }
    return {}


def _template(path: ast.expr) -> str:
    """`/v1/refunds/{}` of the expression `"/v1/refunds/{refund}".format(refund=…)`."""
    text = next(
        node.value
        for node in ast.walk(path)
        if isinstance(node, ast.Constant) and str(node.value).startswith("/")
    )
    return template(str(text))


def template(path: str) -> str:
    """A path with its variables' names left out: they are `{}`."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


@cache
def _names(module: str) -> dict[str, Any]:
    """What the annotations of a module may name: also what it imports for type checkers only."""
    loaded = importlib.import_module(module)
    assert loaded.__file__ is not None
    known = dict(vars(loaded))
    for node in ast.parse(Path(loaded.__file__).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for line in node.body:
                exec(ast.unparse(line), known)  # imports of the package itself
    return known


def _type_named(name: str, module: str) -> Any:
    bare = types.SimpleNamespace(__annotations__={"named": name})
    known = _names(module)
    return typing.get_type_hints(bare, known, known)["named"]


def _faults_of_object(value: Any, shape: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at}: {value!r} is no {shape.__qualname__}"]
    if shape is ThinEvent:
        shape = _event_classes.get_v2_event_class(value.get("type", ""))
    known = fields(shape)
    required = {name for name, kind in known.items() if type(None) not in get_args(kind)}
    if value.get("deleted") is True:
        known, required = known | {"deleted": Literal[True]}, {"id", "object"}
    found = [f"{at}.{name}: there is no such field" for name in value if name not in known]
    found += [f"{at}.{name}: is missing" for name in sorted(required - set(value))]
    for name in value.keys() & known.keys():
        found += faults(value[name], known[name], f"{at}.{name}")
    return found


def _faults_of_every(value: Any, alternatives: tuple[Any, ...], at: str) -> list[str]:
    """The fewest faults that one of the alternatives leaves.

    `Literal[…] | str` lists the words of today: any other is taken for a mistake of ours.
    """
    if value is None and type(None) in alternatives:
        return []
    kinds = [one for one in alternatives if one is not type(None)]
    if any(get_origin(one) is Literal for one in kinds):
        kinds = [one for one in kinds if one is not str]
    if isinstance(value, dict):
        kinds = [one for one in kinds if _may_be(value, one)] or kinds
    return min((faults(value, one, at) for one in kinds), key=len)


def _may_be(value: dict[str, Any], shape: Any) -> bool:
    """Whether an object's own name is the one of the class."""
    return getattr(shape, "OBJECT_NAME", None) in {None, value.get("object")}


def _faults_of_words(value: Any, words: tuple[Any, ...], at: str) -> list[str]:
    return [] if value in words else [f"{at}: {value!r} is none of {words}"]


def _faults_of_items(value: Any, kinds: tuple[Any, ...], at: str) -> list[str]:
    if not isinstance(value, list):
        return [f"{at}: {value!r} is no list"]
    return [
        one for index, item in enumerate(value) for one in faults(item, kinds[0], f"{at}[{index}]")
    ]


def _faults_of_mapping(value: Any, kinds: tuple[Any, ...], at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at}: {value!r} is no mapping"]
    return [one for name, item in value.items() for one in faults(item, kinds[-1], f"{at}[{name}]")]


def _faults_of_page(value: Any, kinds: tuple[Any, ...], at: str) -> list[str]:
    """A page of a list. Of its own fields only `total_count` may be left out."""
    if not isinstance(value, dict) or value.get("object") != "list":
        return [f"{at}: {value!r} is no list object"]
    known = {"object", "data", "has_more", "url", "total_count"}
    found = [f"{at}.{name}: there is no such field" for name in value if name not in known]
    found += [f"{at}.{name}: is missing" for name in sorted(known - {"total_count"} - set(value))]
    found += faults(value.get("has_more"), bool, f"{at}.has_more")
    found += faults(value.get("url"), str, f"{at}.url")
    return found + _faults_of_items(value.get("data"), kinds, f"{at}.data")


def _faults_of_scalar(value: Any, shape: Any, at: str) -> list[str]:
    if shape is Decimal:  # sent as text
        return (
            []
            if isinstance(value, str) and _is_decimal(value)
            else [f"{at}: {value!r} is no decimal"]
        )
    if shape is float:
        right = isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(shape, type):
        right = type(value) is shape
    else:
        message = f"{at}: this test does not know how to hold a value against {shape!r}"
        raise TypeError(message)
    return [] if right else [f"{at}: {value!r} is no {shape.__name__}"]


FAULTS_OF: dict[Any, Callable[[Any, tuple[Any, ...], str], list[str]]] = {
    Literal: _faults_of_words,
    Union: _faults_of_every,
    types.UnionType: _faults_of_every,
    list: _faults_of_items,
    dict: _faults_of_mapping,
    UntypedStripeObject: _faults_of_mapping,
    ListObject: _faults_of_page,
}


def _is_decimal(text: str) -> bool:
    try:
        Decimal(text)
    except InvalidOperation:
        return False
    return True

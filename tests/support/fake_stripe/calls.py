"""One call of the API and the routes it may take: what every resource's module is written with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import invalid, missing
from .forms import EXPAND, PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .forms import Shape
    from .store import Object, Store

LIMIT_DEFAULT = 10
LIMIT_MAX = 100


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was let in. `path`: what stands in the path; `params`: read by the shape."""

    store: Store
    path: dict[str, str]
    params: dict[str, Any]
    # Where the caller sees the fake, for pages that it links to: http://127.0.0.1:port
    base_url: str

    @property
    def id(self) -> str:
        """The object that the path names."""
        return self.path["id"]

    def need(self, name: str) -> Any:
        """A parameter that must be there.

        Raises: StripeError if it is not.
        """
        value = self.params.get(name)
        if value is None:
            raise missing(name)
        return value


Handler = Callable[[Call], "Object"]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and path such as `/v1/prices/{id}`, the parameters it takes, and who answers.

    A handler runs without waiting for anything, so that a call is done whole or not at all. What
    it answers with is shown and expanded by the server.
    """

    method: str
    path: str
    handler: Handler
    params: Shape = field(default_factory=dict)


def get(path: str, handler: Handler, params: Shape | None = None) -> Route:
    """A route that reads one thing."""
    return Route("GET", path, handler, {**EXPAND, **(params or {})})


def listing(path: str, handler: Handler, params: Shape | None = None) -> Route:
    """A route that reads a page of a list."""
    return Route("GET", path, handler, {**EXPAND, **PAGE, **(params or {})})


def post(path: str, handler: Handler, params: Shape | None = None) -> Route:
    """A route that makes or changes something."""
    return Route("POST", path, handler, {**EXPAND, **(params or {})})


def delete(path: str, handler: Handler, params: Shape | None = None) -> Route:
    """A route that ends something: most answer only that it is gone, and take no `expand`."""
    return Route("DELETE", path, handler, params or {})


def retrieving(kind: str) -> Handler:
    """A handler that answers with the object that the path names."""
    return lambda call: call.store.get(kind, call.id)


def whole_list(items: list[Object], url: str) -> Object:
    """A list within an object, all of it."""
    return {"object": "list", "data": items, "has_more": False, "url": url}


def page(call: Call, objects: Iterable[Object], url: str) -> Object:
    """A page of objects given oldest first; answered newest first, as Stripe does.

    Raises: StripeError for a cursor that is not in the list, or a limit out of range.
    """
    newest = list(objects)[::-1]
    asked = call.params.get("limit")
    limit = LIMIT_DEFAULT if asked is None else asked
    if not 1 <= limit <= LIMIT_MAX:
        raise invalid(f"Invalid limit: must be between 1 and {LIMIT_MAX}", "limit")
    after, before = call.params.get("starting_after"), call.params.get("ending_before")
    if after and before:
        raise invalid("You may only specify one of these: starting_after, ending_before")
    if before:
        rest = newest[: _place(newest, before, "ending_before")]
        return _page(rest[-limit:], url, more=len(rest) > limit)
    if after:
        newest = newest[_place(newest, after, "starting_after") + 1 :]
    return _page(newest[:limit], url, more=len(newest) > limit)


def _page(items: list[Object], url: str, *, more: bool) -> Object:
    return {"object": "list", "data": items, "has_more": more, "url": url}


def _place(objects: list[Object], object_id: str, param: str) -> int:
    for place, each in enumerate(objects):
        if each["id"] == object_id:
            return place
    raise invalid(f"No such object: '{object_id}'", param, "resource_missing")


def within(call: Call, objects: Iterable[Object], name: str = "created") -> list[Object]:
    """Those whose time is what the call's parameter `name` says: a moment or a range."""
    asked = call.params.get(name)
    if asked is None:
        return list(objects)
    if isinstance(asked, int):
        return [each for each in objects if each[name] == asked]
    return [each for each in objects if _in_range(each[name], asked)]


def _in_range(value: int, asked: dict[str, int | None]) -> bool:
    tests = {
        "gt": lambda limit: value > limit,
        "gte": lambda limit: value >= limit,
        "lt": lambda limit: value < limit,
        "lte": lambda limit: value <= limit,
    }
    return all(tests[name](limit) for name, limit in asked.items() if limit is not None)


def where(call: Call, objects: Iterable[Object], *names: str) -> list[Object]:
    """Those whose fields equal the call's parameters of these names, where they are given."""
    asked = {name: call.params[name] for name in names if call.params.get(name) is not None}
    return [o for o in objects if all(o.get(name) == value for name, value in asked.items())]

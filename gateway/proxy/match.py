"""Which route serves a method and path: the most specific one, whatever the order of declaration.

A pattern is a sequence of segments: literal before `{name}` before a `/**` tail, decided segment
by segment from the left. Among routes of one pattern, one that names the method comes before one
for any method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

RouteT = TypeVar("RouteT")
ANY_METHOD = "*"


class _Node(Generic[RouteT]):
    """A place in the tree of segments: routes that end here, and what may follow."""

    __slots__ = ("ends", "literals", "parameter", "tails")

    def __init__(self) -> None:
        self.literals: dict[str, _Node[RouteT]] = {}
        self.parameter: _Node[RouteT] | None = None
        self.ends: dict[str, RouteT] = {}
        self.tails: dict[str, RouteT] = {}


class RouteTree(Generic[RouteT]):
    """Routes by method and pattern.

    Immutable once built: a change of the catalogue builds a new one.
    """

    def __init__(self, routes: Iterable[tuple[tuple[str, ...], str, RouteT]]) -> None:
        """Build from (methods, pattern, route); no methods means any method."""
        self._root: _Node[RouteT] = _Node()
        self._exact: dict[tuple[str, str], RouteT] = {}
        for methods, pattern, route in routes:
            self._add(methods or (ANY_METHOD,), pattern, route)

    def find(self, method: str, path: str) -> RouteT | None:
        """The most specific route for a canonical path, or None."""
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact
        for routes in _candidates(self._root, path.split("/"), 1):
            route = routes.get(method) or routes.get(ANY_METHOD)
            if route is not None:
                return route
        return None

    def _add(self, methods: tuple[str, ...], pattern: str, route: RouteT) -> None:
        tail = pattern.endswith("/**")
        segments = (pattern[:-3] if tail else pattern).split("/")[1:]
        node = self._root
        for segment in segments:
            if segment.startswith("{"):
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literals.setdefault(segment, _Node())
        routes = node.tails if tail else node.ends
        for method in methods:
            routes[method] = route
            # A literal path with this very method is the most specific there can be.
            if not tail and "{" not in pattern and method != ANY_METHOD:
                self._exact[method, pattern] = route


def _candidates(
    node: _Node[RouteT], segments: list[str], index: int
) -> Iterator[dict[str, RouteT]]:
    """Routes whose pattern fits, most specific first.

    Depth is bounded by the patterns', not by the path's.
    """
    if index == len(segments):
        yield node.ends
    else:
        segment = segments[index]
        literal = node.literals.get(segment)
        if literal is not None:
            yield from _candidates(literal, segments, index + 1)
        if node.parameter is not None and segment:
            yield from _candidates(node.parameter, segments, index + 1)
    # `/files/**` serves everything below /files/, and not /files itself.
    if node.tails and index < len(segments):
        yield node.tails

"""The most specific route serves, whatever the order of declaration."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.match import RouteTree

ROUTES = [
    ((), "/**", "everything"),
    ((), "/files/**", "files"),
    (("GET",), "/files/**", "files by get"),
    ((), "/agents/{id}", "one agent"),
    ((), "/agents/{id}/runs", "runs of an agent"),
    ((), "/agents/image/{size}", "image by size"),
    (("POST",), "/agents/image", "image"),
    (("GET", "HEAD"), "/agents/image", "image info"),
]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("POST", "/agents/image", "image"),
        ("HEAD", "/agents/image", "image info"),
        ("DELETE", "/agents/image", "one agent"),
        ("POST", "/agents/other", "one agent"),
        ("POST", "/agents/image/runs", "image by size"),
        ("POST", "/agents/7/runs", "runs of an agent"),
        ("POST", "/agents/7/walks", "everything"),
        ("GET", "/files/a/b", "files by get"),
        ("PUT", "/files/a/b", "files"),
        ("PUT", "/files/", "files"),
        ("PUT", "/files", "everything"),
        ("PUT", "/agents/", "everything"),
    ],
)
def test_specific_routes_win_in_any_order(
    order: int, method: str, path: str, expected: str
) -> None:
    assert RouteTree(ROUTES[::order]).find(method, path) == expected


def test_what_no_route_covers_is_not_found() -> None:
    tree = RouteTree([(("GET",), "/a", "a")])
    assert tree.find("POST", "/a") is None
    assert tree.find("GET", "/a/") is None
    assert tree.find("GET", "/") is None


segment = st.sampled_from(["a", "b", "{x}", "{y}"])
patterns = st.tuples(st.lists(segment, min_size=1, max_size=3), st.booleans()).map(
    lambda made: "/" + "/".join(made[0]) + ("/**" if made[1] else "")
)


def _regex(pattern: str) -> re.Pattern[str]:
    body = re.sub(r"\{\w+\}", "[^/]+", pattern.removesuffix("/**"))
    return re.compile(body + ("/.*" if pattern.endswith("/**") else ""))


def _rank(pattern: str) -> list[int]:
    """Segment by segment: literal, parameter, then the tail."""
    ranks = [1 if part.startswith("{") else 0 for part in pattern.split("/")[1:] if part != "**"]
    return [*ranks, 2 if pattern.endswith("/**") else -1]


@given(
    st.lists(patterns, max_size=8, unique_by=lambda p: re.sub(r"\{\w+\}", "{}", p)),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4),
)
def test_the_tree_agrees_with_trying_all_patterns(known: list[str], parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    fitting = [pattern for pattern in known if _regex(pattern).fullmatch(path)]
    expected = min(fitting, key=_rank, default=None)
    tree = RouteTree([((), pattern, pattern) for pattern in known])
    assert tree.find("GET", path) == expected

"""One canonical path per call, and no path that two readers could understand differently."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.proxy.paths import canonical_path, valid_query


@pytest.mark.parametrize(
    ("path", "canonical"),
    [
        ("/", "/"),
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/chat/", "/v1/chat/"),
        ("/%41gents/%7Eme", "/Agents/~me"),
        ("/a%3ab%e2%82%ac", "/a%3Ab%E2%82%AC"),
        ("/.well-known/agent.json", "/.well-known/agent.json"),
        ("/a/...", "/a/..."),
    ],
)
def test_escapes_have_one_form(path: str, canonical: str) -> None:
    assert canonical_path(path) == canonical


@pytest.mark.parametrize(
    "path",
    [
        "/a/../b",
        "/a/..",
        "/./a",
        "/a/%2e%2e/b",
        "/a/%2E",
        "/a/.%2e/b",
        "//a",
        "/a//b",
        "/a%2fb",
        "/a%5Cb",
        "/a%00",
        "/a\\b",
        "/a#b",
        "/a;b",
        "/a%zz",
        "/a%2",
        "/a b",
        "/\u00e9",
        "a/b",
        "",
    ],
)
def test_ambiguous_paths_are_refused(path: str) -> None:
    assert canonical_path(path) is None


@given(st.text(alphabet="/ab.%2eEfF5cC0AZz;\\#~", max_size=24))
def test_canonical_form_is_stable_and_means_the_same(path: str) -> None:
    canonical = canonical_path(path)
    if canonical is None:
        return
    assert canonical_path(canonical) == canonical
    assert unquote(canonical) == unquote(path)
    segments = unquote(canonical).split("/")
    assert ".." not in segments
    assert "." not in segments


def test_queries_pass_unless_they_hide_something() -> None:
    assert valid_query("a=1&b=%20&c[]=x")
    assert not valid_query("a=1 2")
    assert not valid_query("a=\u00e9")
    assert not valid_query("a#b")

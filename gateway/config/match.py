"""`match`, as in "GET|POST /agents/{id}/runs": methods and a path pattern."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.config.problems import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ANY_METHOD = "*"
TAIL = "/**"
# The gateway's own paths start here.
RESERVED_SEGMENT = "-"
# What a canonical path can have without escapes.
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()+,=:@-]+")
_PARAMETER = re.compile(r"\{[A-Za-z_][A-Za-z0-9_]*\}")


def parse_match(text: str) -> tuple[tuple[str, ...], str]:
    """Methods (empty: any) and pattern of a `match`.

    Raises: ValueError saying what is wrong.
    """
    words = text.split()
    if len(words) != 2:
        raise ValueError(
            f'"{text}" must be methods and a path, such as "POST /v1/chat/completions"'
        )
    return _methods(words[0]), _pattern(words[1])


def shape(pattern: str) -> str:
    """A pattern without its parameters' names: two patterns of one shape match the same paths."""
    return _PARAMETER.sub("{}", pattern)


def calls_of(methods: Iterable[str], pattern: str) -> list[tuple[str, str]]:
    """The kinds of calls that a route is for, in its methods' order: no two routes share one."""
    return [(method, shape(pattern)) for method in methods or (ANY_METHOD,)]


def _methods(text: str) -> tuple[str, ...]:
    if text == ANY_METHOD:
        return ()
    methods = tuple(text.split("|"))
    for method in methods:
        if method not in METHODS:
            hint = did_you_mean(method.upper(), (*METHODS, ANY_METHOD))
            raise ValueError(f'"{method}" is not a method here; {hint}')
    if len(set(methods)) < len(methods):
        raise ValueError(f'"{text}" names a method twice')
    return methods


def _pattern(text: str) -> str:
    if not text.startswith("/"):
        raise ValueError(f'the path "{text}" must start with "/"')
    segments = text.removesuffix(TAIL).split("/")[1:]
    if segments[:1] == [RESERVED_SEGMENT]:
        raise ValueError('paths below "/-/" belong to the gateway')
    parameters = [segment for segment in segments if _PARAMETER.fullmatch(segment)]
    if len(set(parameters)) < len(parameters):
        raise ValueError(f'"{text}" has two parameters of one name')
    for number, segment in enumerate(segments, start=1):
        if not segment and number == len(segments) and not text.endswith(TAIL):
            continue  # "/" itself, or a path that ends in a slash
        if segment not in parameters and not _is_literal(segment):
            raise ValueError(
                f'"{text}" has the segment "{segment}": segments are plain text without escapes '
                'or dot segments, a whole "{name}", or "**" as the last one'
            )
    return text


def _is_literal(segment: str) -> bool:
    return _LITERAL.fullmatch(segment) is not None and segment not in {".", ".."}

"""What is wrong with a config: every mistake at once, each with the key it is about."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Problem(NamedTuple):
    """One mistake: the key, such as "routes[chat].price.minimum", and what to do about it."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ConfigError(Exception):
    """The config can't be used. `problems` has all of its mistakes, in the order of the file."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = list(problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown word: a near one, or else all there are."""
    options = list(known)
    near = get_close_matches(word, options, n=1)
    if near:
        return f'did you mean "{near[0]}"?'
    return f"there is {', '.join(options)}"

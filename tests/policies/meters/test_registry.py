"""Every kind of meter has all four of its parts: file, registry line, tests, and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policies.catalog import Source
from policies.meters import KINDS, mistake_in_source, parse_source

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_file_a_test_file_and_a_heading(kind: str) -> None:
    name = kind.replace(".", "_")
    assert KINDS[kind].__module__ == f"policies.meters.{name}"
    assert (ROOT / "tests/policies/meters" / f"test_{name}.py").is_file()
    assert re.search(rf"^### `{kind}[:`]", (ROOT / "policies/README.md").read_text(), re.MULTILINE)


def test_every_reader_file_is_registered() -> None:
    readers = {path.stem for path in (ROOT / "policies/meters").glob("response_*.py")}
    assert readers == {kind.replace(".", "_") for kind in KINDS}


def test_a_source_is_a_kind_and_an_argument() -> None:
    source = parse_source("response.json:/a:b")
    assert source == Source("response.json", "/a:b")
    assert str(source) == "response.json:/a:b"
    assert str(parse_source("duration")) == "duration"


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("response.json:/usage/total_tokens", None),
        ("response.sse:/a~0b~1c", None),
        ("duration", '"duration" is not a kind of meter; there is response.json'),
        ("response.json", '"response.json" needs a JSON pointer'),
        ("response.json:usage", "needs a JSON pointer"),
        ("response.sse:/a~2", 'has a "~" that is neither'),
        ("response.sse:/a~", 'has a "~" that is neither'),
    ],
)
def test_a_source_that_cannot_be_read_is_named(text: str, mistake: str | None) -> None:
    found = mistake_in_source(parse_source(text))
    assert found is None if mistake is None else mistake in (found or "")

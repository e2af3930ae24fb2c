"""Every kind of meter has all four of its parts: file, registry line, tests, and documentation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from policies.catalog import Source
from policies.meters import KINDS, PRESETS, mistake_in_source, parse_source, parse_sources
from policies.meters.registry import mistake_in_request_source, mistake_in_table_source

ROOT = Path(__file__).parents[3]
README = (ROOT / "policies/README.md").read_text()
MANUAL = (ROOT / "docs/meters.md").read_text()
# Parts of the package that are no kind of meter.
SUPPORT = {
    "__init__",
    "call",
    "decoding",
    "ensure_usage",
    "facts",
    "jsonrpc",
    "members",
    "pointer",
    "presets",
    "reader",
    "reading",
    "registry",
    "tally",
    "values",
}


def family(kind: str) -> str:
    """A kind without the way in which it adds values up."""
    return kind.removesuffix(".sum").removesuffix(".count")


def section(page: str, kind: str) -> str:
    """The text under the heading of a kind's family; "" where there is none."""
    found = re.search(rf"^### `{family(kind)}[:`].*?(?=^##|\Z)", page, re.MULTILINE | re.DOTALL)
    return found[0] if found else ""


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_a_file_a_test_file_and_a_heading(kind: str) -> None:
    name = family(kind).replace(".", "_")
    assert KINDS[kind].__module__ == f"policies.meters.{name}"
    assert (ROOT / "tests/policies/meters" / f"test_{name}.py").is_file()
    assert f"`{kind}" in section(README, kind)
    assert f"`{kind}" in section(MANUAL, kind)


def test_every_file_of_a_kind_is_registered() -> None:
    kinds = {path.stem for path in (ROOT / "policies/meters").glob("*.py")} - SUPPORT
    assert kinds == {family(kind).replace(".", "_") for kind in KINDS}


def test_every_preset_is_in_the_manual_and_can_be_read() -> None:
    for name, sources in PRESETS.items():
        assert f"`{name}`" in MANUAL
        assert sources == parse_sources(name)
        assert [mistake_in_source(source) for source in sources] == [None] * len(sources)
        assert len(set(sources)) == len(sources)
        assert [parse_source(str(source)) for source in sources] == list(sources)


def test_a_source_is_a_kind_and_an_argument() -> None:
    source = parse_source("response.json:/a:b")
    assert source == Source("response.json", "/a:b")
    assert str(source) == "response.json:/a:b"
    assert str(parse_source("response.bytes")) == "response.bytes"
    assert parse_sources("response.json:/a:b") == (source,)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("response.json:/usage/total_tokens", None),
        ("response.json:/status=delivered|partial", None),
        ("response.json:/a/b+/a/c", None),
        ("response.sse:/a~0b~1c", None),
        ("response.sse.sum:/n", None),
        ("response.sse.count", None),
        ("response.ndjson.count:/image", None),
        ("response.header:X-Units", None),
        ("request.json:/messages/#", None),
        ("duration:s", None),
        ("websocket.messages:in", None),
        ("websocket.messages", None),
        ("response.xml:/a", '"response.xml" is not a kind of meter; there is response.json, '),
        ("openai.tokens", "and short for several sources openai.input_tokens, "),
        ("response.json", '"response.json" needs a JSON pointer'),
        ("response.json:usage", "needs a JSON pointer"),
        ("response.json:=yes", "needs a JSON pointer"),
        ("response.json:/status=", 'has no value behind "=" or "|"'),
        ("response.json:/status=a|", 'has no value behind "=" or "|"'),
        ("response.json:/a+/b=c", 'a comparison ("=") has one pointer'),
        ("response.sse.sum", "needs a JSON pointer"),
        ("response.sse.count:image", "needs a JSON pointer"),
        ("response.sse:/a~2", 'has a "~" that is neither'),
        ("response.sse:/a~", 'has a "~" that is neither'),
        ("response.ndjson", "needs a JSON pointer"),
        ("response.header", "needs the name of a header"),
        ("response.header:X Units", "needs the name of a header"),
        ("response.header:Content-Type", "would be removed from the answer, which needs it"),
        ("request.bytes:/n", "takes no argument"),
        ("response.bytes:/n", "takes no argument"),
        ("duration", 'needs "s" or "ms"'),
        ("duration:m", 'needs "s" or "ms"'),
        ("websocket.messages:up", 'takes "in"'),
    ],
)
def test_a_source_that_cannot_be_read_is_named(text: str, mistake: str | None) -> None:
    found = mistake_in_source(parse_source(text))
    assert found is None if mistake is None else mistake in (found or "")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("request.json:/max_tokens", None),
        ("request.bytes", None),
        ("request.json:max_tokens", "needs a JSON pointer"),
        ("response.json:/n", "is not known before the call; there is request.json and"),
        ("nothing", "is not a kind of meter"),
    ],
)
def test_what_is_not_known_before_a_call_reserves_nothing(text: str, mistake: str | None) -> None:
    found = mistake_in_request_source(parse_source(text))
    assert found is None if mistake is None else mistake in (found or "")


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("request.json:/model", None),
        ("path:id", None),
        ("query:model", None),
        ("jsonrpc.method", None),
        ("jsonrpc.tool", None),
        ("request.json:model", "needs a JSON pointer"),
        ("request.json:/model=gpt", "is more than a pointer"),
        ("request.json:/a+/b", "is more than a pointer"),
        ("path", 'needs a name, such as "path:model"'),
        ("jsonrpc.tool:search", "takes no argument"),
        ("response.json:/model", "can't choose a price"),
    ],
)
def test_only_a_value_of_the_request_chooses_a_price(text: str, mistake: str | None) -> None:
    found = mistake_in_table_source(parse_source(text))
    assert found is None if mistake is None else mistake in (found or "")

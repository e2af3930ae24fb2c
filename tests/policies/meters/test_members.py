"""A value of a request that an agent could read differently is no value."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.meters import RequestFacts, members, parse_source
from policies.meters.members import is_repeated
from policies.meters.values import ValuesMax


def facts(body: bytes) -> RequestFacts:
    return RequestFacts(orjson.loads, "POST", "/", "/", "", body, len(body))


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "small", "model": "large"}',
        b'{"model": "large", "model": "large"}',
        b'{"model": "small", "Model": "large"}',
        b'{"MODEL": "large", "model": "small"}',
        b'{"model": "small", "mod\\u0065l": "large"}',
        b'{"model": "small", "model\\u0000": "large"}',
        b'{"model": "small", "model\\u0000x": "large"}',
        b'{"m": {"model": 1}, "model": "small", "x": {"y": [{"model": 1}]}, "model": "large"}',
    ],
)
def test_a_member_that_is_there_twice_is_no_value(body: bytes) -> None:
    assert is_repeated(body, ("model",))
    assert facts(body).text(parse_source("request.json:/model")) is None


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "small"}',
        b'{"model": "small", "models": 1, "submodel": 2}',
        b'{"model": "small", "tools": [{"model": "large", "Model": 1}]}',
        b'{"model": "small", "text": "\\"model\\": \\"large\\""}',
        b'{"model": "small", "text": "model", "t": "Model"}',
        b'{"model": "small", "text": "\\u001b caf\\u00e9 \\u017f \\u212a"}',
        '{"model": "small", "text": "\u017f \u212a 你好"}'.encode(),
        b'\xef\xbb\xbf{"model": "small", "x": {"model": 1}}',
    ],
)
def test_a_member_that_is_there_once_is_its_value(body: bytes) -> None:
    assert not is_repeated(body, ("model",))
    assert facts(body).text(parse_source("request.json:/model")) == "small"


@pytest.mark.parametrize(
    ("body", "way", "repeated"),
    [
        ('{"stream": 1, "\u017ftream": 2}', ("stream",), True),
        ('{"key": 1, "\\u212aey": 2}', ("key",), True),
        ('{"ü": 1, "\\u00fc": 2}', ("ü",), True),
        ('{"ü": 1, "\\u00fd": 2}', ("ü",), False),
        ('{"a": {"n": 1}, "a": {}}', ("a", "n"), True),
        ('{"a": {"n": 1, "n": 2}}', ("a", "n"), True),
        ('{"a": {"n": 1}, "b": {"n": 2}}', ("a", "n"), False),
        ('{"l": [{"n": 1}, {"n": 2, "n": 3}]}', ("l", "0", "n"), False),
        ('{"l": [{"n": 1}, {"n": 2, "n": 3}]}', ("l", "1", "n"), True),
        ('{"l": [{"n": 1}, {"n": 2, "n": 3}]}', ("l", "-1", "n"), True),
        ('{"l": [1, {"l": 2}]}', ("l", "#"), False),
        ('[{"n": 1}, {"n": 1, "n": 2}]', ("0", "n"), False),
    ],
)
def test_only_what_stands_on_the_way_matters(
    body: str, way: tuple[str, ...], *, repeated: bool
) -> None:
    assert is_repeated(body.encode(), way) is repeated


def test_what_can_not_be_told_has_no_one_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    twice = b'{"n": 1, "x": {"n": 2}}'
    assert not is_repeated(twice, ("n",))
    monkeypatch.setattr(members, "WALKED_MAX", ValuesMax(names=3, items=3))
    assert is_repeated(twice, ("n",))
    monkeypatch.undo()
    deep = b'{"n": 1, "x": {"n": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    assert is_repeated(deep, ("n",))


NAMES = st.sampled_from(["n", "N", "m", "ü", "Ü", "s", "\u017f", "k", "\u212a", "n\0"])


@given(
    st.lists(st.tuples(NAMES, st.integers(0, 3) | st.dictionaries(NAMES, st.just(1))), max_size=6),
    st.booleans(),
    st.sampled_from(["n", "m", "s", "k", "ü"]),
)
def test_names_are_compared_as_the_most_careless_reader_would(
    pairs: list[tuple[str, object]], ascii_only: bool, name: str
) -> None:
    body = ", ".join(
        f"{json.dumps(key, ensure_ascii=ascii_only)}: {json.dumps(value, ensure_ascii=ascii_only)}"
        for key, value in pairs
    )
    same = [key for key, _ in pairs if key.partition("\0")[0].casefold() == name]
    assert is_repeated(f"{{{body}}}".encode(), (name,)) is (len(same) > 1)


@given(st.binary(max_size=60), st.sampled_from([("0",), ("a", "b"), ("#",)]))
def test_no_bytes_make_the_search_fail(body: bytes, way: tuple[str, ...]) -> None:
    is_repeated(body, way)

"""How many values a body has, said without decoding it: too many are never decoded."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.meters import RequestFacts
from policies.meters.values import DECODED_MAX, ValuesMax, has_too_many_values

TEXTS = st.text(st.sampled_from('ab,:{["\\/\né'), max_size=6)
DOCUMENTS = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


def size_of(document: Any) -> tuple[int, int]:
    """Members, objects and lists; and commas."""
    if not isinstance(document, dict | list):
        return 0, 0
    inner = document.values() if isinstance(document, dict) else document
    sizes = [size_of(value) for value in inner]
    names = 1 + (len(document) if isinstance(document, dict) else 0)
    commas = max(len(document) - 1, 0)
    return names + sum(size[0] for size in sizes), commas + sum(size[1] for size in sizes)


@given(DOCUMENTS, st.booleans())
def test_what_stands_in_texts_is_no_value(document: object, ascii_only: bool) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    names, commas = size_of(document)
    assert not has_too_many_values(body, ValuesMax(names, commas))
    if names:
        assert has_too_many_values(body, ValuesMax(names - 1, commas))
    if commas and len(body) > names:
        assert has_too_many_values(body, ValuesMax(names, commas - 1))


@pytest.mark.parametrize("value", [b"[]", b"{}", b'{"a":1}', b"1", b'"a"', b'"\\\\"', b'"\\""'])
def test_a_request_of_too_many_values_is_not_decoded(value: bytes) -> None:
    def facts(count: int) -> RequestFacts:
        body = b'{"model": "small", "x": [' + b",".join([value] * count) + b"]}"
        return RequestFacts(orjson.loads, "POST", "/", "/", "", body, len(body))

    assert facts(DECODED_MAX.names // 2 - 5).document() is not None
    assert facts(DECODED_MAX.items + 1).document() is None


@given(st.binary(max_size=60) | st.text(st.sampled_from('",:{[\\a'), max_size=60).map(str.encode))
def test_no_bytes_make_the_count_fail(body: bytes) -> None:
    has_too_many_values(body, ValuesMax(1, 1))

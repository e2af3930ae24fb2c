"""Pointers beyond RFC 6901: lengths, last elements, sums, comparisons, and their needles."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.meters import UNITS_MAX
from policies.meters.pointer import Pointer, compile_pointer, mistake_in_pointer

DOCUMENT = {
    "list": [1, [2, 3], {"n": 4}],
    "empty": [],
    "#": 5,
    "-1": 6,
    "usage": {"in": 7, "out": 8, "none": None, "text": "9", "half": 0.5, "most": UNITS_MAX},
    "status": "delivered",
    "ok": True,
    "no": False,
    "code": 200,
    "nothing": None,
    "odd": {"a|b": 1},
}


@pytest.mark.parametrize(
    ("pointer", "units"),
    [
        ("/list/#", 3),
        ("/list/1/#", 2),
        ("/empty/#", 0),
        ("/list/#/x", None),
        ("/usage/#", None),
        ("/status/#", None),
        ("/#", 5),
        ("/-1", 6),
        ("/list/-1/n", 4),
        ("/list/1/-1", 3),
        ("/empty/-1", None),
        ("/list/-2", None),
        ("/list/-", None),
        ("/usage/in+/usage/out", 15),
        ("/usage/in+/usage/missing", 7),
        ("/usage/in+/usage/none", 7),
        ("/usage/missing+/usage/none", None),
        ("/usage/in+/usage/text", None),
        ("/usage/half+/usage/in", None),
        ("/usage/in+/usage/most", None),
        ("/list/0+/list/2/n+/code", 205),
        ("/status=delivered", 1),
        ("/status=sent|delivered", 1),
        ("/status=Delivered", 0),
        ("/status=sent", 0),
        ("/ok=true", 1),
        ("/no=true", 0),
        ("/no=false", 1),
        ("/code=200|201", 1),
        ("/code=20", 0),
        ("/nothing=null", 1),
        ("/nothing=true", 0),
        ("/missing=null", None),
        ("/usage=x", 0),
        ("/usage/half=0.5", 0),
        ("/list/#=3", 1),
        ("/list/-1/n=4", 1),
    ],
)
def test_what_a_pointer_may_add_to_rfc_6901(pointer: str, units: int | None) -> None:
    assert mistake_in_pointer(pointer) is None
    assert compile_pointer(pointer).units_in(json.loads(json.dumps(DOCUMENT))) == units


@pytest.mark.parametrize(
    ("pointer", "there"),
    [
        ("/status", True),
        ("/usage", True),
        ("/usage/half", True),
        ("/no", True),
        ("/nothing", False),
        ("/missing", False),
        ("/status=delivered", True),
        ("/status=sent", False),
        ("/missing=sent", False),
        ("/missing+/status", True),
        ("/missing+/nothing", False),
    ],
)
def test_a_value_is_there_or_not(pointer: str, *, there: bool) -> None:
    assert compile_pointer(pointer).is_in(DOCUMENT) is there


@pytest.mark.parametrize(
    ("pointer", "needles"),
    [
        ("/usage/total_tokens", (b'"total_tokens"',)),
        ("/choices/0", (b'"choices"',)),
        ("/-1/usage", (b'"usage"',)),
        ("/messages/#", (b'"messages"',)),
        ("/meta/in+/meta/out", (b'"meta"',)),
        ("/in+/out", (b'"in"', b'"out"')),
        ("/in+/0", (b"",)),
        ("/0", (b"",)),
        ("/ü", (b"",)),
        ("/-1", (b"",)),
        ("/status=delivered", (b'"status"',)),
    ],
)
def test_a_needle_is_what_documents_with_the_value_must_contain(
    pointer: str, needles: tuple[bytes, ...]
) -> None:
    assert compile_pointer(pointer).needles == needles


KEYS = st.sampled_from(["a", "b", "-1", "#", "0", "1", "a b", "ü", "~/", "c.d", "x-1"])
DOCUMENTS = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.text(max_size=3) | st.just(0.5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@st.composite
def pointers(draw: st.DrawFn) -> Pointer:
    ways = draw(st.lists(st.lists(KEYS, min_size=1, max_size=3), min_size=1, max_size=3))
    texts = [
        "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in way) for way in ways
    ]
    text = draw(st.sampled_from([texts[0], "+".join(texts), texts[0] + "=1|true"]))
    assert mistake_in_pointer(text) is None
    return compile_pointer(text)


@given(pointers(), DOCUMENTS, st.booleans())
def test_a_document_with_the_value_contains_a_needle(
    pointer: Pointer, document: object, ascii_only: bool
) -> None:
    text = json.dumps(document, ensure_ascii=ascii_only).encode()
    if pointer.units_in(document) is not None or pointer.is_in(document):
        assert any(needle in text for needle in pointer.needles)


@given(pointers(), DOCUMENTS)
def test_units_are_a_count_or_missing(pointer: Pointer, document: object) -> None:
    units = pointer.units_in(document)
    assert units is None or (type(units) is int and 0 <= units <= UNITS_MAX)

"""What an idempotency key is, which requests are equal, and what of a call is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import Ending
from policies.idempotency import (
    KEY_CHARACTERS_MAX,
    Keep,
    fingerprint,
    kept,
    key_digest,
    may_run_again,
    parse_key,
)

PRINTABLE = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=255)


@given(PRINTABLE)
def test_every_printable_text_can_be_quoted(text: str) -> None:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    assert parse_key(f'"{escaped}"'.encode()) == text.encode()


@given(st.from_regex(rb"[A-Za-z0-9._~:/=+@-]{1,255}", fullmatch=True))
def test_a_bare_key_is_the_quoted_one(key: bytes) -> None:
    assert parse_key(key) == parse_key(b'"' + key + b'"') == key


@given(st.binary(max_size=300))
def test_no_header_makes_it_fail_or_gives_a_key_out_of_bounds(value: bytes) -> None:
    key = parse_key(value)
    assert key is None or 0 < len(key) <= KEY_CHARACTERS_MAX


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b'""',
        b'"',
        b'"a',
        b'a"',
        b'"a"b"',
        b"a b",
        b"a,b",
        b'"a", "b"',
        b'"a";b=1',
        b'"\\a"',
        b'"\t"',
        b'"\xc3\xa4"',
        b"a" * 256,
        b'"' + b"a" * 256 + b'"',
    ],
)
def test_what_is_no_key(value: bytes) -> None:
    assert parse_key(value) is None


@given(st.lists(st.binary(max_size=5), max_size=4), st.lists(st.binary(max_size=5), max_size=4))
def test_only_equal_requests_are_equal(one: list[bytes], other: list[bytes]) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) == (one == other)


def test_names_have_the_size_that_stores_expect() -> None:
    assert len(bytes.fromhex(key_digest(b"k"))) == 16
    assert len(bytes.fromhex(fingerprint(b"k"))) == 32


ANSWER, RECEIPT, NOTHING = Keep.ANSWER, Keep.RECEIPT, Keep.NOTHING


@pytest.mark.parametrize(
    ("ending", "status", "charged", "whole", "fits", "expected"),
    [
        (Ending.COMPLETED, 200, 5, True, True, ANSWER),
        (Ending.COMPLETED, 200, 0, True, True, ANSWER),
        (Ending.CLIENT_ERROR, 404, 0, True, True, ANSWER),
        (Ending.UPSTREAM_ERROR, 500, 0, True, True, ANSWER),
        (Ending.COMPLETED, 200, 5, True, False, RECEIPT),
        (Ending.COMPLETED, 200, 0, True, False, RECEIPT),
        (Ending.CLIENT_ERROR, 429, 0, True, True, NOTHING),
        (Ending.UPSTREAM_ERROR, 503, 0, True, True, NOTHING),
        (Ending.CLIENT_ERROR, 429, 5, True, True, ANSWER),
        (Ending.UPSTREAM_ERROR, 200, 0, False, True, NOTHING),
        (Ending.UPSTREAM_ERROR, 200, 5, False, True, RECEIPT),
        (Ending.UPSTREAM_TIMEOUT, 504, 0, False, False, NOTHING),
        (Ending.CLIENT_DISCONNECT, 200, 5, False, True, RECEIPT),
        (Ending.EXHAUSTED, 402, 5, False, False, RECEIPT),
        (Ending.UNKNOWN, 0, 5, False, False, RECEIPT),
    ],
)
def test_what_is_kept_of_a_call(
    ending: Ending, status: int, charged: int, whole: bool, fits: bool, expected: Keep
) -> None:
    assert kept(ending, status, charged, whole=whole, fits=fits) is expected


@pytest.mark.parametrize("ending", Ending)
def test_what_was_charged_never_runs_again(ending: Ending) -> None:
    assert not may_run_again(ending, 1)
    for whole in (True, False):
        assert kept(ending, 200, 1, whole=whole, fits=True) is not NOTHING


def test_what_was_answered_for_nothing_does_not_run_again_either() -> None:
    again = {ending for ending in Ending if may_run_again(ending, 0)}
    assert again == set(Ending) - {Ending.COMPLETED, Ending.CLIENT_ERROR}

"""Sealed things are read with the key only, and a key can be replaced."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity.master_key import MASTER_KEYS_MAX, new_master_key, read_master_keys
from gateway.identity.seal import AnswerSealer, CannotOpenError, NotConfiguredError, Sealer

OLD, NEW = new_master_key(), new_master_key()


@given(st.binary(max_size=9_000))
def test_what_was_sealed_comes_back_and_does_not_show(content: bytes) -> None:
    sealer = Sealer([OLD])
    sealed = sealer.seal(content)
    assert sealer.open(sealed) == content
    assert len(content) < 4 or content not in sealed
    assert sealer.seal(content) != sealed, "the same secret twice can't be told"


def test_a_master_key_is_replaced_while_old_things_stay_readable() -> None:
    sealed = Sealer([OLD]).seal(b"secret")
    both = Sealer.of(f"{NEW},\n {OLD} ")
    assert both.open(sealed) == b"secret"
    moved = both.rotate(sealed)
    assert Sealer.of(NEW).open(moved) == b"secret"
    assert Sealer.of(NEW).open(both.seal(b"newer")) == b"newer", "the newest key seals"
    with pytest.raises(CannotOpenError):
        Sealer.of(OLD).open(moved)


def test_another_key_or_one_changed_byte_opens_nothing_and_says_nothing() -> None:
    sealed = Sealer([OLD]).seal(b"canary-secret")
    for sealer, text in [
        (Sealer([NEW]), sealed),
        (Sealer([OLD]), sealed[:-9] + b"A" + sealed[-8:]),
    ]:
        for work in (sealer.open, sealer.rotate):
            with pytest.raises(CannotOpenError, match=r"gateway\.master_key") as refusal:
                work(text)
            assert refusal.value.__cause__ is None
            said = f"{refusal.value!r} {sealer!r}"
            assert not [word for word in ("canary", OLD, NEW, text.decode()) if word in said]


def test_without_a_master_key_it_is_said_what_to_set() -> None:
    sealer = Sealer.of(None)
    assert not sealer.configured
    works = (sealer.seal, sealer.open, sealer.rotate)
    for work in works:
        with pytest.raises(NotConfiguredError, match=r"set gateway\.master_key"):
            work(b"x")


def test_a_new_master_key_is_one_word_that_nobody_had() -> None:
    keys = {new_master_key() for _ in range(50)}
    assert len(keys) == 50
    assert all(re.fullmatch(r"[0-9A-Za-z_-]{43}=", key) for key in keys)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 to 16 keys"),
        (" , ", "1 to 16 keys"),
        (",".join([OLD] * (MASTER_KEYS_MAX + 1)), "1 to 16 keys"),
        (f"{OLD}, canary", "key 2 is not 32 bytes"),
        (OLD[:-4] + "====", "key 1 is not"),
        ("canary" + OLD, "key 1 is not"),
        (OLD[:20] + "\u00e9" + OLD[21:], "key 1 is not"),
    ],
    ids=["empty", "commas", "too-many", "canary", "padding", "too-long", "not-ascii"],
)
def test_a_text_of_no_keys_is_refused_without_repeating_it(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        read_master_keys(text)
    assert "canary" not in str(refusal.value)
    assert OLD[:10] not in str(refusal.value)


def test_a_kept_answer_is_read_by_who_shows_the_key_again_only() -> None:
    answers = AnswerSealer(b"pepper")
    sealed = answers.seal("order-17", b'{"secret":"tk_live"}')
    assert answers.open("order-17", sealed) == b'{"secret":"tk_live"}'
    assert b"tk_live" not in sealed
    for other, key in [
        (answers, "order-18"),
        (answers, ""),
        (AnswerSealer(b"Pepper"), "order-17"),
    ]:
        with pytest.raises(CannotOpenError) as refusal:
            other.open(key, sealed)
        assert "order" not in str(refusal.value)
        assert "epper" not in repr(other)


def test_making_a_master_key_does_not_load_the_cipher() -> None:
    """`tollkeeper dev` makes one while its servers start."""
    code = (
        "import sys, gateway.identity.master_key; print([m for m in sys.modules if 'crypto' in m])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert run.stdout.strip() == b"[]"

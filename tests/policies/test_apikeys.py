"""Keys as text: a layout fixed for ever, mistakes caught without a look-up, little shown."""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import apikeys

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

RANDOM = st.text(alphabet=apikeys.ALPHABET, min_size=22, max_size=22)
ENVIRONMENT = st.sampled_from(["dev", "live"])

# The checksum was worked out by hand with zlib, apart from this code.
GOLDEN = "tk_live_0123456789ABCDEFGHIJKL" + "0PiIAg"


def test_the_layout_of_a_key_never_changes() -> None:
    # Written out: keys in customers' hands must be accepted by every later version.
    assert apikeys.compose_key("live", "0123456789ABCDEFGHIJKL") == GOLDEN
    assert apikeys.well_formed(GOLDEN)


@given(ENVIRONMENT, RANDOM)
def test_every_composed_key_is_well_formed(env: str, random: str) -> None:
    key = apikeys.compose_key(env, random)
    assert apikeys.well_formed(key)
    assert re.fullmatch(rf"tk_{env}_[0-9A-Za-z]{{28}}", key)


@given(ENVIRONMENT, RANDOM, st.data())
def test_one_wrong_character_is_noticed(env: str, random: str, data: st.DataObject) -> None:
    # CRC32 finds every burst of up to 32 bits, so a single wrong character never passes.
    key = apikeys.compose_key(env, random)
    at = data.draw(st.integers(min_value=0, max_value=len(key) - 1))
    other = data.draw(st.sampled_from([c for c in apikeys.ALPHABET + "_-." if c != key[at]]))
    assert not apikeys.well_formed(key[:at] + other + key[at + 1 :])


@given(st.text(max_size=60))
def test_any_text_is_judged_without_an_exception(text: str) -> None:
    assert not apikeys.well_formed(text)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda key: key + "\n",
        lambda key: " " + key,
        lambda key: key[:-1],
        lambda key: key + "0",
        lambda key: key.upper(),
        lambda key: key.replace("tk_", "sk_"),
        lambda key: key.replace("_live_", "_prod_"),
        lambda key: key[:10] + "\u0661" + key[11:],  # an Arabic digit one
        lambda _: "",
    ],
)
def test_what_only_resembles_a_key_is_refused(spoil: Callable[[str], str]) -> None:
    assert not apikeys.well_formed(spoil(apikeys.compose_key("live", "a" * 22)))


@pytest.mark.parametrize(
    ("env", "random"),
    [("prod", "a" * 22), ("", "a" * 22), ("dev", "a" * 21), ("dev", "a" * 23), ("dev", "é" * 22)],
)
def test_a_wrong_part_composes_no_key_and_is_not_repeated(env: str, random: str) -> None:
    with pytest.raises(ValueError, match="key") as refusal:
        apikeys.compose_key(env, random)
    assert random not in str(refusal.value)


def test_the_digest_is_hmac_sha_256_under_the_pepper() -> None:
    key = apikeys.compose_key("dev", "b" * 22)
    expected = hmac.new(b"pepper", key.encode(), hashlib.sha256).digest()
    assert apikeys.digest(key, b"pepper") == expected
    assert apikeys.digest(key, b"another") != expected


@given(ENVIRONMENT, RANDOM)
def test_all_but_four_random_characters_stay_hidden(env: str, random: str) -> None:
    key = apikeys.compose_key(env, random)
    prefix, last4 = apikeys.display(key)
    assert prefix == f"tk_{env}_{random[:4]}"
    assert last4 == key[-4:]
    assert random[4:] not in prefix + last4


@given(ENVIRONMENT, RANDOM, st.uuids())
def test_no_kind_of_text_passes_for_another(env: str, random: str, session: UUID) -> None:
    texts = {
        apikeys.KEY: apikeys.compose_key(env, random),
        apikeys.TOKEN: apikeys.compose_token(env, random),
        apikeys.REFRESH: apikeys.compose_refresh(env, session.hex, random),
    }
    assert set(texts) == set(apikeys.KINDS)
    for kind, text in texts.items():
        assert text.startswith(f"{kind}_{env}_")
        assert [other for other in texts if apikeys.well_formed(text, other)] == [kind]
    assert apikeys.session_of(texts[apikeys.REFRESH]) == session.hex
    assert apikeys.display(texts[apikeys.TOKEN])[0] == f"tt_{env}_{random[:4]}"


@pytest.mark.parametrize("session", ["", "0" * 31, "0" * 33, "G" * 32, "A" * 32])
def test_a_refresh_token_names_a_session(session: str) -> None:
    with pytest.raises(ValueError, match="session"):
        apikeys.compose_refresh("dev", session, "a" * 22)

"""Our tokens are believed exactly as we signed them: not another's, not changed, not too late."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.identity.claims import CLOCK_LEEWAY_S, Refused
from gateway.identity.master_key import new_master_key
from gateway.identity.seal import CannotOpenError, NotConfiguredError, Sealer
from gateway.identity.signing import Signer, jwks_document
from gateway.identity.tokens import (
    ACCESS_TOKEN_S,
    DELEGATED_TOKEN_S_MAX,
    RELOAD_INTERVAL_S,
    RETIRED_KEPT_S,
    ROUTES_MAX,
    TOKEN_BYTES_MAX,
    AccessToken,
    DelegatedToken,
    UnknownKey,
    Verifier,
    new_jti,
)
from tests.support.identity import Clock, Keys, segment

if TYPE_CHECKING:
    from collections.abc import Callable

DEPLOYMENT = "d" * 32
SESSION = "5" * 32
NEVER_MS = 2**52


class Ours:
    """A control plane and a worker of one deployment."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keys = Keys()
        self.sealer = Sealer([new_master_key()])
        self.signer = self.node()
        self.verifier = Verifier(
            DEPLOYMENT, clock_ms=self.clock.now_ms, monotonic_s=self.clock.now_s
        )

    def node(self, deployment: str = DEPLOYMENT) -> Signer:
        return Signer(self.keys, self.sealer, deployment, clock_ms=self.clock.now_ms)

    async def access(self) -> str:
        text = (await self.signer.access_token(SESSION, 5, expires_ms_max=NEVER_MS)).text
        self.verifier.replace_keys(self.keys.kept)
        return text

    async def delegated(self, life_s: int = 60, routes: list[str] | None = None) -> str:
        expires_ms = self.clock.ms + life_s * 1000
        signed = await self.signer.delegated_token(
            9, 17, "jti-1", expires_ms=expires_ms, routes=routes
        )
        self.verifier.replace_keys(self.keys.kept)
        return signed.text

    def private(self) -> Ed25519PrivateKey:
        """What nobody but the signer has: to see that signing alone makes no good token."""
        assert self.keys.signing is not None
        return Ed25519PrivateKey.from_private_bytes(
            self.sealer.open(self.keys.signing.sealed_private)
        )

    async def forged(self, *, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """As the access token, properly signed, but with other claims; None leaves one out."""
        good = jwt.decode(await self.access(), options={"verify_signature": False})
        whole = {name: value for name, value in {**good, **claims}.items() if value is not None}
        assert self.keys.signing is not None
        kid = {"kid": self.keys.signing.kid}
        return jwt.api_jws.encode(
            json.dumps(whole).encode(), self.private(), "EdDSA", {**kid, **(headers or {})}
        )


@pytest.fixture
def ours() -> Ours:
    return Ours()


async def test_each_token_says_who_shows_it(ours: Ours) -> None:
    token = ours.verifier.access(await ours.access())
    assert isinstance(token, AccessToken)
    assert token[:2] == (SESSION, 5)
    assert token.expires_ms == ours.clock.ms + ACCESS_TOKEN_S * 1000
    everything = ours.verifier.delegated(await ours.delegated())
    assert everything == DelegatedToken(9, 17, "jti-1", None, ours.clock.ms + 60_000)
    narrowed = ours.verifier.delegated(await ours.delegated(routes=["chat", "image"]))
    assert isinstance(narrowed, DelegatedToken)
    assert narrowed.routes == ("chat", "image")


async def test_no_audience_passes_for_the_other(ours: Ours) -> None:
    assert ours.verifier.access(await ours.delegated()) == Refused("InvalidAudienceError")
    assert ours.verifier.delegated(await ours.access()) == Refused("InvalidAudienceError")
    both = await ours.forged(aud=["tollkeeper:control", "tollkeeper"])
    assert isinstance(ours.verifier.access(both), Refused)
    assert isinstance(ours.verifier.delegated(both), Refused)


async def test_the_properly_forged_token_of_these_tests_is_good(ours: Ours) -> None:
    assert isinstance(ours.verifier.access(await ours.forged()), AccessToken)


@pytest.mark.parametrize(
    "claims",
    [
        *({name: None} for name in ("exp", "iat", "iss", "aud", "sub", "jti", "sid")),
        {"iss": "tollkeeper:" + "e" * 32},
        {"iss": "tollkeeper:" + DEPLOYMENT + " "},
        {"iss": ["tollkeeper:" + DEPLOYMENT]},
        {"aud": "tollkeeper:control "},
        {"aud": ["tollkeeper:control"]},
        {"aud": {"tollkeeper:control": 1}},
        {"exp": True},
        {"exp": "9999999999"},
        {"exp": 1e300},
        {"exp": -1},
        {"exp": 253_402_300_799},
        {"iat": 1},
        {"iat": 9_999_999_999},
        {"nbf": 9_999_999_999},
        {"nbf": "now"},
        {"sub": 5},
        {"sub": "5.0"},
        {"sub": "-5"},
        {"sub": "9" * 20},
        {"sub": "\u0665"},
        {"jti": 1},
        {"sid": 5},
    ],
    ids=str,
)
async def test_our_signature_does_not_make_up_for_a_wrong_claim(
    ours: Ours, claims: dict[str, Any]
) -> None:
    text = await ours.forged(**claims)
    assert isinstance(ours.verifier.access(text), Refused)


@pytest.mark.parametrize(
    "claims", [{"key": True}, {"key": "17"}, {"key": None}, {"routes": "chat"}, {"routes": [1]}]
)
async def test_a_delegated_token_names_a_key_and_routes(ours: Ours, claims: dict[str, Any]) -> None:
    right = {"aud": "tollkeeper", "key": 17, "sub": "9"}
    assert isinstance(ours.verifier.delegated(await ours.forged(**right)), DelegatedToken)
    assert isinstance(ours.verifier.delegated(await ours.forged(**{**right, **claims})), Refused)


@pytest.mark.parametrize(
    "headers",
    [
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/cert"},
        {"jwk": {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"typ": "dpop+jwt"},
        {"kid": ""},
        {"kid": "../../etc/passwd"},
        {"kid": "k" * 300},
    ],
    ids=lambda headers: next(iter(headers)),
)
async def test_no_header_chooses_how_a_token_is_verified(
    ours: Ours, headers: dict[str, Any]
) -> None:
    text = await ours.forged(headers=headers)
    assert isinstance(ours.verifier.access(text), Refused | UnknownKey)


def rewritten(text: str, change: Callable[[dict[str, Any]], None], part: int) -> str:
    parts = text.split(".")
    value = json.loads(base64.urlsafe_b64decode(parts[part] + "=="))
    change(value)
    parts[part] = segment(value)
    return ".".join(parts)


async def test_neither_none_nor_a_shared_secret_is_an_algorithm(ours: Ours) -> None:
    text = await ours.access()
    header, claims, _ = text.split(".")
    public = ours.keys.kept[0].public_jwk
    raw = base64.urlsafe_b64decode(public["x"] + "=")
    whole = json.loads(base64.urlsafe_b64decode(claims + "=="))
    kid = {"kid": public["kid"]}
    for name in ("none", "None", "NONE", "nOnE"):
        bare = rewritten(text, lambda value, name=name: value.update(alg=name), 0)
        assert isinstance(ours.verifier.access(bare), Refused)
        assert isinstance(ours.verifier.access(bare.rpartition(".")[0] + "."), Refused)
        assert isinstance(ours.verifier.access(bare.rpartition(".")[0] + ".AA"), Refused)
    for secret in (raw, public["x"].encode(), json.dumps(dict(public)).encode() + b" "):
        algorithm = jwt.get_algorithm_by_name("HS256")
        signing = f"{segment({'alg': 'HS256', 'typ': 'JWT', **kid})}.{claims}"
        forged = f"{signing}.{segment(algorithm.sign(signing.encode(), secret))}"
        assert isinstance(ours.verifier.access(forged), Refused)
    mallory = jwt.encode(whole, Ed25519PrivateKey.generate(), "EdDSA", headers=kid)
    assert ours.verifier.access(mallory) == Refused("InvalidSignatureError")
    assert isinstance(ours.verifier.access(f"{header}.{claims}."), Refused)


async def test_a_token_is_refused_when_its_time_is_over_or_has_not_come(ours: Ours) -> None:
    text = await ours.access()
    ours.clock.sleep(ACCESS_TOKEN_S + CLOCK_LEEWAY_S - 1)
    assert isinstance(ours.verifier.access(text), AccessToken), "clocks may be apart so far"
    ours.clock.sleep(1)
    assert ours.verifier.access(text) == Refused("expired")
    ours.clock.sleep(-ACCESS_TOKEN_S - 2 * CLOCK_LEEWAY_S - 1)
    assert isinstance(ours.verifier.access(text), Refused)
    assert CLOCK_LEEWAY_S <= 60


async def test_an_access_token_ends_with_its_session(ours: Ours) -> None:
    end_ms = ours.clock.ms + 5_900
    signed = await ours.signer.access_token(SESSION, 5, expires_ms_max=end_ms)
    assert signed.expires_ms == ours.clock.ms + 5_000


@given(st.data())
@settings(max_examples=200)
def test_no_changed_text_is_believed(data: st.DataObject) -> None:
    ours = Ours()
    text = asyncio.run(ours.access())
    at = data.draw(st.integers(0, len(text) - 1))
    new = data.draw(st.sampled_from("Aa0-_.=+/ \n\u0663"))
    changed = text[:at] + new + text[at + 1 :]
    if changed != text:
        assert not isinstance(ours.verifier.access(changed), AccessToken)


@given(st.text(max_size=200) | st.from_regex(r"[\w-]{0,40}\.[\w-]{0,40}\.[\w-]{0,40}"))
def test_any_text_is_judged_without_an_exception(text: str) -> None:
    assert isinstance(Ours().verifier.access(text), Refused)
    assert isinstance(Ours().verifier.delegated("eyJ" + text), Refused)


@pytest.mark.parametrize(
    "parts",
    [
        [b"[" * 3_000, b"{}", b"x"],
        [b'{"a":' * 500, b"{}", b"x"],
        [b'{"alg":"EdDSA","kid":"k"}', b'{"exp":' + b"9" * 2_900 + b"}", b"x"],
        [b'{"alg":"EdDSA","kid":"k"}', b'{"iss":"\xff"}', b"x"],
        [b'{"alg":"EdDSA","kid":"k"}', b"NaN", b"x"],
        [b'{"alg":["EdDSA"],"kid":{"k":1}}', b'{"iss":"i"}', b"x"],
        [b"null", b"null", b"x"],
    ],
)
def test_hostile_json_is_refused(parts: list[bytes]) -> None:
    text = ".".join(map(segment, parts))
    assert isinstance(Ours().verifier.access(text), Refused)


async def test_a_token_is_bounded_in_size_both_ways(ours: Ours) -> None:
    text = await ours.access()
    assert isinstance(ours.verifier.access(text + "A" * TOKEN_BYTES_MAX), Refused)
    most = await ours.delegated(routes=["r" * 63] * ROUTES_MAX)
    assert len(most) <= TOKEN_BYTES_MAX, "the most routes with the longest names fit"
    assert isinstance(ours.verifier.delegated(most), DelegatedToken)
    for routes in ([], ["r"] * (ROUTES_MAX + 1), ["r" * 4_000]):
        with pytest.raises(ValueError, match="token"):
            await ours.delegated(routes=routes)
    with pytest.raises(ValueError, match="at most"):
        await ours.delegated(life_s=DELEGATED_TOKEN_S_MAX + 1)


async def test_after_a_rotation_old_tokens_are_good_until_they_expire(ours: Ours) -> None:
    old = await ours.delegated(DELEGATED_TOKEN_S_MAX)
    other_node = ours.node()
    assert await other_node.rotate() == 2
    new = await ours.delegated()
    kids = [jwt.get_unverified_header(text)["kid"] for text in (old, new)]
    assert kids == [key.kid for key in ours.keys.kept], "every node signs with the new one"
    assert isinstance(ours.verifier.delegated(old), DelegatedToken)
    assert RETIRED_KEPT_S > DELEGATED_TOKEN_S_MAX + CLOCK_LEEWAY_S
    ours.verifier.replace_keys(ours.keys.kept[1:])
    assert ours.verifier.delegated(old) == UnknownKey(kids[0])
    assert isinstance(ours.verifier.delegated(new), DelegatedToken)


async def test_of_nodes_that_start_at_once_one_makes_the_first_key(ours: Ours) -> None:
    nodes = [ours.node() for _ in range(4)]
    await asyncio.gather(*(node.start() for node in nodes))
    assert len(ours.keys.kept) == 1
    signed = {(await node.access_token(SESSION, 5, expires_ms_max=NEVER_MS)).text for node in nodes}
    assert {jwt.get_unverified_header(text)["kid"] for text in signed} == {ours.keys.kept[0].kid}


async def test_another_deployment_is_not_believed_even_with_the_same_keys(ours: Ours) -> None:
    text = (await ours.node("e" * 32).access_token(SESSION, 5, expires_ms_max=NEVER_MS)).text
    ours.verifier.replace_keys(ours.keys.kept)
    assert isinstance(ours.verifier.access(text), Refused)


async def test_a_key_that_was_made_just_now_is_loaded_once_for_all_who_need_it(ours: Ours) -> None:
    text = (await ours.signer.access_token(SESSION, 5, expires_ms_max=NEVER_MS)).text
    load = ours.keys.public_keys
    assert isinstance(ours.verifier.access(text), UnknownKey)
    assert await asyncio.gather(*(ours.verifier.reload(load) for _ in range(50))) == [True] * 50
    assert (ours.keys.asked, type(ours.verifier.access(text))) == (1, AccessToken)
    for _ in range(1_000):
        assert not await ours.verifier.reload(load), "guesses are no queries"
    ours.clock.sleep(RELOAD_INTERVAL_S)
    assert await ours.verifier.reload(load)
    assert ours.keys.asked == 2


async def test_a_load_that_failed_is_told_and_tried_again(ours: Ours) -> None:
    text = (await ours.signer.access_token(SESSION, 5, expires_ms_max=NEVER_MS)).text

    async def away() -> list[Any]:
        raise ConnectionError("Postgres is away")

    for _ in range(2):
        with pytest.raises(ConnectionError):
            await ours.verifier.reload(away)
    assert await ours.verifier.reload(ours.keys.public_keys)
    assert isinstance(ours.verifier.access(text), AccessToken)


async def test_the_published_keys_are_what_anybody_verifies_with(ours: Ours) -> None:
    text = await ours.access()
    await ours.signer.rotate()
    document = json.loads(json.dumps(jwks_document(ours.keys.kept)))
    assert [set(key) for key in document["keys"]] == [{"crv", "kty", "x", "kid", "alg", "use"}] * 2
    key = jwt.PyJWKSet.from_dict(document)[jwt.get_unverified_header(text)["kid"]]
    claims = jwt.decode(
        text, key, ["EdDSA"], audience="tollkeeper:control", options={"verify_exp": False,
        "verify_iat": False}
    )  # fmt: skip
    assert claims["iss"] == f"tollkeeper:{DEPLOYMENT}"


async def test_without_the_right_master_key_nothing_is_signed(ours: Ours) -> None:
    with pytest.raises(NotConfiguredError):
        await Signer(ours.keys, Sealer(()), DEPLOYMENT).start()
    await ours.signer.start()
    stranger = Signer(ours.keys, Sealer([new_master_key()]), DEPLOYMENT)
    with pytest.raises(CannotOpenError):
        await stranger.start()
    await stranger.rotate()
    await stranger.start()


async def test_no_credential_is_in_what_is_logged_of_it(ours: Ours) -> None:
    signed = await ours.signer.access_token(SESSION, 5, expires_ms_max=NEVER_MS)
    ours.verifier.replace_keys(ours.keys.kept)
    private = base64.urlsafe_b64encode(ours.private().private_bytes_raw()).decode()
    signature = signed.text.rpartition(".")[2]
    said = [signed, ours.signer, ours.verifier, ours.verifier.access(signed.text + "A")]
    said += [ours.verifier.access(signed.text), ours.verifier.delegated(signed.text)]
    for one in said:
        assert signature not in repr(one)
        assert private not in repr(one)
    assert len({new_jti() for _ in range(100)}) == 100

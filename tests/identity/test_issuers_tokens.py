"""A platform's own issuer is believed by its own keys, for its own platform, asked seldom."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import jwt
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from gateway.identity.claims import CLOCK_LEEWAY_S, Refused
from gateway.identity.jwks import (
    ISSUED_TOKEN_S_MAX,
    JWKS_FRESH_S,
    JWKS_REFETCH_INTERVAL_S,
    JWKS_RETRY_INTERVAL_S,
    JWKS_STALE_S_MAX,
    IssuedToken,
    IssuerAway,
    IssuerKeys,
    KeysAwayError,
)
from gateway.identity.key_set import (
    ISSUER_ALGORITHMS,
    JWKS_BYTES_MAX,
    JWKS_KEYS_MAX,
    KeySetError,
    read_key_set,
)
from tests.support.identity import (
    ED25519,
    JWKS_URL,
    P256,
    RSA,
    Clock,
    Provider,
    Trusted,
    jwk,
    segment,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class World:
    """A worker that trusts one issuer."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.provider = Provider(self.clock)
        self.issuers = IssuerKeys(
            self.provider.fetch, clock_ms=self.clock.now_ms, monotonic_s=self.clock.now_s
        )
        self.issuers.replace_issuers([Trusted()])

    async def verify(self, *arguments: Any, **claims: Any) -> IssuedToken | IssuerAway | Refused:
        return await self.issuers.verify(self.provider.token(*arguments, **claims))

    async def accepts(self, *arguments: Any, **claims: Any) -> bool:
        return isinstance(await self.verify(*arguments, **claims), IssuedToken)

    @property
    def fetches(self) -> int:
        return len(self.provider.asked)


@pytest_asyncio.fixture
async def world() -> AsyncIterator[World]:
    opened = World()
    yield opened
    await opened.issuers.close()


async def test_a_good_token_names_an_account_of_its_platform(world: World) -> None:
    found = await world.verify()
    assert found == IssuedToken(3, 7, "alice", world.clock.ms + 300_000)
    assert world.provider.asked == [JWKS_URL]


@pytest.mark.parametrize(
    ("algorithm", "private"),
    [("RS256", RSA), ("PS256", RSA), ("ES256", P256), ("EdDSA", ED25519)],
)
async def test_every_algorithm_that_may_be_trusted_works(
    world: World, algorithm: str, private: Any
) -> None:
    world.provider.private = {"k1": private}
    assert await world.accepts("k1", algorithm)
    others = [name for name in ISSUER_ALGORITHMS if name != algorithm]
    world.issuers.replace_issuers([Trusted(algorithms=others)])
    assert not await world.accepts("k1", algorithm), "but only where it is"


async def test_another_claim_may_name_the_account(world: World) -> None:
    world.issuers.replace_issuers([Trusted(account_claim="https://x.example/account")])
    found = await world.verify(sub=17, **{"https://x.example/account": "bob"})
    assert isinstance(found, IssuedToken)
    assert found.account_name == "bob"
    assert not await world.accepts()


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": True},
        {"exp": "soon"},
        {"exp": 1},
        {"exp": 2**60},
        {"iat": 0},
        {"iat": 2**40},
        {"nbf": 2**40},
        {"iss": None},
        {"iss": "https://id.example/"},
        {"iss": "https://evil.example"},
        {"aud": None},
        {"aud": "tollkeeper:other"},
        {"aud": "tollkeeper"},
        {"aud": "demo"},
        {"aud": ["tollkeeper:demo", "tollkeeper:other"]},
        {"aud": ["tollkeeper:demo", 5]},
        {"aud": [["tollkeeper:demo"]]},
        {"aud": ["x"] * 100 + ["tollkeeper:demo"]},
        {"sub": None},
        {"sub": ""},
        {"sub": 17},
        {"sub": ["alice"]},
        {"sub": " alice"},
        {"sub": "al\nice"},
        {"sub": "a" * 201},
    ],
    ids=str,
)
async def test_a_wrong_claim_is_refused(world: World, claims: dict[str, Any]) -> None:
    assert isinstance(await world.verify(**claims), Refused)


async def test_more_audiences_than_the_platform_are_fine(world: World) -> None:
    assert await world.accepts(aud=["https://api.example", "tollkeeper:demo"])


async def test_a_token_lives_for_a_day_at_most(world: World) -> None:
    now_s = world.clock.ms // 1000
    assert await world.accepts(exp=now_s + ISSUED_TOKEN_S_MAX)
    assert not await world.accepts(exp=now_s + ISSUED_TOKEN_S_MAX + 1)
    late = now_s + ISSUED_TOKEN_S_MAX + CLOCK_LEEWAY_S
    assert not await world.accepts(iat=None, exp=late + 1)
    assert await world.accepts(iat=None, exp=late)
    fraction = await world.verify(exp=now_s + 1.5)
    assert isinstance(fraction, IssuedToken)
    assert fraction.expires_ms == world.clock.ms + 1_500


async def test_the_public_key_is_no_shared_secret_and_none_no_signature(world: World) -> None:
    assert await world.accepts()
    claims = world.provider.token().split(".")[1]
    public = json.dumps(jwk(RSA, "k1")).encode()
    for name in ("HS256", "HS512", "none"):
        signing = f"{segment({'alg': name, 'kid': 'k1', 'typ': 'JWT'})}.{claims}"
        signature = jwt.get_algorithm_by_name(name).sign(signing.encode(), public)
        for end in (segment(signature) or "AA", "AA"):
            assert isinstance(await world.issuers.verify(f"{signing}.{end}"), Refused)
    world.issuers.replace_issuers([Trusted(algorithms=("RS256",))])
    assert isinstance(await world.verify("k1", "PS256"), Refused)


async def test_a_key_verifies_only_what_its_type_and_use_are_for(world: World) -> None:
    world.provider.private = {"rsa": RSA, "ec": P256, "ed": ED25519}
    for kid, algorithm in [("rsa", "ES256"), ("ec", "EdDSA"), ("ed", "RS256"), ("ec", "RS256")]:
        right = {"ES256": P256, "EdDSA": ED25519, "RS256": RSA}[algorithm]
        assert isinstance(await world.verify(kid, algorithm, key=right), Refused)
    assert await world.accepts("rsa", "RS256")
    assert isinstance(
        await world.verify("rsa", key=rsa.generate_private_key(65_537, 2_048)), Refused
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/c"},
        {"jwk": jwk(RSA, "k1")},
        {"kid": None},
        {"kid": 5},
    ],
    ids=["jku", "x5u", "jwk", "kid-none", "kid-number"],
)
async def test_a_token_chooses_neither_its_key_nor_where_that_is(
    world: World, headers: dict[str, Any]
) -> None:
    claims = world.provider.token().split(".")[1]
    whole = {"alg": "RS256", "typ": "JWT", "kid": "k1", **headers}
    signing = f"{segment(whole)}.{claims}"
    signature = jwt.get_algorithm_by_name("RS256").sign(signing.encode(), RSA)
    assert isinstance(await world.issuers.verify(f"{signing}.{segment(signature)}"), Refused)
    assert world.fetches == 0


async def test_nobody_is_asked_for_a_stranger_s_token(world: World) -> None:
    for claims in ({"iss": "https://evil.example"}, {"aud": "tollkeeper:other"}):
        assert isinstance(await world.verify(**claims), Refused)
    assert isinstance(await world.issuers.verify("x" * 10_000), Refused)
    assert isinstance(await world.verify("k1", "RS384"), Refused)
    assert world.fetches == 0


async def test_one_issuer_of_two_platforms_names_accounts_of_each(world: World) -> None:
    other = Trusted(issuer_id=8, platform_id=4, platform_slug="other", account_claim="email")
    world.issuers.replace_issuers([Trusted(), other])
    found = await world.verify(aud="tollkeeper:other", email="bob@x.example")
    assert found == IssuedToken(4, 8, "bob@x.example", world.clock.ms + 300_000)


async def test_keys_are_fetched_once_for_all_who_wait_and_kept_while_fresh(world: World) -> None:
    answers = await asyncio.gather(*(world.accepts() for _ in range(100)))
    assert (answers, world.fetches) == ([True] * 100, 1)
    world.clock.sleep(JWKS_FRESH_S - 1)
    assert await world.accepts()
    assert world.fetches == 1
    world.clock.sleep(1)
    assert await world.accepts()
    assert world.fetches == 2


async def test_who_leaves_does_not_end_the_fetch_for_others(world: World) -> None:
    world.provider.gate = asyncio.Event()
    first = asyncio.create_task(world.verify())
    second = asyncio.create_task(world.verify())
    await eventually(lambda: world.fetches)
    first.cancel()
    await asyncio.wait({first})
    world.provider.gate.set()
    assert isinstance(await second, IssuedToken)
    assert world.fetches == 1


async def test_an_issuer_may_change_its_keys_but_guesses_are_no_fetches(world: World) -> None:
    assert await world.accepts()
    world.provider.private = {"k2": RSA}
    world.clock.sleep(JWKS_REFETCH_INTERVAL_S)
    assert await world.accepts("k2")
    assert world.fetches == 2
    assert isinstance(await world.verify("k1", key=RSA), Refused), "withdrawn keys count no more"
    for number in range(1_000):
        token = world.provider.token(f"guess-{number}", key=RSA)
        assert isinstance(await world.issuers.verify(token), Refused)
    assert world.fetches == 2
    world.clock.sleep(JWKS_REFETCH_INTERVAL_S)
    assert isinstance(await world.verify("guess", key=RSA), Refused)
    assert world.fetches == 3


@pytest.mark.parametrize(
    "failure", [KeysAwayError("refused"), ConnectionError(), TimeoutError(), RuntimeError("a bug")]
)
async def test_while_an_issuer_is_away_its_keys_count_for_a_while(
    world: World, failure: Exception
) -> None:
    assert await world.accepts()
    world.provider.failure = failure
    world.clock.sleep(JWKS_FRESH_S)
    assert await world.accepts()
    assert await world.accepts()
    assert world.fetches == 2, "it is not asked for every token"
    assert await world.verify("new", key=RSA) == IssuerAway(7), "nobody can say"
    world.clock.sleep(JWKS_STALE_S_MAX - JWKS_FRESH_S - 1)
    assert await world.accepts()
    world.clock.sleep(1)
    assert await world.verify() == IssuerAway(7)
    world.provider.failure = None
    world.clock.sleep(JWKS_REFETCH_INTERVAL_S)
    assert await world.accepts()


async def test_a_slow_issuer_keeps_no_token_of_known_keys_waiting_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.identity.jwks.JWKS_STALE_WAIT_S", 0.01)
    assert await world.accepts()
    world.clock.sleep(JWKS_FRESH_S)
    world.provider.gate = asyncio.Event()
    assert await world.accepts(), "by the old keys"
    world.provider.private = {"k2": RSA}
    waiting = asyncio.create_task(world.verify("k2"))
    world.provider.gate.set()
    assert isinstance(await waiting, IssuedToken), "the same fetch brings the new"
    assert world.fetches == 2


async def test_an_issuer_that_never_answered_is_asked_again_soon(world: World) -> None:
    world.provider.failure = ConnectionError()
    assert await world.verify() == IssuerAway(7)
    assert await world.verify() == IssuerAway(7)
    assert world.fetches == 1
    world.provider.failure = None
    world.clock.sleep(JWKS_RETRY_INTERVAL_S)
    assert await world.accepts()


async def test_an_issuer_that_hangs_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.identity.jwks.JWKS_DEADLINE_S", 0.01)
    world.provider.gate = asyncio.Event()
    assert await world.verify() == IssuerAway(7)


async def test_a_removed_issuer_is_not_believed_from_then_on(world: World) -> None:
    assert await world.accepts()
    world.issuers.replace_issuers([Trusted(account_claim="email")])
    assert isinstance(await world.verify(email="x"), IssuedToken)
    assert world.fetches == 2, "what changed is read anew"
    world.issuers.replace_issuers([Trusted(account_claim="email")])
    assert isinstance(await world.verify(email="x"), IssuedToken)
    assert world.fetches == 2, "what did not is kept"
    world.issuers.replace_issuers([])
    assert isinstance(await world.verify(email="x"), Refused)


async def test_an_issuer_removed_while_its_keys_are_fetched_is_not_believed(world: World) -> None:
    world.provider.gate = asyncio.Event()
    waiting = asyncio.create_task(world.verify())
    await eventually(lambda: world.fetches)
    world.issuers.replace_issuers([])
    world.provider.gate.set()
    assert isinstance(await waiting, Refused | IssuerAway)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"keys": {}}',
        b'{"keys": [' + b"{}," * JWKS_KEYS_MAX + b"{}]}",
        b'{"keys": []' + b" " * JWKS_BYTES_MAX + b"}",
        b"[" * 100_000,
    ],
    ids=range(7),
)
async def test_what_is_no_key_set_replaces_none(world: World, body: bytes) -> None:
    with pytest.raises(KeySetError):
        read_key_set(body, ISSUER_ALGORITHMS)
    world.provider.body = body or b" "
    assert await world.verify() == IssuerAway(7)


def test_keys_that_can_not_be_used_are_left_out() -> None:
    weak = rsa.generate_private_key(65_537, 1_024)
    good = jwk(RSA, "good")
    entries: list[object] = [
        good,
        {**good, "kid": "good", "n": jwk(weak, "x")["n"]},
        jwk(weak, "weak"),
        {**good, "kid": "slow", "e": segment(b"\xff" * 200)},
        {**good, "kid": "huge", "n": segment(b"\xff" * 4_096)},
        {**good, "kid": "encrypts", "use": "enc"},
        {**good, "kid": "signs", "key_ops": ["sign"]},
        {**good, "kid": "private", "d": "AQAB"},
        {**good, "kid": "other", "alg": "RS512"},
        {**good, "kid": "pss", "alg": "PS256"},
        {key: value for key, value in good.items() if key != "kid"},
        {**good, "kid": 5},
        {**good, "kid": "broken", "n": "!"},
        {**good, "kid": "list", "n": [1]},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "shared"},
        jwk(ec.generate_private_key(ec.SECP384R1()), "p384"),
        jwk(ed448.Ed448PrivateKey.generate(), "ed448"),
        jwk(P256, "ec", key_ops=["verify"]),
        jwk(ed25519.Ed25519PrivateKey.generate(), "ed"),
        {"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA", "kid": "off the curve"},
        "text",
        None,
    ]
    found = read_key_set(json.dumps({"keys": entries}).encode(), ISSUER_ALGORITHMS)
    assert set(found) == {
        ("good", "RS256"),
        ("good", "PS256"),
        ("pss", "PS256"),
        ("ec", "ES256"),
        ("ed", "EdDSA"),
    }
    assert found["good", "RS256"] == RSA.public_key(), "the first of a name counts"
    only = read_key_set(json.dumps({"keys": entries}).encode(), ["ES256"])
    assert set(only) == {("ec", "ES256")}


async def test_no_reason_repeats_anything_of_the_token(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.provider.failure = KeysAwayError("refused")
    for token in (
        world.provider.token(sub="canary", exp=1),
        world.provider.token(iss="https://canary.example"),
        world.provider.token("canary", key=RSA),
    ):
        said = repr(await world.issuers.verify(token)) + caplog.text
        assert "canary" not in said
        assert token.rpartition(".")[2] not in said

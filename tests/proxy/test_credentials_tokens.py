"""Signed tokens become principals once, for as long as they are good, and no guess is dear."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from gateway.identity.claims import CLOCK_LEEWAY_S
from gateway.identity.jwks import JWKS_FRESH_S, IssuerKeys, KeysAwayError
from gateway.identity.master_key import new_master_key
from gateway.identity.seal import Sealer
from gateway.identity.signing import Signer
from gateway.identity.tokens import RELOAD_INTERVAL_S, Verifier
from gateway.ledger.rows import KeyRow
from gateway.proxy import tokens as tokens_module
from gateway.proxy.authenticate import LOOKUPS_IN_FLIGHT_MAX, TooManyLookupsError
from gateway.proxy.tokens import (
    REFUSED_MS,
    WAITING_PER_ISSUER_MAX,
    IssuerAwayError,
    Tokens,
)
from policies.apikeys import digest
from tests.support.identity import Clock, Keys, Provider, Trusted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.proxy.authenticate import Principal

PEPPER, DEPLOYMENT, JTI = b"pepper", "d" * 32, "j" * 32
ACCOUNT, KEY = 5, 17
NEVER_MS = 2**52


class Directory:
    """What tokens stand for, in memory."""

    def __init__(self, keys: Keys) -> None:
        self.keys: dict[bytes, KeyRow] = {}
        self.named: dict[tuple[int, int, str], KeyRow] = {}
        self.asked = 0
        self.begun = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.signing_keys = keys.public_keys

    async def find_key(self, digest: bytes) -> KeyRow | None:
        await self._answering()
        return self.keys.get(digest)

    async def issuer_key(
        self, platform_id: int, issuer_id: int, account_name: str
    ) -> KeyRow | None:
        await self._answering()
        return self.named.get((platform_id, issuer_id, account_name))

    async def _answering(self) -> None:
        self.asked += 1
        self.begun.set()
        await (self.gate.wait() if self.gate else asyncio.sleep(0))


def row(kind: str, key_id: int = KEY, **changes: Any) -> KeyRow:
    """A key's row."""
    fields: dict[str, Any] = {
        "key_name": "agent",
        "key_status": "active",
        "expires_ms": 0,
        "digest": b"d" * 32,
        "account_id": ACCOUNT,
        "account_name": "alice",
        "account_status": "active",
        "platform_id": 3,
        "platform_slug": "demo",
        "discount": 0,
        "routes": (),
        "addresses": (),
        "guard_version": 0,
        **changes,
    }
    return KeyRow(key_id=key_id, kind=kind, **fields)


class World:
    """A worker that knows one delegated key, and trusts one issuer of tokens for alice."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.keys = Keys()
        self.signer = Signer(
            self.keys, Sealer((new_master_key(),)), DEPLOYMENT, clock_ms=self.clock.now_ms
        )
        self.provider = Provider(self.clock)
        self.directory = Directory(self.keys)
        self.directory.keys[digest(JTI, PEPPER)] = row("delegated")
        self.directory.named[3, 7, "alice"] = row("issuer", KEY + 1)
        self.tokens = Tokens(
            self.directory,
            PEPPER,
            lambda account_id: cast("Any", SimpleNamespace(account_id=account_id)),
            Verifier(DEPLOYMENT, clock_ms=self.clock.now_ms, monotonic_s=self.clock.now_s),
            IssuerKeys(
                self.provider.fetch, clock_ms=self.clock.now_ms, monotonic_s=self.clock.now_s
            ),
            self.clock.now_ms,
        )
        self.trust(Trusted())

    def trust(self, *issuers: Trusted) -> None:
        self.tokens.replace_identity(list(self.keys.kept), issuers)

    async def delegated(self, seconds: int = 3_600, *, jti: str = JTI, **more: Any) -> str:
        """A delegated token; what is told besides replaces what it says."""
        expires_ms = self.clock.ms + seconds * 1000
        named = {"account_id": ACCOUNT, "key_id": KEY, "jti": jti, **more}
        return (await self.signer.delegated_token(**named, expires_ms=expires_ms)).text

    async def look_up(self, token: str) -> Principal | None:
        return await self.tokens.look_up(token.encode())


@pytest.fixture
def world() -> World:
    return World()


async def test_a_delegated_token_is_looked_up_once_as_the_key_that_it_names(world: World) -> None:
    token = await world.delegated()
    first = await world.look_up(token)
    assert first is not None
    assert (first.account_id, first.key_id) == (ACCOUNT, b"17")
    assert await world.look_up(token) is first
    assert world.directory.asked == 1


async def test_a_platforms_token_is_looked_up_once_as_its_account(world: World) -> None:
    token = world.provider.token()
    first = await world.look_up(token)
    assert first is not None
    assert first.key_id == b"18"
    assert await world.look_up(token) is first
    assert (world.directory.asked, len(world.provider.asked)) == (1, 1)


@pytest.mark.parametrize("ours", [True, False])
async def test_a_token_that_is_known_is_refused_once_it_has_expired(
    world: World, *, ours: bool
) -> None:
    end_s = world.clock.ms // 1000 + 60
    token = await world.delegated(60) if ours else world.provider.token(exp=end_s)
    principal = await world.look_up(token)
    assert principal is not None
    assert principal.usable_until_ms == (end_s + CLOCK_LEEWAY_S) * 1000
    world.clock.sleep(60 + CLOCK_LEEWAY_S - 1)
    assert await world.look_up(token) is principal
    world.clock.sleep(1)
    assert await world.look_up(token) is None


async def test_a_belief_is_renewed_now_and_then(world: World) -> None:
    token = world.provider.token(exp=world.clock.ms // 1000 + 3_600)
    assert await world.look_up(token)
    world.provider.private = {}  # it has taken its key back
    world.clock.sleep(JWKS_FRESH_S)
    assert await world.look_up(token) is None


@pytest.mark.parametrize(
    "said",
    [
        {"account_id": ACCOUNT + 1},
        {"key_id": KEY + 1},
        {"jti": "k" * 32},
    ],
)
async def test_a_token_stands_for_exactly_the_key_that_it_names(
    world: World, said: dict[str, Any]
) -> None:
    assert await world.look_up(await world.delegated(**said)) is None


@pytest.mark.parametrize("kind", ["key", "issuer"])
async def test_no_token_stands_for_another_kind_of_key(world: World, kind: str) -> None:
    world.directory.keys[digest(JTI, PEPPER)] = row(kind)
    assert await world.look_up(await world.delegated()) is None


async def test_an_access_token_is_for_the_api(world: World) -> None:
    token = (await world.signer.access_token("5" * 32, 9, expires_ms_max=NEVER_MS)).text
    assert await world.look_up(token) is None
    assert world.directory.asked == 0


@pytest.mark.parametrize(
    ("claimed", "kept", "allowed"),
    [
        (None, (), None),
        (("chat",), (), {"chat"}),
        (None, ("chat", "search"), {"chat", "search"}),
        (("chat", "image"), ("chat", "search"), {"chat"}),
        (("image",), ("chat",), set()),
    ],
)
async def test_a_token_and_its_key_both_narrow(
    world: World,
    claimed: Sequence[str] | None,
    kept: tuple[str, ...],
    allowed: set[str] | None,
) -> None:
    world.directory.keys[digest(JTI, PEPPER)] = row("delegated", routes=kept, guard_version=4)
    principal = await world.look_up(await world.delegated(routes=claimed))
    assert principal is not None
    assert principal.guard_version == 4
    if allowed is None:
        assert principal.guard is None
    else:
        assert principal.guard is not None
        assert principal.guard.routes == allowed


async def test_a_key_that_was_made_just_now_is_loaded_and_guesses_are_not(world: World) -> None:
    token = await world.delegated()
    assert await world.look_up(token) is not None  # the worker knew no key yet
    assert world.keys.asked == 1
    stranger = World()
    guesses = [await stranger.delegated(jti=f"{number:032x}") for number in range(20)]
    found = await asyncio.gather(*(world.look_up(guess) for guess in guesses))
    assert found == [None] * 20
    assert world.keys.asked == 1
    world.clock.sleep(RELOAD_INTERVAL_S)
    assert await asyncio.gather(*(world.look_up(guess) for guess in guesses)) == [None] * 20
    assert world.keys.asked == 2


async def test_a_bad_token_is_verified_once_in_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    verified = []
    issued = world.tokens._verified

    async def counted(text: str) -> Any:
        verified.append(text)
        return await issued(text)

    monkeypatch.setattr(world.tokens, "_verified", counted)
    token = world.provider.token(aud="tollkeeper:other")
    for _ in range(5):
        assert await world.look_up(token) is None
    assert len(verified) == 1
    world.clock.sleep(REFUSED_MS // 1000)
    assert await world.look_up(token) is None
    assert len(verified) == 2


async def test_what_is_known_of_tokens_is_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens_module, "BELIEVED_MAX", 3)
    monkeypatch.setattr(tokens_module, "REFUSED_MAX", 3)
    for number in range(9):
        assert await world.look_up(world.provider.token(number=number)) is not None
        assert await world.look_up(world.provider.token(number=number, aud="other")) is None
    assert (len(world.tokens._believed), len(world.tokens._refused)) == (3, 3)


async def test_callers_with_one_token_wait_for_one_look_up(world: World) -> None:
    token = world.provider.token()
    found = await asyncio.gather(*(world.look_up(token) for _ in range(20)))
    assert len(set(found)) == 1
    assert world.directory.asked == 1


async def test_a_callers_leaving_does_not_end_it_for_others(world: World) -> None:
    token, world.directory.gate = world.provider.token(), asyncio.Event()
    one, two = (asyncio.create_task(world.look_up(token)) for _ in range(2))
    await world.directory.begun.wait()
    one.cancel()
    world.directory.gate.set()
    assert await two is not None


async def test_look_ups_under_way_are_bounded(world: World) -> None:
    world.directory.gate = asyncio.Event()
    assert await world.tokens._issuers.verify(world.provider.token())  # its keys are here
    tokens = [world.provider.token(number=number) for number in range(LOOKUPS_IN_FLIGHT_MAX + 1)]
    tasks = [asyncio.create_task(world.look_up(token)) for token in tokens]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    world.directory.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(one) for one in found].count(TooManyLookupsError) == 1
    assert await world.look_up(tokens[-1]) is not None


async def test_a_slow_issuer_holds_up_its_own_tokens_only(world: World) -> None:
    world.provider.gate = asyncio.Event()
    tokens = [world.provider.token(number=number) for number in range(WAITING_PER_ISSUER_MAX + 1)]
    tasks = [asyncio.create_task(world.look_up(token)) for token in tokens]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [type(task.exception()) for task in done] == [TooManyLookupsError]
    assert await world.look_up(await world.delegated()) is not None
    world.provider.gate.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(one is not None and not isinstance(one, Exception) for one in found) == (
        WAITING_PER_ISSUER_MAX
    )
    assert len(world.provider.asked) == 1
    assert not world.tokens._waiting
    assert not world.tokens._under_way


async def test_an_issuer_that_is_away_is_no_refusal(world: World) -> None:
    token = world.provider.token()
    world.provider.failure = KeysAwayError("gone")
    with pytest.raises(IssuerAwayError):
        await world.look_up(token)
    world.provider.failure = None
    world.clock.sleep(60)
    assert await world.look_up(token) is not None


async def test_an_account_can_be_named_as_soon_as_it_is_there(world: World) -> None:
    token = world.provider.token(sub="bob")
    assert await world.look_up(token) is None
    world.directory.named[3, 7, "bob"] = row("issuer", KEY + 2)
    assert await world.look_up(token) is not None


async def test_who_is_trusted_no_more_is_refused_on_the_next_call(world: World) -> None:
    issued, delegated = world.provider.token(), await world.delegated()
    assert await world.look_up(issued)
    assert await world.look_up(delegated)
    world.trust()
    assert await world.look_up(issued) is None
    assert await world.look_up(delegated)
    world.trust(Trusted())
    assert await world.look_up(issued), "a refusal is not remembered either"
    world.keys.kept.clear()
    world.trust(Trusted())
    assert await world.look_up(delegated) is None
    asked = world.directory.asked
    world.trust(Trusted())
    assert await world.look_up(issued)
    assert world.directory.asked == asked + 1
    world.trust(Trusted())  # as it was: what is known stays
    assert await world.look_up(issued)
    assert world.directory.asked == asked + 1


async def test_what_was_verified_before_a_change_is_not_remembered_after_it(world: World) -> None:
    token, world.directory.gate = world.provider.token(), asyncio.Event()
    task = asyncio.create_task(world.look_up(token))
    await world.directory.begun.wait()
    world.trust()
    world.directory.gate.set()
    assert await task is not None  # it was good when it was shown
    assert await world.look_up(token) is None


async def test_nothing_of_a_token_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    bad = await world.delegated(jti="k" * 32), world.provider.token(sub="eve", aud="elsewhere")
    for token in bad:
        assert await world.look_up(token) is None
        assert not any(part in caplog.text for part in token.split("."))
    assert "eve" not in caplog.text
    assert len(caplog.records) == 2

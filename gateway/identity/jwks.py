"""Tokens of platforms' own issuers, and the keys that those are verified with.

A token's audience `tollkeeper:<slug>` names the platform, and its `iss` an issuer that the platform
registered; that issuer's keys come from the URL registered with it, never from one that the token
names. The claim registered with it is the name of the account.

Keys are asked for at most so often, whatever tokens come:

| keys                    | asked for again after               | meanwhile, tokens               |
| ----------------------- | ----------------------------------- | ------------------------------- |
| none                    | a failure: JWKS_RETRY_INTERVAL_S    | wait                            |
| younger than FRESH_S    | an unknown kid: REFETCH_INTERVAL_S  | of it wait, others pass         |
| younger than STALE_S_MAX| any: REFETCH_INTERVAL_S             | wait JWKS_STALE_WAIT_S, or pass |
| older                   | as if there were none               |                                 |
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

import jwt

from gateway.clock import now_ms
from gateway.identity.claims import Envelope, Refused, read_envelope, read_expiry_ms
from gateway.identity.flight import OneFlight
from gateway.identity.key_set import IssuerKey, KeySetError, read_key_set

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import Any

    from jwt.types import Options

JWKS_FRESH_S = 600.0
JWKS_REFETCH_INTERVAL_S = 60.0
JWKS_RETRY_INTERVAL_S = 5.0
JWKS_STALE_S_MAX = 21_600.0
JWKS_STALE_WAIT_S = 1.0
JWKS_DEADLINE_S = 5.0
ISSUED_TOKEN_BYTES_MAX = 8_192
ISSUED_TOKEN_S_MAX = 86_400
ACCOUNT_NAME_CHARACTERS_MAX = 200
PLATFORM_AUDIENCE_PREFIX = "tollkeeper:"

_OPTIONS: Options = {
    "require": ["exp", "iss", "aud"],
    "enforce_minimum_key_length": True,
    # Another claim than these may name the account; times are read in claims.py.
    "verify_sub": False,
    "verify_jti": False,
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}

log = logging.getLogger("tollkeeper.identity")


class KeysAwayError(Exception):
    """An issuer's keys could not be fetched; what the injected `fetch` raises."""


class IssuedToken(NamedTuple):
    """For which account of which platform an issuer speaks."""

    platform_id: int
    issuer_id: int
    account_name: str
    expires_ms: int


class IssuerAway(NamedTuple):
    """Nobody can say whether the token is good: the issuer's keys can't be had now."""

    issuer_id: int


class TrustedIssuer(Protocol):
    """An active issuer as the ledger has it; comparable."""

    @property
    def issuer_id(self) -> int:
        """Its id with us."""

    @property
    def platform_id(self) -> int:
        """Whose accounts it names."""

    @property
    def platform_slug(self) -> str:
        """The same platform as tokens name it."""

    @property
    def issuer(self) -> str:
        """Its tokens' `iss`."""

    @property
    def jwks_url(self) -> str:
        """Where its keys are."""

    @property
    def account_claim(self) -> str:
        """Which claim is the account's name."""

    @property
    def algorithms(self) -> Sequence[str]:
        """What it signs with."""


class IssuerKeys:
    """Believes tokens of registered issuers; keeps their keys.

    `fetch` answers what is at a URL, of JWKS_BYTES_MAX bytes at most, without following it into
    places that owners may not reach; it raises KeysAwayError, OSError or TimeoutError.
    """

    def __init__(
        self,
        fetch: Callable[[str], Awaitable[bytes]],
        *,
        clock_ms: Callable[[], int] = now_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch = fetch
        self._clock_ms = clock_ms
        self._monotonic_s = monotonic_s
        self._issuers: dict[tuple[str, str], _Issuer] = {}

    def replace_issuers(self, issuers: Iterable[TrustedIssuer]) -> None:
        """Trust these and no others; of those that are as they were, keys stay known."""
        before = self._issuers
        self._issuers = {}
        for facts in issuers:
            name = (facts.platform_slug, facts.issuer)
            known = before.get(name)
            same = known is not None and known.facts == facts
            self._issuers[name] = known if known is not None and same else _Issuer(facts)
        for name, issuer in before.items():
            if self._issuers.get(name) is not issuer:
                issuer.flight.cancel()

    async def close(self) -> None:
        """End fetches that are under way."""
        await asyncio.gather(*(issuer.flight.close() for issuer in self._issuers.values()))

    async def verify(self, text: str) -> IssuedToken | IssuerAway | Refused:
        """For whom a token speaks. Asks nobody for a token of an issuer that is not registered."""
        envelope = read_envelope(text, ISSUED_TOKEN_BYTES_MAX)
        if isinstance(envelope, Refused):
            return envelope
        name = _name_of(envelope)
        issuer = self._issuers.get(name) if name else None
        if issuer is None or name is None:
            return Refused("no registered issuer, or not one platform")
        if envelope.algorithm not in issuer.facts.algorithms:
            return Refused("an algorithm that the issuer is not trusted with")
        key = await self._key(issuer, envelope)
        if isinstance(key, IssuerAway | Refused):
            return key
        if self._issuers.get(name) is not issuer:
            return Refused("an issuer that was removed just now")
        return self._verified(text, envelope.algorithm, key, issuer.facts)

    def _verified(
        self, text: str, algorithm: str, key: IssuerKey, facts: TrustedIssuer
    ) -> IssuedToken | Refused:
        try:
            claims = jwt.decode(
                text,
                key,
                algorithms=[algorithm],  # one of the issuer's, and the key is for it
                audience=PLATFORM_AUDIENCE_PREFIX + facts.platform_slug,
                issuer=facts.issuer,
                options=_OPTIONS,
            )
        except jwt.PyJWTError as error:
            return Refused(type(error).__name__)
        expires_ms = read_expiry_ms(claims, self._clock_ms(), ISSUED_TOKEN_S_MAX)
        if isinstance(expires_ms, Refused):
            return expires_ms
        account = _account_of(claims, facts.account_claim)
        if account is None:
            return Refused("no account's name in its claim")
        return IssuedToken(facts.platform_id, facts.issuer_id, account, expires_ms)

    async def _key(self, issuer: _Issuer, envelope: Envelope) -> IssuerKey | IssuerAway | Refused:
        name = (envelope.key_id, envelope.algorithm)
        if not issuer.is_known(self._monotonic_s(), JWKS_FRESH_S):
            await self._ask(issuer)
        if issuer.is_known(self._monotonic_s(), JWKS_STALE_S_MAX) and name not in issuer.keys:
            await self._ask(issuer, patient=True)
        known = issuer.is_known(self._monotonic_s(), JWKS_STALE_S_MAX)
        if not known or (name not in issuer.keys and issuer.asked_s != issuer.known_s):
            return IssuerAway(issuer.facts.issuer_id)
        return issuer.keys.get(name) or Refused("a key that the issuer does not have")

    async def _ask(self, issuer: _Issuer, *, patient: bool = False) -> None:
        """Fetch the issuer's keys, if it is time to; `patient`: old ones will not do instead."""
        now_s = self._monotonic_s()
        usable = issuer.is_known(now_s, JWKS_STALE_S_MAX)
        if issuer.flight.under_way or issuer.is_due(now_s, usable=usable):
            wait_s = JWKS_STALE_WAIT_S if usable and not patient else None
            await issuer.flight.join(lambda: self._renew(issuer), wait_s)

    async def _renew(self, issuer: _Issuer) -> None:
        facts, begun_s = issuer.facts, self._monotonic_s()
        issuer.asked_s = begun_s
        try:
            async with asyncio.timeout(JWKS_DEADLINE_S):
                body = await self._fetch(facts.jwks_url)
            issuer.keys = read_key_set(body, facts.algorithms)
        except (KeysAwayError, KeySetError, OSError) as error:
            log.warning(
                "no keys of issuer %d: %s: %s", facts.issuer_id, type(error).__name__, error
            )
        except Exception:
            log.exception("no keys of issuer %d", facts.issuer_id)
        else:
            issuer.known_s = begun_s


class _Issuer:
    """An issuer, and what is known of its keys."""

    __slots__ = ("asked_s", "facts", "flight", "keys", "known_s")

    def __init__(self, facts: TrustedIssuer) -> None:
        self.facts = facts
        self.keys: Mapping[tuple[str, str], IssuerKey] = {}
        self.known_s: float | None = None  # when `keys` were asked for
        self.asked_s: float | None = None  # in vain or not
        self.flight = OneFlight()

    def is_known(self, now_s: float, age_s_max: float) -> bool:
        """Whether its keys were read so recently."""
        return self.known_s is not None and now_s - self.known_s < age_s_max

    def is_due(self, now_s: float, *, usable: bool) -> bool:
        """Whether it may be asked again."""
        interval_s = JWKS_REFETCH_INTERVAL_S if usable else JWKS_RETRY_INTERVAL_S
        return self.asked_s is None or now_s - self.asked_s >= interval_s


def _name_of(envelope: Envelope) -> tuple[str, str] | None:
    """Platform's slug and issuer; None where the token is for no platform, or for several."""
    ours = [one for one in envelope.audiences if one.startswith(PLATFORM_AUDIENCE_PREFIX)]
    if len(ours) != 1:
        return None
    return ours[0].removeprefix(PLATFORM_AUDIENCE_PREFIX), envelope.issuer


def _account_of(claims: Mapping[str, Any], claim: str) -> str | None:
    name = claims.get(claim)
    if not isinstance(name, str) or not 0 < len(name) <= ACCOUNT_NAME_CHARACTERS_MAX:
        return None
    return name if name.isprintable() and name == name.strip() else None

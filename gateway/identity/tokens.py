"""Our own tokens: what they say, and whether to believe one.

An *access token* is shown to the API by who logged in; it names the login session. A *delegated
token* is shown to the proxy by an agent; it names an API key of its own, and perhaps the routes it
is for. Both are JWTs signed with Ed25519 (RFC 8037) and differ in their audience, so that neither
passes for the other. Whether the session lives and the key may call is decided elsewhere, every
time.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import jwt
from jwt.algorithms import OKPAlgorithm

from gateway.clock import now_ms
from gateway.identity.claims import CLOCK_LEEWAY_S, Refused, read_envelope, read_expiry_ms
from gateway.identity.flight import OneFlight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from jwt.types import Options

ALGORITHM = "EdDSA"
CONTROL_AUDIENCE = "tollkeeper:control"
PROXY_AUDIENCE = "tollkeeper"
TOKEN_BYTES_MAX = 4_096
ACCESS_TOKEN_S = 600
DELEGATED_TOKEN_S_MAX = 86_400
ROUTES_MAX = 32
# How long tokens of a retired key are believed: until the last of them has expired anywhere.
RETIRED_KEPT_S = DELEGATED_TOKEN_S_MAX + 2 * CLOCK_LEEWAY_S
# How often a token of an unknown key may have the keys loaded again: else guesses are queries.
RELOAD_INTERVAL_S = 1.0

_ISSUER_PREFIX = "tollkeeper:"
_ID_DIGITS_MAX = 19
_OPTIONS: Options = {
    "require": ["exp", "iat", "iss", "aud", "sub", "jti"],
    "strict_aud": True,
    # By our own clock, in claims.py.
    "verify_exp": False,
    "verify_iat": False,
    "verify_nbf": False,
}


class AccessToken(NamedTuple):
    """Who logged in: the session, and the API token that it was begun with."""

    session_id: str  # 32 hex digits
    token_id: int
    jti: str
    expires_ms: int


class DelegatedToken(NamedTuple):
    """A key of an agent; `routes` None: all that the key is for."""

    account_id: int
    key_id: int
    jti: str
    routes: tuple[str, ...] | None
    expires_ms: int


class UnknownKey(NamedTuple):
    """A token of a key that is not known here; perhaps of one that was made just now."""

    key_id: str


class PublicKey(Protocol):
    """A public key as the ledger has it."""

    @property
    def kid(self) -> str:
        """Its id."""

    @property
    def public_jwk(self) -> Mapping[str, Any]:
        """The key (RFC 7517)."""


T = TypeVar("T")


def issuer_of(deployment: str) -> str:
    """What tokens of a deployment have as `iss`."""
    return _ISSUER_PREFIX + deployment


def new_jti() -> str:
    """An id for a token, 128 random bits."""
    return secrets.token_hex(16)


class Verifier:
    """Believes tokens of one deployment by its public keys."""

    def __init__(
        self,
        deployment: str,
        *,
        clock_ms: Callable[[], int] = now_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer_of(deployment)
        self._clock_ms = clock_ms
        self._monotonic_s = monotonic_s
        self._keys: dict[str, Ed25519PublicKey] = {}
        self._loading = OneFlight()
        self._loaded_s: float | None = None

    def replace_keys(self, keys: Iterable[PublicKey]) -> None:
        """Believe these and no others."""
        self._keys = {
            key.kid: OKPAlgorithm.from_jwk(dict(key.public_jwk))  # type: ignore[misc] # no private
            for key in keys
        }

    async def reload(self, load: Callable[[], Awaitable[Iterable[PublicKey]]]) -> bool:
        """Load the keys again after `UnknownKey`; False: they were, just now, so don't ask again.

        Who comes while they are loaded waits for the same. Raises: what `load` raises.
        """

        async def work() -> None:
            begun_s = self._monotonic_s()
            self.replace_keys(await load())
            self._loaded_s = begun_s

        last = self._loaded_s
        due = last is None or self._monotonic_s() - last >= RELOAD_INTERVAL_S
        if not due and not self._loading.under_way:
            return False
        await self._loading.join(work)
        return True

    def access(self, text: str) -> AccessToken | UnknownKey | Refused:
        """Who shows this token to the API."""
        return self._believe(text, CONTROL_AUDIENCE, ACCESS_TOKEN_S, _access_of)

    def delegated(self, text: str) -> DelegatedToken | UnknownKey | Refused:
        """Who shows this token to the proxy."""
        return self._believe(text, PROXY_AUDIENCE, DELEGATED_TOKEN_S_MAX, _delegated_of)

    def _believe(
        self,
        text: str,
        audience: str,
        life_s_max: int,
        read: Callable[[Mapping[str, Any], int], T | None],
    ) -> T | UnknownKey | Refused:
        envelope = read_envelope(text, TOKEN_BYTES_MAX)
        if isinstance(envelope, Refused):
            return envelope
        if (envelope.algorithm, envelope.issuer) != (ALGORITHM, self.issuer):
            return Refused("of another issuer or algorithm")
        key = self._keys.get(envelope.key_id)
        if key is None:
            return UnknownKey(envelope.key_id)
        try:
            claims = jwt.decode(
                text,
                key,
                algorithms=[ALGORITHM],
                audience=audience,
                issuer=self.issuer,
                options=_OPTIONS,
            )
        except jwt.PyJWTError as error:
            return Refused(type(error).__name__)
        expires_ms = read_expiry_ms(claims, self._clock_ms(), life_s_max)
        if isinstance(expires_ms, Refused):
            return expires_ms
        return read(claims, expires_ms) or Refused("claims that are not ours")


def _access_of(claims: Mapping[str, Any], expires_ms: int) -> AccessToken | None:
    session_id, token_id = claims.get("sid"), _id_of(claims["sub"])
    if not isinstance(session_id, str) or token_id is None:
        return None
    return AccessToken(session_id, token_id, claims["jti"], expires_ms)


def _delegated_of(claims: Mapping[str, Any], expires_ms: int) -> DelegatedToken | None:
    account_id, key_id, routes = _id_of(claims["sub"]), claims.get("key"), claims.get("routes")
    if account_id is None or type(key_id) is not int:
        return None
    if routes is not None:
        if not isinstance(routes, list) or not all(isinstance(name, str) for name in routes):
            return None
        routes = tuple(routes)
    return DelegatedToken(account_id, key_id, claims["jti"], routes, expires_ms)


def _id_of(subject: str) -> int | None:
    fits = len(subject) <= _ID_DIGITS_MAX and subject.isascii() and subject.isdecimal()
    return int(subject) if fits else None

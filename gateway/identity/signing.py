"""Signing keys: Ed25519 pairs in Postgres, private halves sealed with the master key.

One key signs at a time, on all nodes: each signature asks Postgres which one, so that a retired key
signs nothing more. Rotating makes a new one and destroys the private halves of the others; their
public halves stay for as long as tokens of theirs can be good (RETIRED_KEPT_S).
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.clock import now_ms
from gateway.identity.tokens import (
    ACCESS_TOKEN_S,
    ALGORITHM,
    CONTROL_AUDIENCE,
    DELEGATED_TOKEN_S_MAX,
    PROXY_AUDIENCE,
    ROUTES_MAX,
    TOKEN_BYTES_MAX,
    issuer_of,
    new_jti,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from gateway.identity.seal import Sealer
    from gateway.identity.tokens import PublicKey


class StoredKey(Protocol):
    """The key that signs, as the ledger has it."""

    @property
    def kid(self) -> str:
        """Its id."""

    @property
    def sealed_private(self) -> bytes:
        """Its private half."""


class KeyStore(Protocol):
    """Where signing keys are: `Ledger`."""

    async def signing_key(self) -> StoredKey | None:
        """The key that signs now."""

    async def add_first_signing_key(
        self, kid: str, public_jwk: Mapping[str, Any], sealed_private: bytes
    ) -> int | None:
        """Let this key sign, unless one does; answers the catalogue's version, or None."""

    async def replace_signing_key(
        self, kid: str, public_jwk: Mapping[str, Any], sealed_private: bytes
    ) -> int:
        """Let this key sign and retire all others; answers the catalogue's version."""


class NewPair(NamedTuple):
    """A key pair just made; its private half only sealed."""

    kid: str
    public_jwk: dict[str, str]
    sealed_private: bytes


class SignedToken(NamedTuple):
    """A token just signed. `text` is a credential: show it once, keep it nowhere."""

    text: str
    expires_ms: int

    def __repr__(self) -> str:
        return f"SignedToken(…, expires_ms={self.expires_ms})"


class Signer:
    """Signs our tokens with whichever key is to sign now. For the control plane."""

    def __init__(
        self,
        store: KeyStore,
        sealer: Sealer,
        deployment: str,
        *,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._issuer = issuer_of(deployment)
        self._clock_ms = clock_ms
        self._opened: tuple[str, Ed25519PrivateKey] | None = None

    async def start(self) -> None:
        """Have a key: the first is made here, once, however many nodes start.

        Raises: NotConfiguredError; CannotOpenError when the master key is not the one it was.
        """
        await self._key()

    async def rotate(self) -> int:
        """Sign with a new key from now on; answers the catalogue's version with it.

        Raises: NotConfiguredError.
        """
        return await self._store.replace_signing_key(*new_pair(self._sealer))

    async def access_token(
        self, session_id: str, token_id: int, *, expires_ms_max: int
    ) -> SignedToken:
        """Short-lived proof of a login, over with the session at the latest.

        Raises: NotConfiguredError, CannotOpenError.
        """
        expires_s = min(self._now_s() + ACCESS_TOKEN_S, expires_ms_max // 1000)
        claims = {"aud": CONTROL_AUDIENCE, "sub": str(token_id), "sid": session_id}
        return await self._sign(claims, new_jti(), expires_s)

    async def delegated_token(
        self,
        account_id: int,
        key_id: int,
        jti: str,
        *,
        expires_ms: int,
        routes: Sequence[str] | None = None,
    ) -> SignedToken:
        """What an agent shows the proxy: a key of its own, narrowed to routes where they are told.

        It ends at the last whole second before `expires_ms`.
        Raises: ValueError for too long a life, too many routes, or none; NotConfiguredError,
        CannotOpenError.
        """
        expires_s = expires_ms // 1000
        if expires_s - self._now_s() > DELEGATED_TOKEN_S_MAX:
            raise ValueError(f"a delegated token is good for {DELEGATED_TOKEN_S_MAX} s at most")
        claims: dict[str, Any] = {"aud": PROXY_AUDIENCE, "sub": str(account_id), "key": key_id}
        if routes is not None:
            if not 0 < len(routes) <= ROUTES_MAX:
                raise ValueError(f"a delegated token is for 1 to {ROUTES_MAX} routes")
            claims["routes"] = list(routes)
        return await self._sign(claims, jti, expires_s)

    async def _sign(self, claims: Mapping[str, Any], jti: str, expires_s: int) -> SignedToken:
        kid, private = await self._key()
        now_s = self._now_s()
        text = jwt.encode(
            {"iss": self._issuer, "jti": jti, "iat": now_s, "exp": expires_s, **claims},
            private,
            algorithm=ALGORITHM,
            headers={"kid": kid},
        )
        if len(text) > TOKEN_BYTES_MAX:
            raise ValueError(f"the token would be longer than {TOKEN_BYTES_MAX} bytes")
        return SignedToken(text, expires_s * 1000)

    async def _key(self) -> tuple[str, Ed25519PrivateKey]:
        stored = await self._store.signing_key()
        if stored is None:
            await self._store.add_first_signing_key(*new_pair(self._sealer))
            stored = await self._store.signing_key()
            if stored is None:
                raise RuntimeError("the signing key is gone as soon as it is made")
        if self._opened is None or self._opened[0] != stored.kid:
            private = Ed25519PrivateKey.from_private_bytes(self._sealer.open(stored.sealed_private))
            self._opened = stored.kid, private
        return self._opened

    def _now_s(self) -> int:
        return self._clock_ms() // 1000


def new_pair(sealer: Sealer) -> NewPair:
    """A key pair nobody has; its id is the key's thumbprint (RFC 7638).

    Raises: NotConfiguredError.
    """
    private = Ed25519PrivateKey.generate()
    key = {"crv": "Ed25519", "kty": "OKP", "x": _base64(private.public_key().public_bytes_raw())}
    kid = _base64(hashlib.sha256(orjson.dumps(key, option=orjson.OPT_SORT_KEYS)).digest())
    public_jwk = {**key, "kid": kid, "alg": ALGORITHM, "use": "sig"}
    return NewPair(kid, public_jwk, sealer.seal(private.private_bytes_raw()))


def jwks_document(keys: Iterable[PublicKey]) -> dict[str, Any]:
    """What others verify our tokens with (RFC 7517, 5)."""
    return {"keys": [dict(key.public_jwk) for key in keys]}


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()

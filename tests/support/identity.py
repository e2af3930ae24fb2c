"""Signing keys and identity providers that live in memory, and clocks that tests move."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NOW_MS = 1_790_000_000_000
ISSUER = "https://id.example"
JWKS_URL = "https://id.example/jwks"


class Clock:
    """Both clocks, moved together."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now_ms(self) -> int:
        return self.ms

    def now_s(self) -> float:
        return self.ms / 1000

    def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


class Kept(NamedTuple):
    kid: str
    public_jwk: Mapping[str, Any]
    sealed_private: bytes


class Keys:
    """Signing keys as the ledger keeps them."""

    def __init__(self) -> None:
        self.kept: list[Kept] = []
        self.signing: Kept | None = None
        self.asked = 0

    async def signing_key(self) -> Kept | None:
        return self.signing

    async def add_first_signing_key(
        self, kid: str, public_jwk: Mapping[str, Any], sealed_private: bytes
    ) -> int | None:
        if self.signing is not None:
            return None
        return await self.replace_signing_key(kid, public_jwk, sealed_private)

    async def replace_signing_key(
        self, kid: str, public_jwk: Mapping[str, Any], sealed_private: bytes
    ) -> int:
        self.signing = Kept(kid, public_jwk, sealed_private)
        self.kept.append(self.signing)
        return len(self.kept)

    async def public_keys(self) -> list[Kept]:
        self.asked += 1
        await asyncio.sleep(0)
        return list(self.kept)


class Trusted(NamedTuple):
    """A registered issuer."""

    issuer_id: int = 7
    platform_id: int = 3
    platform_slug: str = "demo"
    issuer: str = ISSUER
    jwks_url: str = JWKS_URL
    account_claim: str = "sub"
    algorithms: Sequence[str] = ("RS256", "ES256", "EdDSA", "PS256")


RSA = rsa.generate_private_key(65_537, 2_048)
P256 = ec.generate_private_key(ec.SECP256R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()


def jwk(private: Any, kid: str, **more: object) -> dict[str, Any]:
    """The public half as an entry of a key set."""
    kind = {rsa.RSAPrivateKey: "RSA", ec.EllipticCurvePrivateKey: "EC"}
    name = next((name for base, name in kind.items() if isinstance(private, base)), "OKP")
    algorithm = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[name]
    public = jwt.get_algorithm_by_name(algorithm).to_jwk(private.public_key(), as_dict=True)
    return {**public, "kid": kid, "use": "sig", **more}


def segment(value: object) -> str:
    content = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


class Provider:
    """An identity provider: answers its key set when asked, as long as it is there."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.private: dict[str, Any] = {"k1": RSA}
        self.asked: list[str] = []
        self.failure: Exception | None = None
        self.body: bytes | None = None
        self.gate: asyncio.Event | None = None

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await (self.gate.wait() if self.gate else asyncio.sleep(0))
        if self.failure:
            raise self.failure
        keys = [jwk(private, kid) for kid, private in self.private.items()]
        return self.body or json.dumps({"keys": keys}).encode()

    def token(
        self, kid: str = "k1", algorithm: str = "RS256", *, key: Any = None, **claims: Any
    ) -> str:
        """A good token but for what is told; a claim of None is left out."""
        now_s = self.clock.ms // 1000
        whole = {
            "iss": ISSUER,
            "aud": "tollkeeper:demo",
            "sub": "alice",
            "iat": now_s,
            "exp": now_s + 300,
            **claims,
        }
        whole = {name: value for name, value in whole.items() if value is not None}
        key = key or self.private[kid]
        return jwt.encode(whole, key, algorithm, headers={"kid": kid})

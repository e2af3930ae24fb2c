"""What is kept sealed: owners' secrets and the private halves of signing keys.

Nothing here can open them (gateway/identity does), and the API can't even read them back.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.config.references import SECRET_PREFIX
from gateway.ledger.catalog import announce, lock_catalog
from gateway.ledger.database import Database, Session, rows

if TYPE_CHECKING:
    from collections.abc import Mapping

# As long as tokens of a retired key are believed: RETIRED_KEPT_S of gateway/identity/tokens.py.
RETIRED_KEPT_MS = 86_460_000


class SecretRow(NamedTuple):
    """A secret as people see it."""

    name: str
    created_ms: int
    updated_ms: int


class SecretInUse(NamedTuple):
    """Routes in service that send a secret to their agents, by name; and whether Stripe's key."""

    routes: tuple[str, ...]
    by_stripe: bool = False


class SealedSecret(NamedTuple):
    """A secret as workers get it."""

    secret_id: int
    platform_id: int
    name: str
    sealed: bytes


class SigningKeyRow(NamedTuple):
    """The key that signs."""

    kid: str
    sealed_private: bytes


class PublicKeyRow(NamedTuple):
    """A key whose tokens may be good."""

    kid: str
    public_jwk: dict[str, Any]


class Sealed(Database):
    """Secrets and signing keys. Workers serve by them: changes answer the catalogue's version."""

    async def secrets(self, platform_id: int) -> list[SecretRow]:
        """A platform's secrets by name."""
        return rows(SecretRow, await self._session.all("secret_list", platform_id, None))

    async def secret(self, platform_id: int, name: str) -> SecretRow | None:
        """The platform's secret of this name."""
        record = await self._session.one("secret_list", platform_id, name)
        return SecretRow(**record) if record else None

    async def set_secret(self, platform_id: int, name: str, sealed: bytes) -> int:
        """Keep a secret, or another value of one."""
        async with self.transaction() as session:
            await session.value("secret_set", platform_id, name, sealed)
            return await announce(session, "")

    async def delete_secret(self, platform_id: int, name: str) -> int | SecretInUse | None:
        """Delete a secret that nothing refers to; None when there is none of this name."""
        async with self.transaction() as session:
            await lock_catalog(session)
            reference = f"{SECRET_PREFIX}{name}"
            used = await session.all("route_of_secret", platform_id, reference)
            by_stripe = await session.value("stripe_settings_of_secret", platform_id, reference)
            if used or by_stripe:
                return SecretInUse(tuple(row["name"] for row in used), bool(by_stripe))
            if await session.value("secret_delete", platform_id, name) is None:
                return None
            return await announce(session, "")

    async def sealed_secrets(self) -> list[SealedSecret]:
        """Every platform's secrets. Not for the API."""
        return rows(SealedSecret, await self._session.all("secret_sealed"))

    async def reseal_secret(self, secret_id: int, before: bytes, after: bytes) -> bool:
        """Keep a secret sealed anew; False when it has another value, or is gone."""
        return await self._session.value("secret_reseal", secret_id, before, after) is not None

    async def signing_key(self) -> SigningKeyRow | None:
        """The key that signs now."""
        record = await self._session.one("signing_key_find")
        return SigningKeyRow(**record) if record else None

    async def signing_keys(self) -> list[PublicKeyRow]:
        """Every key whose tokens may be good, newest first."""
        return [
            PublicKeyRow(row["kid"], json.loads(row["public_jwk"]))
            for row in await self._session.all("signing_key_list", RETIRED_KEPT_MS)
        ]

    async def add_first_signing_key(
        self, kid: str, public_jwk: Mapping[str, Any], sealed_private: bytes
    ) -> int | None:
        """Let this key sign, unless one does; then None."""
        async with self.transaction() as session:
            await session.value("signing_key_lock")
            if await session.one("signing_key_find") is not None:
                return None
            return await _add_key(session, kid, public_jwk, sealed_private)

    async def replace_signing_key(
        self, kid: str, public_jwk: Mapping[str, Any], sealed_private: bytes
    ) -> int:
        """Let this key sign; all others sign no more, and their private halves are gone."""
        async with self.transaction() as session:
            await session.value("signing_key_lock")
            version = await _add_key(session, kid, public_jwk, sealed_private)
            await session.all("signing_key_retire", kid)
            return version

    async def reseal_signing_key(self, kid: str, before: bytes, after: bytes) -> bool:
        """Keep a private half sealed anew; False when it was rotated meanwhile."""
        return await self._session.value("signing_key_reseal", kid, before, after) is not None


async def _add_key(
    session: Session, kid: str, public_jwk: Mapping[str, Any], sealed_private: bytes
) -> int:
    await session.value("signing_key_insert", kid, json.dumps(dict(public_jwk)), sealed_private)
    return await announce(session, "")

"""Identity providers that platforms trust to name their accounts (gateway/identity/jwks.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.catalog import announce
from gateway.ledger.database import Database

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record


class IssuerRow(NamedTuple):
    """An issuer that a platform trusts."""

    issuer_id: int
    platform_id: int
    platform_slug: str
    issuer: str
    jwks_url: str
    account_claim: str
    algorithms: tuple[str, ...]
    created_ms: int


class RemovedIssuer(NamedTuple):
    """The catalogue's version without it, and accounts whose keys of it Redis may still know."""

    version: int
    account_ids: tuple[int, ...]


class Issuers(Database):
    """Issuers. Workers believe by them, so changes answer the catalogue's version."""

    async def issuers(self, platform_id: int | None = None) -> list[IssuerRow]:
        """A platform's issuers, oldest first; without a platform everybody's, for workers."""
        return [_row(one) for one in await self._session.all("issuer_list", platform_id, None)]

    async def issuer(self, platform_id: int, issuer_id: int) -> IssuerRow | None:
        """The platform's issuer of this id."""
        record = await self._session.one("issuer_list", platform_id, issuer_id)
        return _row(record) if record else None

    async def add_issuer(
        self,
        platform_id: int,
        issuer: str,
        *,
        jwks_url: str,
        account_claim: str,
        algorithms: Sequence[str],
    ) -> tuple[int, int] | None:
        """Trust an issuer: its id and the version; None when the platform does already."""
        async with self.transaction() as session:
            issuer_id = await session.value(
                "issuer_insert", platform_id, issuer, jwks_url, account_claim, list(algorithms)
            )
            if issuer_id is None:
                return None
            return int(issuer_id), await announce(session, "")

    async def change_issuer(
        self,
        platform_id: int,
        issuer_id: int,
        *,
        jwks_url: str,
        account_claim: str,
        algorithms: Sequence[str],
    ) -> int | None:
        """Trust an issuer otherwise; None without such an issuer here."""
        async with self.transaction() as session:
            changed = await session.value(
                "issuer_change", platform_id, issuer_id, jwks_url, account_claim, list(algorithms)
            )
            return None if changed is None else await announce(session, "")

    async def remove_issuer(self, platform_id: int, issuer_id: int) -> RemovedIssuer | None:
        """Trust an issuer no more, and revoke its keys; None if there never was one. Idempotent."""
        async with self.transaction() as session:
            if await session.value("issuer_end", platform_id, issuer_id) is None:
                return None
            whose = await session.all("issuer_keys_revoke", platform_id, issuer_id)
            version = await announce(session, "")
            return RemovedIssuer(version, tuple(row["account_id"] for row in whose))


def _row(record: Record) -> IssuerRow:
    fields = dict(record)
    return IssuerRow(**{**fields, "algorithms": tuple(fields["algorithms"])})

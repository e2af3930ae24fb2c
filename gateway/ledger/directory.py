"""Look-ups of the call's way: what a worker reads on a miss or at its start."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING

from gateway.ledger.catalog import stored_route
from gateway.ledger.database import Database, rows
from gateway.ledger.rows import BY_CONFIG, CatalogueSnapshot, KeyRow, PlatformRoutes, PlatformRow
from gateway.ledger.specs import guards_in_force

if TYPE_CHECKING:
    from policies.catalog import Route

DIGEST_BYTES = 32
NAME_CHARACTERS_MAX = 100


class Directory(Database):
    """Keys, routes and settings, as the proxy needs them."""

    async def find_key(self, digest: bytes) -> KeyRow | None:
        """The key of this digest, revoked and expired ones included, closed ones not."""
        record = await self._session.one("key_find", digest)
        if record is None:
            return None
        fields = dict(record)
        guards = guards_in_force(json.loads(fields.pop("specs")))
        return KeyRow(**fields, routes=guards.routes, addresses=guards.addresses)

    async def issuer_key(
        self, platform_id: int, issuer_id: int, account_name: str
    ) -> KeyRow | None:
        """The key that stands for an account which a platform's own issuer names.

        It is made when the account is first named. None: the platform has no such account, or not
        this issuer.
        """
        named = (platform_id, issuer_id, account_name)
        digest = await self._session.value("key_issuer_find", *named)
        if digest is None:
            made = secrets.token_bytes(DIGEST_BYTES)
            await self._session.value("key_issuer_insert", *named, NAME_CHARACTERS_MAX, made)
            digest = await self._session.value("key_issuer_find", *named)
        return None if digest is None else await self.find_key(digest)

    async def snapshot_catalogue(self) -> CatalogueSnapshot:
        """Every platform with its active routes and its secrets, as of one instant."""
        async with self.transaction(snapshot=True) as session:
            version = int(await session.value("catalog_version"))
            platforms = rows(PlatformRow, await session.all("platform_list"))
            stored = await session.all("route_list", None)
            sealed = await session.all("secret_sealed")
        secrets_of: dict[int, dict[str, bytes]] = {row.platform_id: {} for row in platforms}
        for row in sealed:
            secrets_of[row["platform_id"]][row["name"]] = row["sealed"]
        routes_of: dict[int, list[Route]] = {row.platform_id: [] for row in platforms}
        for row in sorted(stored, key=lambda row: row["managed_by"] == BY_CONFIG):
            if row["active"]:
                routes_of[row["platform_id"]].append(stored_route(row).route)
        return CatalogueSnapshot(
            version,
            [
                PlatformRoutes(row, tuple(routes_of[row.platform_id]), secrets_of[row.platform_id])
                for row in platforms
            ],
        )

    async def fix_setting(self, name: str, value: str) -> str:
        """Fix a fact of this deployment at its first start; answers the value in force."""
        fixed = None
        while fixed is None:  # twice at most: another first start committed between our two looks
            fixed = await self._session.value("setting_fix", name, value)
        return str(fixed)

    async def find_setting(self, name: str) -> str | None:
        """A fact fixed earlier."""
        value = await self._session.value("setting_find", name)
        return None if value is None else str(value)

    async def ensure_partitions(self, months_ahead: int) -> list[str]:
        """Make settlements' partitions of this month and those ahead; answers the new ones."""
        return [row["name"] for row in await self._session.all("partition_ensure", months_ahead)]

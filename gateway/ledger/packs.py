"""Packs: credits that are sold once. Those that are not sold any more stay known."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database
from gateway.ledger.rows import BY_API
from gateway.ledger.specs import pack_from_spec, pack_to_spec

if TYPE_CHECKING:
    from asyncpg import Record

    from gateway.ledger.database import Session
    from policies.catalog import Pack

PACKS_MAX = 1_000
SOLD, ALL = True, False


class StoredPack(NamedTuple):
    """A pack of the database; `active`: it is sold."""

    pack_id: int
    pack: Pack
    active: bool
    managed_by: str


class Packs(Database):
    """A platform's packs."""

    async def pack(self, platform_id: int, slug: str) -> StoredPack | None:
        """The platform's pack of this slug, also if it is not sold any more."""
        record = await self._session.one("pack_page", platform_id, None, slug, 1, ALL)
        return _pack(record) if record else None

    async def packs_page(
        self, platform_id: int, *, after: str | None = None, limit: int = PACKS_MAX
    ) -> list[StoredPack]:
        """Packs that are sold by slug, behind one."""
        found = await self._session.all("pack_page", platform_id, after, None, limit, SOLD)
        return [_pack(record) for record in found]

    async def all_packs(self, platform_id: int) -> list[StoredPack]:
        """Packs by slug, those that are not sold any more too."""
        return list((await stored_packs(self._session, platform_id)).values())

    async def create_pack(self, platform_id: int, pack: Pack) -> bool:
        """A new pack; False when the platform has one of this slug."""
        spec = json.dumps(pack_to_spec(pack))
        made = await self._session.value("pack_insert", platform_id, pack.slug, spec, BY_API)
        return made is not None

    async def change_pack(self, platform_id: int, pack: Pack) -> bool:
        """Another content of a pack; False without one of this slug that the API manages."""
        spec = json.dumps(pack_to_spec(pack))
        return await self._session.value("pack_change", platform_id, pack.slug, spec) is not None

    async def retire_pack(self, platform_id: int, slug: str) -> bool:
        """Sell a pack no more; False without one of this slug that the API manages."""
        return await self._session.value("pack_retire", platform_id, slug, BY_API) is not None


async def stored_packs(session: Session, platform_id: int) -> dict[str, StoredPack]:
    """A platform's packs by slug, those that are not sold any more too."""
    found = await session.all("pack_page", platform_id, None, None, PACKS_MAX, ALL)
    return {record["slug"]: _pack(record) for record in found}


async def write_pack(
    session: Session, platform_id: int, pack: Pack, managed_by: str, *, active: bool = True
) -> None:
    """Make this the platform's pack of its slug, managed so from now on."""
    spec = json.dumps(pack_to_spec(pack))
    await session.value("pack_upsert", platform_id, pack.slug, spec, managed_by, active)


def _pack(record: Record) -> StoredPack:
    pack = pack_from_spec(record["slug"], json.loads(record["spec"]))
    return StoredPack(record["pack_id"], pack, record["active"], record["managed_by"])

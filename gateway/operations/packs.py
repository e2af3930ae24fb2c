"""Packs that people make by the API: read as the config's are, sold from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import Problem
from gateway.config.documents import merged, read_pack_document
from gateway.config.writing import pack_document
from gateway.ledger import BY_API
from gateway.operations.documents import managed_elsewhere
from gateway.operations.errors import ConflictError, DocumentError, UnknownError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gateway.ledger import Ledger
    from gateway.ledger.packs import StoredPack
    from gateway.operations.documents import Written
    from policies.catalog import Pack


async def find_pack(ledger: Ledger, platform_id: int, slug: str) -> StoredPack:
    """The platform's pack of this slug, if it is sold.

    Raises: UnknownError.
    """
    stored = await ledger.pack(platform_id, slug)
    if stored is None or not stored.active:
        raise UnknownError("pack", slug)
    return stored


async def create_pack(ledger: Ledger, platform_id: int, written: Written) -> StoredPack:
    """A new pack.

    Raises: DocumentError with all mistakes; ConflictError for a slug that is taken.
    """
    pack = _read(written, written.content)
    if not await ledger.create_pack(platform_id, pack):
        raise ConflictError("name_taken", f'there is a pack "{pack.slug}": choose another slug')
    return await find_pack(ledger, platform_id, pack.slug)


async def change_pack(ledger: Ledger, platform_id: int, slug: str, patch: Written) -> StoredPack:
    """Change a pack by a merge patch. What was bought stays what it was.

    Raises: UnknownError, DocumentError, ConflictError.
    """
    stored = await _own(ledger, platform_id, slug)
    pack = _read(patch, merged(pack_document(stored.pack), patch.content))
    if pack.slug != slug:
        raise DocumentError([Problem("slug", "stays as it is: products at Stripe name it")])
    if not await ledger.change_pack(platform_id, pack):
        raise UnknownError("pack", slug)  # it was retired at this moment
    return await find_pack(ledger, platform_id, slug)


async def retire_pack(ledger: Ledger, platform_id: int, slug: str) -> None:
    """Sell a pack no more. What was bought stays; one of this slug can be made again.

    Raises: UnknownError, ConflictError.
    """
    await _own(ledger, platform_id, slug)
    if not await ledger.retire_pack(platform_id, slug):
        raise UnknownError("pack", slug)


async def _own(ledger: Ledger, platform_id: int, slug: str) -> StoredPack:
    """A pack that the API manages."""
    stored = await find_pack(ledger, platform_id, slug)
    if stored.managed_by != BY_API:
        raise managed_elsewhere("pack", slug, stored.managed_by)
    return stored


def _read(written: Written, document: Mapping[str, Any]) -> Pack:
    pack, problems = read_pack_document(document)
    written.check(problems)
    return pack

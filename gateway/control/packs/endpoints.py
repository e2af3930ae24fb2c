"""What can be done with packs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.writing import pack_document
from gateway.control.api.cursors import read_text_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import PageQuery
from gateway.control.api.roles import EDITORS, EVERYBODY
from gateway.control.packs.models import NewPack, Pack, PackPatch, Packs
from gateway.operations import packs

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.packs import StoredPack

PATH = "/v1/packs"
ONE = f"{PATH}/{{pack}}"


def document(stored: StoredPack) -> Pack:
    """The pack's document."""
    return Pack.model_validate(
        {"id": stored.pack_id, "managed_by": stored.managed_by, **pack_document(stored.pack)}
    )


async def create(ask: Ask, body: NewPack) -> Pack:
    """Make one."""
    return document(await packs.create_pack(ask.ledger, ask.platform_id, body.written))


async def read(ask: Ask) -> Pack:
    """One of them."""
    return document(await packs.find_pack(ask.ledger, ask.platform_id, ask.path["pack"]))


async def read_list(ask: Ask, query: PageQuery) -> Packs:
    """All that are sold, by slug."""
    after = read_text_cursor(query.cursor)
    page = await ask.ledger.packs_page(ask.platform_id, after=after, limit=query.limit)
    return Packs(
        data=[document(stored) for stored in page],
        next_cursor=write_cursor(page[-1].pack.slug) if len(page) == query.limit else None,
    )


async def change(ask: Ask, body: PackPatch) -> Pack:
    """Change what is sold from now on."""
    return document(
        await packs.change_pack(ask.ledger, ask.platform_id, ask.path["pack"], body.written)
    )


async def delete(ask: Ask) -> None:
    """Sell it no more."""
    await packs.retire_pack(ask.ledger, ask.platform_id, ask.path["pack"])


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Make a pack", EDITORS, create,
        body=NewPack, answers=Pack, status=201, creates=True,
    ),
    Endpoint("GET", PATH, "List packs", EVERYBODY, read_list, query=PageQuery, answers=Packs),
    Endpoint("GET", ONE, "Read a pack", EVERYBODY, read, answers=Pack),
    Endpoint(
        "PATCH", ONE, "Change a pack", EDITORS, change, body=PackPatch, answers=Pack, reads=read,
        description="What was bought stays what it was.",
    ),
    Endpoint(
        "DELETE", ONE, "Sell a pack no more", EDITORS, delete, reads=read,
        description="Payments for it that are under way still give what it has.",
    ),
)  # fmt: skip

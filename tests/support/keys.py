"""Keys as lists show them, found by their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.ledger import KeyListRow, Ledger


async def key_of(ledger: Ledger, platform_id: int, key_id: int) -> KeyListRow:
    """The platform's key of this number, which there is."""
    key = await ledger.key(platform_id, key_id)
    assert key is not None
    return key

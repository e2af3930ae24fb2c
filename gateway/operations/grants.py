"""Grants: lots of credits that operators give to an account by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.ledger.errors import LedgerRejected
from gateway.operations.errors import UsageError
from gateway.operations.publish import publish_account
from policies.units import AMOUNT_MICROCREDITS_MAX

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.rows import AccountRow

SOURCES = ("plan", "pack", "trial", "coupon", "manual", "rollover")
PRIORITY_DEFAULT = 0
PRIORITY_MAX = 1_000
NOTE_CHARACTERS_MAX = 500


async def add_grant(
    ledger: Ledger,
    counters: Counters,
    account: AccountRow,
    microcredits: int,
    *,
    source: str = "manual",
    effective_ms: int = 0,
    expires_ms: int = 0,
    priority: int = PRIORITY_DEFAULT,
    note: str = "",
) -> int:
    """Give credits to an account; the grant's id. Effective now and for ever where the times are 0.

    Raises: UsageError for values out of range; NotToldError when Redis could not be told.
    """
    grant_id = await insert_grant(
        ledger,
        account,
        microcredits,
        source=source,
        effective_ms=effective_ms,
        expires_ms=expires_ms,
        priority=priority,
        note=note,
    )
    await publish_account(ledger, counters, account.account_id, account.name)
    return grant_id


async def insert_grant(
    ledger: Ledger,
    account: AccountRow,
    microcredits: int,
    *,
    source: str,
    effective_ms: int = 0,
    expires_ms: int = 0,
    priority: int = PRIORITY_DEFAULT,
    note: str = "",
) -> int:
    """As `add_grant`, without telling Redis: for an account that no call can have used yet."""
    if source not in SOURCES:
        raise UsageError(f'"{source}" is no source of grants: use one of {", ".join(SOURCES)}')
    if not 0 < microcredits <= AMOUNT_MICROCREDITS_MAX:
        raise UsageError("a grant is more than 0 and less than 2^53 microcredits")
    if not 0 <= priority <= PRIORITY_MAX:
        raise UsageError(f"a priority is 0 (which pays first) to {PRIORITY_MAX}")
    if len(note) > NOTE_CHARACTERS_MAX or not (note + " ").isprintable():
        raise UsageError(f"a note is at most {NOTE_CHARACTERS_MAX} printable characters")
    try:
        grant_id = await ledger.add_grant(
            account.account_id,
            microcredits,
            source=source,
            effective_ms=effective_ms or None,
            expires_ms=expires_ms,
            priority=priority,
            note=note,
        )
    except LedgerRejected:
        raise UsageError("a grant must expire after it takes effect") from None
    if grant_id is None:
        raise UsageError(f'the account "{account.name}" is gone')
    return grant_id

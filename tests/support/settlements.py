"""Settlements and an account to charge them to, for the tests of the ledger and of the jobs."""

from __future__ import annotations

import secrets
import time
import uuid
from typing import TYPE_CHECKING, Any

from policies.settlement import LateSettlement, LedgerChange, Posting, Settlement, correction_id

if TYPE_CHECKING:
    from gateway.ledger import Ledger


def new_call_id(moment_ms: int | None = None) -> str:
    """A UUIDv7 as 32 hex digits."""
    moment_ms = time.time_ns() // 1_000_000 if moment_ms is None else moment_ms
    return f"{moment_ms:012x}7{secrets.token_hex(2)[:3]}8{secrets.token_hex(8)[:15]}"


def settlement(postings: tuple[tuple[int, int], ...] = (), **changes: Any) -> Settlement:
    """A completed call of platform 1, account 1, that charged what its postings say."""
    moment_ms = time.time_ns() // 1_000_000
    charged = sum(amount for _, amount in postings)
    plain = Settlement(
        call_id=new_call_id(),
        shard=3,
        outbox_id="1-1",
        platform_id=1,
        account_id=1,
        key_id=5,
        route_id=7,
        price_version=9,
        admitted_ms=moment_ms,
        settled_ms=moment_ms + 12,
        ending="completed",
        status=200,
        units="token=30",
        flags="",
        session="",
        held_microcredits=charged + 10,
        charged_microcredits=charged,
        uncollected_microcredits=0,
        postings=tuple(Posting(*pair) for pair in postings),
    )
    return plain._replace(**changes)


def ledger_change(kind: str, *postings: tuple[int, int], **changes: Any) -> LedgerChange:
    """What a script took from lots of platform 1, account 1; a late one is about a call."""
    call_id = new_call_id() if kind == "late" else ""
    plain = LedgerChange(
        change_id=correction_id(call_id) if call_id else uuid.uuid4().hex,
        shard=3,
        outbox_id="1-1",
        kind=kind,
        platform_id=1,
        account_id=1,
        call_id=call_id,
        at_ms=time.time_ns() // 1_000_000,
        postings=tuple(Posting(*pair) for pair in postings),
    )
    return plain._replace(**changes)


def late_settlement(**changes: Any) -> LateSettlement:
    """A call of platform 1, account 1, that ended while Redis could not be asked."""
    moment_ms = time.time_ns() // 1_000_000
    plain = LateSettlement(
        call_id=new_call_id(),
        shard=3,
        platform_id=1,
        account_id=1,
        key_id=5,
        route_id=7,
        price_version=9,
        session="s-1",
        admitted_ms=moment_ms,
        ended_ms=moment_ms + 12,
        ending="completed",
        status=200,
        units="token=30",
        flags="units_missing",
        held_microcredits=50,
        owed_microcredits=20,
    )
    return plain._replace(**changes)


async def account_with_grants(
    ledger: Ledger, *amounts: int, slug: str = "demo", name: str = "alice"
) -> tuple[int, int, list[int]]:
    """Ids of a platform, an account on it, and the account's grants of these amounts."""
    from policies.catalog import Platform

    platform_id = (await ledger.apply_catalog(Platform(slug), (), ())).platform_id
    account_id = await ledger.create_account(platform_id, name)
    assert account_id is not None
    grants = []
    for amount in amounts:
        grant_id = await ledger.add_grant(account_id, amount, priority=100)
        assert grant_id is not None
        grants.append(grant_id)
    return platform_id, account_id, grants


async def assert_books_agree(ledger: Ledger) -> None:
    """Grants, changes, calls and roll-ups are the sums that they should be."""
    assert await ledger.audit_grants() == []
    assert await ledger.audit_changes() == []
    assert await ledger.audit_calls() == []
    assert await ledger.audit_usage() == []
    assert await ledger.audit_rollups() == []

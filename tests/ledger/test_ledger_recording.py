from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from gateway.ledger import Ledger
from tests.support.settlements import account_with_grants, settlement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest_asyncio.fixture
async def ledger(postgres_url: str) -> AsyncIterator[Ledger]:
    async with Ledger(postgres_url) as opened:
        yield opened


async def assert_books_agree(ledger: Ledger) -> None:
    assert await ledger.audit_grants() == []
    assert await ledger.audit_calls() == []
    assert await ledger.audit_usage() == []


async def test_a_settlement_is_in_every_book_after_one_statement(ledger: Ledger) -> None:
    platform_id, account_id, (first, second) = await account_with_grants(ledger, 100, 1_000)
    call = settlement(
        ((first, 100), (second, 30)),
        platform_id=platform_id,
        account_id=account_id,
        flags="units_missing,late",
        units='to"ken\\=3{0}',
    )

    recorded = await ledger.record_settlements([call])

    assert (recorded.inserted, recorded.durable, recorded.refused) == (1, [call], ())
    (row,) = await ledger.settlements(account_id, limit=10)
    assert row._asdict() == {name: getattr(call, name) for name in row._fields}
    assert [grant.settled_microcredits for grant in await ledger.grants(account_id)] == [100, 30]
    (used,) = await ledger.usage_report(platform_id, call.settled_ms, call.settled_ms + 1)
    assert (used.calls, used.calls_completed, used.charged_microcredits) == (1, 1, 130)
    await assert_books_agree(ledger)

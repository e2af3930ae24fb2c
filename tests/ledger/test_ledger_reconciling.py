"""The books as they are held against Redis: what is known, what came late, what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.settlements import account_with_grants, settlement

if TYPE_CHECKING:
    from gateway.ledger import Ledger


async def test_what_was_taken_after_a_moment_is_told_apart_from_what_was_known_then(
    ledger: Ledger,
) -> None:
    platform_id, account_id, (grant, other) = await account_with_grants(ledger, 1_000, 1_000)
    mine = {"platform_id": platform_id, "account_id": account_id}
    old, known, late, ran = (settlement(((grant, due),), **mine) for due in (1, 10, 100, 200))
    moment_ms = old.settled_ms
    known, late, ran = (call._replace(settled_ms=moment_ms + 1) for call in (known, late, ran))
    await ledger.record_settlements([old, known, late, ran])
    unknown = settlement().call_id

    books = await ledger.shard_books(
        3,
        [account_id],
        since_ms=moment_ms,
        done=[known.call_id, unknown],
        running=[ran.call_id],
        changes=[],
        capped=[account_id],
    )

    assert {lot.grant_id: lot.settled_microcredits for lot in books.lots.values()} == {
        grant: 311,
        other: 0,
    }
    assert books.calls == {
        known.call_id: (known.call_id, account_id, 10, 0, known.settled_ms),
        ran.call_id: (ran.call_id, account_id, 200, 0, ran.settled_ms),
    }
    assert books.late == {grant: (grant, 300, 0)}
    (spent,) = books.spent
    assert spent == (account_id, old.key_id, old.route_id, 311, 311, 311)


async def test_accounts_are_listed_a_page_at_a_time(ledger: Ledger) -> None:
    ids = [(await account_with_grants(ledger, name=name))[1] for name in ("a", "b", "c")]
    first = await ledger.account_ids(0, 2)
    assert first == sorted(ids)[:2]
    assert await ledger.account_ids(first[-1], 2) == sorted(ids)[2:]

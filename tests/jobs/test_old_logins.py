"""Logins that expired and old claims of requests go; all others stay."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from gateway.jobs.old_logins import OldLogins
from gateway.jobs.rounds import PAGE_ROWS_MAX, PAGES_MAX

if TYPE_CHECKING:
    from gateway.ledger import Ledger

FAR_MS = 4_000_000_000_000


async def test_a_round_deletes_what_is_over_and_nothing_else(ledger: Ledger) -> None:
    token_id = await ledger.create_token(
        None, None, role="operator", name="n", prefix="p", last4="l", digest=b"d"
    )
    assert token_id is not None
    living = uuid.uuid4().hex
    await ledger.begin_session(living, token_id, b"living", FAR_MS)
    await ledger.begin_session(uuid.uuid4().hex, token_id, b"over", 1)
    await ledger.claim_request("token:1", b"k" * 32, b"f" * 32, "r1")

    assert await OldLogins(ledger).delete() == 1
    assert await OldLogins(ledger).delete() == 0
    assert await ledger.live_session(living) is not None
    assert await ledger.claim_request("token:1", b"k" * 32, b"f" * 32, "r2") is not None

    assert await OldLogins(ledger, requests_kept_ms=-60_000).delete() == 1
    assert await ledger.claim_request("token:1", b"k" * 32, b"f" * 32, "r3") is None


class Book:
    """Has so many rows of each kind."""

    def __init__(self, sessions: int, requests: int) -> None:
        self.left = {"sessions": sessions, "requests": requests}

    def _take(self, kind: str, limit: int) -> int:
        taken = min(limit, self.left[kind])
        self.left[kind] -= taken
        return taken

    async def delete_sessions(self, limit: int) -> int:
        return self._take("sessions", limit)

    async def delete_requests(self, older_than_ms: int, limit: int) -> int:
        assert older_than_ms == 24 * 3_600_000
        return self._take("requests", limit)


@pytest.mark.parametrize("rows", [0, 1, PAGE_ROWS_MAX, PAGE_ROWS_MAX + 1, 3 * PAGE_ROWS_MAX])
async def test_a_round_goes_through_all_pages(rows: int) -> None:
    book = Book(rows, rows)
    assert await OldLogins(book).delete() == 2 * rows
    assert book.left == {"sessions": 0, "requests": 0}


async def test_a_round_is_bounded() -> None:
    book = Book(10**9, 10**9)
    assert await OldLogins(book).delete() == 2 * PAGES_MAX * PAGE_ROWS_MAX

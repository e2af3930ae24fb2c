"""Deletes what the API has no use for any more: logins that expired, old Idempotency-Keys."""

from __future__ import annotations

from typing import NoReturn, Protocol

from gateway.jobs.rounds import by_pages, repeat

INTERVAL_S = 300.0
# For how long a request that is sent again with its key is answered as before.
REQUESTS_KEPT_MS = 24 * 3_600_000


class LoginBook(Protocol):
    """Where logins and claims of requests are: `Ledger`."""

    async def delete_sessions(self, limit: int) -> int:
        """Delete some logins that have expired; answers how many."""

    async def delete_requests(self, older_than_ms: int, limit: int) -> int:
        """Delete some claims and answers so old; answers how many."""


class OldLogins:
    """Keeps no login and no answer of the API for longer than they count."""

    def __init__(self, book: LoginBook, *, requests_kept_ms: int = REQUESTS_KEPT_MS) -> None:
        self._book = book
        self._requests_kept_ms = requests_kept_ms

    async def run(self) -> NoReturn:
        """Look every few minutes, until cancelled."""
        await repeat("old logins", self.delete, INTERVAL_S)

    async def delete(self) -> int:
        """One round; answers how many rows went."""
        sessions = await by_pages(self._book.delete_sessions)
        return sessions + await by_pages(
            lambda limit: self._book.delete_requests(self._requests_kept_ms, limit)
        )

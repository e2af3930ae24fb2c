"""Deletes the answers of idempotency keys that are not remembered any more."""

from __future__ import annotations

from typing import NoReturn, Protocol

from gateway.jobs.rounds import by_pages, repeat
from policies.idempotency import IDEMPOTENT_TTL_MS

INTERVAL_S = 300.0


class KeptAnswers(Protocol):
    """Where answers are: `Ledger`."""

    async def delete_answers(self, older_than_ms: int, limit: int) -> int:
        """Delete some; answers how many."""


class OldAnswers:
    """Keeps no answer for longer than its key is remembered."""

    def __init__(self, store: KeptAnswers, *, older_than_ms: int = IDEMPOTENT_TTL_MS) -> None:
        self._store = store
        self._older_than_ms = older_than_ms

    async def run(self) -> NoReturn:
        """Look every few minutes, until cancelled."""
        await repeat("answers", self.delete, INTERVAL_S)

    async def delete(self) -> int:
        """One round; answers how many went."""
        return await by_pages(lambda limit: self._store.delete_answers(self._older_than_ms, limit))

"""What calls with an idempotency key were answered, so that it outlives the loss of Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database
from policies.idempotency import IDEMPOTENT_TTL_MS

if TYPE_CHECKING:
    from collections.abc import Sequence


class AnswerRow(NamedTuple):
    """What a call was answered that had a key. `receipt`: only that it ended and what it cost."""

    platform_id: int
    account_id: int
    digest: str  # of the key, 32 hex digits
    fingerprint: str  # of the request, 64 hex digits
    call_id: str
    receipt: bool
    answer: bytes


class KeptAnswer(NamedTuple):
    """What the last call that had a key was answered."""

    call_id: str
    fingerprint: str
    answer: bytes


class CallFate(NamedTuple):
    """How a call ended; `charged_microcredits` is what it owes where Redis could not be told."""

    ending: str
    status: int
    charged_microcredits: int


class Answers(Database):
    """Answers by account and key."""

    async def save_answers(self, answers: Sequence[AnswerRow]) -> None:
        """Keep answers; of several with one key the last counts. Idempotent.

        Raises: LedgerRejected when Postgres refuses one for good; then none is written.
        """
        last = {(row.account_id, row.digest): row for row in answers}
        in_order = [last[key] for key in sorted(last)]  # else two writers could deadlock
        await self._session.value(
            "answer_save",
            [row.platform_id for row in in_order],
            [row.account_id for row in in_order],
            [bytes.fromhex(row.digest) for row in in_order],
            [bytes.fromhex(row.fingerprint) for row in in_order],
            [row.call_id for row in in_order],
            [row.receipt for row in in_order],
            [row.answer for row in in_order],
        )

    async def answer_of(self, account_id: int, digest: str) -> KeptAnswer | None:
        """What the last call that had the key was answered, for a day."""
        record = await self._session.one(
            "answer_find", account_id, bytes.fromhex(digest), IDEMPOTENT_TTL_MS
        )
        return KeptAnswer(**record) if record else None

    async def fate_of(self, call_id: str) -> CallFate | None:
        """How a call ended; None: it has no settlement here."""
        record = await self._session.one("call_fate", call_id)
        return CallFate(**record) if record else None

    async def delete_answers(self, older_than_ms: int, limit: int) -> int:
        """Delete answers that are not asked for any more; answers how many."""
        return int(await self._session.value("answer_delete", older_than_ms, limit))

"""What accounts owe: credits that were spent although their payment was given back.

A debt is made by a step of taking back (clawbacks.py), and paid by the next lot in the statement
that gives it (sql/grant_insert.sql); credits that come back cancel it first.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.ledger.books import AUDIT_ROWS_MAX
from gateway.ledger.database import Database, rows


class DebtDrift(NamedTuple):
    """Where the books of what is taken back, or owed, do not come out.

    `wrong`: "owed" (an account's debt and its entries), "paid" (a lot and what it paid), "step" (a
    step of taking back and what it moved), "payment" (more is to be gone than a payment gave).
    """

    wrong: str
    account_id: int
    subject: str  # "debt", "grant 12", "clawback 0197…", "payment 7"
    expected_microcredits: int
    found_microcredits: int


class Debts(Database):
    """Debts of accounts."""

    async def owed(self, account_id: int) -> int:
        """What an account owes, in microcredits."""
        return int(await self._session.value("debt_owed", account_id) or 0)

    async def audit_debts(self) -> list[DebtDrift]:
        """Debts and steps of taking back that disagree with the ledger; at most AUDIT_ROWS_MAX."""
        return rows(DebtDrift, await self._session.all("audit_debts", AUDIT_ROWS_MAX))

"""Rows of money's tables as events leave them, for tests of what is read of them."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import asyncpg

if TYPE_CHECKING:
    from collections.abc import Sequence


def moment(text: str) -> dt.datetime:
    """A time in UTC, as in "2026-11-01" or "2026-11-01T12:00"."""
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


def ms(text: str) -> int:
    """The same in milliseconds."""
    return int(moment(text).timestamp()) * 1_000


class BillingRows:
    """Writes rows of one platform as who owns the tables."""

    def __init__(self, postgres_url: str, platform_id: int, *, livemode: bool = True) -> None:
        self._postgres_url = postgres_url
        self._platform_id = platform_id
        self._livemode = livemode
        self._made = 0

    async def subscription(self, account_id: int, **fields: Any) -> None:
        """A subscription of 10.00 eur a month since 2026-01-01, but for what is said."""
        self._made += 1
        values: dict[str, Any] = {
            "platform_id": self._platform_id,
            "account_id": account_id,
            "livemode": self._livemode,
            "stripe_id": f"sub_{self._made}",
            "customer_id": f"cus_{account_id}",
            "status": "active",
            "plan_slug": "pro",
            "quantity": 1,
            "currency": "eur",
            "unit_amount": 1_000,
            "months": 1,
            "started_at": "2026-01-01",
            **fields,
        }
        await self._insert("subscriptions", values)

    async def transaction(
        self, account_id: int, lines: Sequence[dict[str, Any]] = (), **fields: Any
    ) -> int:
        """A payment of 10.00 eur that was made on 2026-11-01, but for what is said; its id."""
        self._made += 1
        paid_at = fields.get("paid_at", "2026-11-01")
        values: dict[str, Any] = {
            "platform_id": self._platform_id,
            "account_id": account_id,
            "livemode": self._livemode,
            "business_key": f"invoice:in_{self._made}",
            "kind": "renewal",
            "status": "succeeded",
            "currency": "eur",
            "amount_minor": 1_000,
            "created_at": paid_at or "2026-11-01",
            "paid_at": paid_at,
            **fields,
        }
        transaction_id = await self._insert("billing_transactions", values, returning="id")
        for number, line in enumerate(lines):
            told = {
                "transaction_id": transaction_id,
                "line_id": f"il_{number}",
                "platform_id": self._platform_id,
                "account_id": account_id,
                "kind": "plan",
                "slug": "pro",
                **line,
            }
            await self._insert("billing_lines", told, returning="transaction_id")
        return transaction_id

    async def moved(
        self, transaction_id: int, amount_minor: int, made_at: str, **fields: Any
    ) -> None:
        """Money of a payment that went back, or came again (below 0)."""
        self._made += 1
        account_id = await self.sql(
            "SELECT account_id FROM billing_transactions WHERE id = $1", transaction_id
        )
        values: dict[str, Any] = {
            "transaction_id": transaction_id,
            "account_id": account_id,
            "stripe_id": f"re_{self._made}",
            "made_at": made_at,
            "amount_minor": amount_minor,
            **fields,
        }
        await self.insert("billing_returns", **values)

    async def insert(self, table: str, **values: Any) -> None:
        """A row of any other table of the platform's."""
        told = {"platform_id": self._platform_id, **values}
        await self._insert(table, told, returning="platform_id")

    async def sql(self, statement: str, *arguments: object) -> Any:
        """The first value that any statement answers."""
        connection = await asyncpg.connect(self._postgres_url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def _insert(self, table: str, values: dict[str, Any], *, returning: str = "id") -> int:
        read = {
            name: moment(value)
            if name.endswith(("_at", "_since")) and isinstance(value, str)
            else value
            for name, value in values.items()
        }
        places = ", ".join(f"${number}" for number in range(1, len(read) + 1))
        connection = await asyncpg.connect(self._postgres_url)
        try:
            return int(
                await connection.fetchval(
                    f"INSERT INTO {table} ({', '.join(read)}) VALUES ({places})"
                    f" RETURNING {returning}",
                    *read.values(),
                )
            )
        finally:
            await connection.close()

"""Use beyond the grants, as money: what of it is to be billed, and what was, part by part.

A lot of overage has its price from the plan that gave it (sql/grant_insert.sql). A part of it is
written before Stripe is asked to bill it, under the name by which Stripe knows it once.
"""

from __future__ import annotations

import uuid
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, Session, rows
from policies.money import OveragePrice, overage_minor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class DueOverage(NamedTuple):
    """An account that has overage to be billed; its first lot to end does so at `expires_ms`."""

    platform_id: int
    account_id: int
    expires_ms: int
    now_ms: int


class OverageLot(NamedTuple):
    """What of a lot is to be billed: from a microcredit of it to another."""

    grant_id: int
    plan_slug: str
    nanos_per_credit: int
    to_microcredits: int
    from_microcredits: int
    effective_ms: int
    expires_ms: int

    def amount_minor(self, currency: str) -> int:
        """What the part costs. Rounded up once for the lot, however many parts it has."""
        price = OveragePrice(self.nanos_per_credit)
        before = overage_minor(price, self.from_microcredits, currency)
        return overage_minor(price, self.to_microcredits, currency) - before


class OverageCharge(NamedTuple):
    """A part that is not billed yet."""

    charge_id: int
    business_key: str
    from_microcredits: int
    to_microcredits: int
    currency: str
    amount_minor: int
    invoice_id: str | None
    plan_slug: str
    effective_ms: int
    expires_ms: int
    created_ms: int
    now_ms: int


class BillingSubscription(NamedTuple):
    """By what an account's overage is billed. `ends`: it is to end, so no invoice may follow."""

    stripe_id: str
    customer_id: str
    status: str
    currency: str | None
    product_id: str | None
    period_end_ms: int
    ends: bool
    now_ms: int


class Overage(Database):
    """Overage that is billed."""

    async def overage_accounts(
        self, after: int, limit: int, *, ahead_ms: int, begun_ms: int
    ) -> list[DueOverage]:
        """Accounts behind an id with overage to be billed, or a part begun so long ago."""
        found = await self._session.all("overage_accounts", ahead_ms, begun_ms, after, limit)
        return rows(DueOverage, found)

    async def overage_done(self, given_up_ms: int) -> None:
        """Look no more at lots of which all is billed, and nothing more can come.

        Nor at those that ended so long ago and could not be billed.
        """
        await self._session.value("overage_done", given_up_ms)

    async def account_of_subscription(
        self, platform_id: int, stripe_id: str, *, livemode: bool
    ) -> int | None:
        """Whose a subscription is, as far as the books know."""
        found = await self._session.value("overage_account", platform_id, livemode, stripe_id)
        return None if found is None else int(found)

    async def billing_subscription(
        self, account_id: int, *, livemode: bool
    ) -> BillingSubscription | None:
        """The subscription that serves the account, else the last it had; None: it had none."""
        record = await self._session.one("overage_subscription", account_id, livemode)
        return BillingSubscription(**record) if record else None

    async def open_overage_charges(self, account_id: int, *, livemode: bool) -> list[OverageCharge]:
        """Parts of an account's overage that are not billed yet, oldest first."""
        found = await self._session.all("overage_charge_open", account_id, livemode)
        return rows(OverageCharge, found)

    @asynccontextmanager
    async def overage_charge_locked(self, charge_id: int) -> AsyncIterator[Session | None]:
        """A transaction in which nobody else bills this part; None: it is billed, or in work."""
        async with self.transaction_apart() as session:
            found = await session.value("overage_charge_lock", charge_id)
            yield session if found is not None else None


async def open_overage(
    session: Session, account_id: int, currency: str, until_ms: int, *, livemode: bool
) -> None:
    """Write a part for every lot that has something to be billed, before Stripe is asked.

    Of a lot that is not closed only where its period is over at `until_ms`, and only once.
    """
    for lot in rows(OverageLot, await session.all("overage_lots", account_id, until_ms)):
        # What Stripe is told must differ between deployments that share an account of it.
        name = f"overage:{lot.grant_id}:{lot.from_microcredits}:{uuid.uuid4().hex[:12]}"
        await session.value(
            "overage_charge_insert",
            lot.grant_id,
            livemode,
            name,
            lot.from_microcredits,
            lot.to_microcredits,
            currency,
            lot.amount_minor(currency),
        )


async def put_on_invoice(session: Session, charge_id: int, invoice_id: str) -> None:
    """Write which invoice a part is to be on."""
    await session.value("overage_charge_invoice", charge_id, invoice_id)


async def note_billed(
    session: Session, charge_id: int, item_id: str, invoice_id: str | None
) -> None:
    """Write that Stripe has a part."""
    await session.value("overage_charge_billed", charge_id, item_id, invoice_id)

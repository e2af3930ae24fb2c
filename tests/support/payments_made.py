"""Payments at the fake Stripe, with what they gave in our books, for tests of what goes back."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gateway.operations.publish import publish_account
from tests.support.billing_rows import BillingRows
from tests.support.deployment import CREDIT
from tests.support.stripe_sales import opened_sales

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.stripe_sync.sync import Sync
    from tests.support.deployment import Caller, Deployment
    from tests.support.stripe_shop import Shop

PRICE_MINOR = 1_000


@dataclass(frozen=True, slots=True)
class Bought:
    """One payment: its row, its charge, and the lots that it gave, in the order of giving."""

    transaction_id: int
    charge_id: str
    grant_ids: tuple[int, ...]


class Till:
    """A deployment, a fake Stripe, and the account of somebody who buys."""

    def __init__(self, deployment: Deployment, shop: Shop, sync: Sync, caller: Caller) -> None:
        self.deployment = deployment
        self.shop = shop
        self.sync = sync
        self.caller = caller
        self.account_id = caller.account.account_id
        self.rows = BillingRows(deployment.postgres_url, deployment.platform_id, livemode=False)
        self.sql, self.findings = deployment.sql, deployment.findings
        self.customer_id = ""
        self._lots = 0

    async def buy(
        self,
        *lots: dict[str, Any],
        amount_minor: int = PRICE_MINOR,
        card: Any = "works",
        known: bool = True,
    ) -> Bought:
        """Pay at Checkout, and write what that gives: lots as `add_grant` takes them.

        `known`: the payment's row says by which intent it was made.
        """
        session = await self.shop.buy(
            await self.shop.price(amount_minor), card, customer=self.customer_id
        )
        transaction_id = await self.rows.transaction(
            self.account_id,
            kind="pack",
            business_key=f"checkout:{session['id']}",
            checkout_session_id=session["id"],
            payment_intent_id=session["payment_intent"] if known else None,
            amount_minor=amount_minor,
            currency="usd",
        )
        grants = await self.give(transaction_id, *lots)
        return Bought(transaction_id, await self.shop.charge_of(session), grants)

    async def give(self, transaction_id: int, *lots: dict[str, Any]) -> tuple[int, ...]:
        """Lots of a payment, told to Redis."""
        given = []
        for lot in lots:
            self._lots += 1
            amount = lot.pop("microcredits")
            grant_id = await self.deployment.ledger.add_grant(
                self.account_id,
                amount,
                source=lot.pop("source", "pack"),
                priority=lot.pop("priority", 0),
                business_key=f"lot:{self._lots}",
                **lot,
            )
            assert grant_id is not None
            await self.rows.insert(
                "paid_lots",
                grant_id=grant_id,
                transaction_id=transaction_id,
                account_id=self.account_id,
                microcredits=amount,
            )
            given.append(grant_id)
        await self.publish()
        return tuple(given)

    async def publish(self) -> None:
        """Tell Redis all that Postgres says of the account."""
        await publish_account(
            self.deployment.ledger, self.deployment.counters, self.account_id, "alice"
        )

    async def refund(self, bought: Bought, amount_minor: int | None = None) -> str:
        """Pay back an amount, else all that is left; the refund's id."""
        params: dict[str, Any] = {"charge": bought.charge_id}
        if amount_minor is not None:
            params["amount"] = amount_minor
        made = await self.shop.v1.refunds.create_async(params)
        return str(made.id)

    async def spend(self, microcredits: int) -> None:
        """Make a call that costs so much; Postgres has it."""
        await self.deployment.call(self.caller, microcredits)
        await self.deployment.carry()

    async def left(self, grant_id: int) -> int:
        """What Redis has available of a lot."""
        fields = (await self.deployment.counters.inspect(self.caller.keys)).fields
        return int(fields.get(f"a:{grant_id}", 0))

    async def balance(self) -> int:
        """All that calls can take now."""
        fields = (await self.deployment.counters.inspect(self.caller.keys)).fields
        return sum(int(fields[f"a:{lot}"]) for lot in fields["lots"].split())

    async def owed(self) -> int:
        """The account's debt."""
        return await self.deployment.ledger.owed(self.account_id)

    async def payment(self, bought: Bought) -> tuple[str, int, int]:
        """A payment's status, and what of it was refunded and is disputed."""
        text = await self.sql(
            "SELECT status || ' ' || refunded_minor || ' ' || disputed_minor"
            " FROM billing_transactions WHERE id = $1",
            bought.transaction_id,
        )
        status, refunded, disputed = text.split()
        return status, int(refunded), int(disputed)

    async def grants(self) -> Sequence[tuple[str, int]]:
        """Sources and totals of all lots, in the order in which they were made."""
        rows = await self.deployment.ledger.grants(self.account_id)
        return [
            (row.source, row.amount_microcredits)
            for row in sorted(rows, key=lambda row: row.grant_id)
        ]


@asynccontextmanager
async def opened_till(redis_url: str, postgres_url: str, **options: Any) -> AsyncIterator[Till]:
    """An empty deployment with an account that has a customer, and nothing else.

    `options` are those of the platform's billing.
    """
    async with opened_sales(redis_url, postgres_url, **options) as sales:
        deployment, shop, sync = sales
        caller = await deployment.caller(microcredits=CREDIT)
        await deployment.call(caller, CREDIT)  # loads it, with nothing left
        await deployment.carry()
        till = Till(deployment, shop, sync, caller)
        till.customer_id = await shop.customer()
        await till.rows.insert(
            "stripe_customers",
            account_id=till.account_id,
            customer_id=till.customer_id,
            livemode=False,
        )
        yield till

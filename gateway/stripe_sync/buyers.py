"""Accounts as Stripe's customers: one per account and mode, made by us before anything is bought.

So that whoever pays is known before he has paid. Two requests at once make one customer: they take
turns, and the idempotency key covers a death between Stripe's making it and our writing it down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from gateway.ledger.subscriptions import count_customers, find_customer, save_customer
from gateway.stripe_sync.customers import account_metadata, sync_customer
from gateway.stripe_sync.errors import StripeMissingError, StripeUnavailableError
from gateway.stripe_sync.events import Hint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from stripe.params import CustomerUpdateParams

    from gateway.ledger.rows import AccountRow
    from gateway.stripe_sync.sync import Sync

T = TypeVar("T")


async def as_customer(
    sync: Sync, account: AccountRow, email: str | None, work: Callable[[str], Awaitable[T]]
) -> T:
    """Do something with the account's customer; with a new one, if that was deleted meanwhile.

    Raises: StripeTroubleError, LedgerUnavailable.
    """
    customer_id = await customer_for(sync, account, email)
    try:
        return await work(customer_id)
    except StripeMissingError:
        await sync_customer(sync, Hint("customer.deleted", customer_id, 0))
        another = await customer_for(sync, account, email)
        if another == customer_id:  # it is there: something else was missing
            raise
        return await work(another)


async def customer_for(sync: Sync, account: AccountRow, email: str | None = None) -> str:
    """The account's customer, made if there is none. An `email` is written to it."""
    mode = sync.mode
    known = await sync.ledger.customer_of_account(mode, account.account_id)
    names: CustomerUpdateParams = {}
    if known is None:
        known = await _make(sync, account)
        names["name"] = account.name
    if email is not None:
        names["email"] = email
    if names:
        customer_id = known
        await sync.api.ask(lambda v1: v1.customers.update_async(customer_id, names))
    return known


async def _make(sync: Sync, account: AccountRow) -> str:
    """Nothing but what never changes is sent with the key, so that a repetition is the same."""
    mode, account_id = sync.mode, account.account_id
    async with sync.asking_locked(f"of account {account_id}") as session:
        known = await find_customer(session, mode, account_id)
        if known is not None:
            return known
        before = await count_customers(session, mode, account_id)
        key = f"tollkeeper-customer-{sync.settings.slug}-{account_id}-{before}"
        made = await sync.api.ask(
            lambda v1: v1.customers.create_async(
                {"metadata": account_metadata(sync, account_id)}, {"idempotency_key": key}
            )
        )
        if not await save_customer(session, mode, made["id"], account_id):
            raise StripeUnavailableError("The account became a customer meanwhile: ask again.")
        return str(made["id"])

"""Whose an object of Stripe's is: from its customer to an account of ours.

A customer that we made is known. Of others the metadata is believed, which only the platform's
owner can write. A `client_reference_id` can be written by whoever opens a payment link, so it needs
the owner's word beside it: the platform's slug in the session's metadata.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.ledger.subscriptions import (
    account_of_customer,
    delete_customer,
    has_account,
    save_customer,
)
from gateway.stripe_sync.errors import StripeMissingError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from gateway.ledger.database import Session
    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]

ACCOUNT_KEY = "tollkeeper_account"  # its id
PLATFORM_KEY = "tollkeeper_platform"  # its slug
ACCOUNT_ID_DIGITS_MAX = 18


def account_metadata(sync: Sync, account_id: int) -> dict[str, str]:
    """What says at Stripe whose an object is: for everything that we make there."""
    return {ACCOUNT_KEY: str(account_id), PLATFORM_KEY: sync.settings.slug}


def id_of(reference: str | Mapping[str, Any] | None) -> str | None:
    """The id of what may be an id, or the object itself where it was expanded."""
    if reference is None or isinstance(reference, str):
        return reference or None
    return str(reference["id"])


async def customer_of(hint: Hint, fetch: Callable[[], Awaitable[Document]]) -> str | None:
    """The customer whose lock an object needs, which it keeps for ever.

    As the event says, or, where it does not, as the object does. None: it has none, or there is no
    such object any more.
    """
    if "customer" in hint.object:
        return id_of(hint.object["customer"])
    try:
        return id_of((await fetch()).get("customer"))
    except StripeMissingError:
        return None


async def account_of(
    sync: Sync,
    session: Session,
    customer_id: str | None,
    *,
    others: Iterable[Mapping[str, Any]] = (),
) -> int | None:
    """The account of a customer; None: nobody knows.

    `others` are what may say so instead: subscriptions, sessions. What is learnt is kept, unless
    the account is another customer already.
    """
    if customer_id is not None:
        known = await account_of_customer(session, sync.mode, customer_id)
        if known is not None:
            return known
    for document in [await _customer(sync, customer_id), *others]:
        named = _named(sync, document)
        if named is None or not await has_account(session, sync.platform_id, named):
            continue
        if customer_id is not None:
            await save_customer(session, sync.mode, customer_id, named)
        return named
    return None


async def _customer(sync: Sync, customer_id: str | None) -> Document:
    """What Stripe has of a customer; of one that was deleted, or is none, nothing that counts."""
    if customer_id is None:
        return {}
    try:
        return await sync.api.ask(lambda v1: v1.customers.retrieve_async(customer_id))
    except StripeMissingError:
        return {"deleted": True}


async def sync_customer(sync: Sync, hint: Hint) -> None:
    """A customer was deleted: its account may become another one. Its subscriptions end apart."""
    async with sync.customer_locked(hint.object_id) as session:
        if (await _customer(sync, hint.object_id)).get("deleted"):
            await delete_customer(session, sync.mode, hint.object_id)


def _named(sync: Sync, document: Mapping[str, Any]) -> int | None:
    metadata = document.get("metadata") or {}
    if metadata.get(PLATFORM_KEY) != sync.settings.slug:
        return None
    name = metadata.get(ACCOUNT_KEY) or document.get("client_reference_id") or ""
    is_id = name.isascii() and name.isdecimal() and len(name) <= ACCOUNT_ID_DIGITS_MAX
    return int(name) if is_id else None

"""Checkout sessions: what was bought once, and whose a new subscription is.

A session for packs is a payment of its own. One for a subscription is not: its invoice is, and all
that the session knows better is which account it was for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.ledger.billing import Paid, Payment, PaymentLine, give_paid_lots, save_payment
from gateway.ledger.serving import lock_account
from gateway.ledger.untold import note_untold
from gateway.stripe_sync.customers import account_of, customer_of, id_of
from gateway.stripe_sync.deciding import decide
from gateway.stripe_sync.errors import NeedsMendingError, StripeMissingError
from gateway.stripe_sync.invoices import fetch_invoice, write_invoice
from gateway.stripe_sync.refunds import take_back_of
from gateway.stripe_sync.sold import Priced, quantity_of, usable, wares_of
from gateway.stripe_sync.subscriptions import fetch_subscription, write_subscription
from gateway.stripe_sync.superseded import cancel_superseded
from policies.billing import SESSION_PAID, given_by_session, session_status
from policies.catalog import Pack
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.ledger.database import Session
    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sold import Wares
    from gateway.stripe_sync.sync import Sync

    Document = dict[str, Any]

# Of a completed session: the bank has refused, and nobody tries again.
FAILED_INTENTS = ("requires_payment_method", "canceled")


async def sync_session(sync: Sync, hint: Hint) -> None:
    """A session was completed, has expired, or its payment came through or failed later.

    Raises: NeedsMendingError when nobody knows whose it is, or what was bought.
    """
    session_id = hint.object_id
    customer_id = await customer_of(hint, lambda: fetch_session(sync, session_id))
    async with sync.customer_locked(customer_id or session_id) as session:
        try:
            document = await fetch_session(sync, session_id)
        except StripeMissingError:
            return
        account_id, paid = await _write(sync, session, document)
        if account_id is None:
            return
        await decide(sync, session, account_id)
        await note_untold(session, account_id)
    await sync.tell(account_id)
    for transaction_id in paid:
        # Charges may have been given back before anybody knew what they were for.
        await take_back_of(sync, transaction_id)
    await cancel_superseded(sync, account_id)


async def fetch_session(sync: Sync, session_id: str) -> Document:
    """A session as it is now, with how its payment goes."""
    return await sync.api.ask(
        lambda v1: v1.checkout.sessions.retrieve_async(
            session_id, {"expand": ["payment_intent.latest_charge"]}
        )
    )


async def _write(
    sync: Sync, session: Session, document: Document
) -> tuple[int | None, tuple[int, ...]]:
    """Whose it is, and the numbers of payments that were made; None: it is nothing of ours."""
    if document["mode"] == "subscription":
        return await _write_subscription(sync, session, document)
    if document["mode"] != "payment":
        return None, ()
    invoice_id = id_of(document["invoice"])
    if invoice_id is not None:
        # Made on the owner's wish beside the session: then it says what was paid for.
        invoice = await fetch_invoice(sync, invoice_id)
        written = await write_invoice(sync, session, invoice, sessions=(document,))
        return (None, ()) if written is None else (written.account_id, written.paid)
    if (document["invoice_creation"] or {}).get("enabled"):
        # That is drawn up once it is paid for, and then says so. Whose it is, we learn here.
        await account_of(sync, session, id_of(document["customer"]), others=[document])
        return None, ()
    account_id, transaction_id = await _write_packs(sync, session, document)
    if transaction_id is None or document["payment_status"] not in SESSION_PAID:
        return account_id, ()
    return account_id, (transaction_id,)


async def _write_subscription(
    sync: Sync, session: Session, document: Document
) -> tuple[int | None, tuple[int, ...]]:
    subscription_id = id_of(document["subscription"])
    if subscription_id is None:
        return None, ()  # it has expired, or nobody has completed it
    subscription = await fetch_subscription(sync, subscription_id)
    account_id = await write_subscription(sync, session, subscription, sessions=[document])
    invoice_id = id_of(document["invoice"]) or id_of(subscription["latest_invoice"])
    written = None
    if account_id is not None and invoice_id is not None:
        written = await write_invoice(sync, session, await fetch_invoice(sync, invoice_id))
    return account_id, written.paid if written else ()


async def _write_packs(
    sync: Sync, session: Session, document: Document
) -> tuple[int | None, int | None]:
    items = [
        item
        async for item in sync.api.pages(
            lambda v1, params: v1.checkout.sessions.line_items.list_async(document["id"], params)
        )
    ]
    wares = await wares_of(sync, session, map(_priced, items))
    if not any(wares.sold(_priced(item)) for item in items):
        return None, None
    account_id = await account_of(sync, session, id_of(document["customer"]), others=[document])
    if account_id is None:
        raise NeedsMendingError(
            f"nobody knows whose the Checkout session {document['id']} is: give its customer the "
            "metadata tollkeeper_account and tollkeeper_platform"
        )
    account = await lock_account(session, account_id)
    now_ms = account.now_ms if account else 0
    payment = _payment(document, now_ms)
    rows = [_row(item, wares) for item in items]
    transaction_id = await save_payment(session, sync.mode, account_id, payment, rows)
    if payment.status == "succeeded" and payment.paid_ms is not None:
        paid = Paid(sync.mode, transaction_id, account_id, None)
        packs = _packs(items, wares)
        await give_paid_lots(
            session, paid, given_by_session(document["id"], packs, payment.paid_ms)
        )
    return account_id, transaction_id


def _priced(item: Mapping[str, Any]) -> Priced:
    price = item["price"] or {}
    return Priced(id_of(price.get("product")), id_of(price.get("id")))


def _payment(document: Document, now_ms: int) -> Payment:
    """What a session is as a payment. It fell due when it was made: it has no other time."""
    intent = document["payment_intent"]
    intent = intent if isinstance(intent, dict) else {}
    charge = intent.get("latest_charge")
    charge = charge if isinstance(charge, dict) else {}
    is_complete = document["status"] == "complete"
    status = session_status(
        document["status"],
        document["payment_status"],
        has_failed=is_complete and intent.get("status") in FAILED_INTENTS,
    )
    failure = None
    if status == "cancelled" and is_complete:
        error = intent.get("last_payment_error") or {}
        failure = str(error.get("message") or "the payment failed")
    paid_s = charge.get("created") or document["created"]
    details = document["total_details"] or {}
    return Payment(
        business_key=f"checkout:{document['id']}",
        kind="pack",
        status=status,
        currency=document["currency"],
        amount_minor=document["amount_total"],
        tax_minor=details.get("amount_tax") or 0,
        created_ms=document["created"] * SECOND_MS,
        paid_ms=min(paid_s * SECOND_MS, now_ms) if status == "succeeded" else None,
        checkout_session_id=document["id"],
        payment_intent_id=id_of(document["payment_intent"]),
        charge_id=id_of(intent.get("latest_charge")) if status == "succeeded" else None,
        failure=failure,
    )


def _row(item: Mapping[str, Any], wares: Wares) -> PaymentLine:
    priced = _priced(item)
    sold = wares.sold(priced)
    is_pack = sold is not None and sold.kind == "pack"
    return PaymentLine(
        item["id"],
        "pack" if is_pack else "other",
        sold.slug if sold is not None and is_pack else "",
        priced.product_id,
        priced.price_id,
        quantity_of(item),
        item["amount_total"] - item["amount_tax"],
    )


def _packs(items: list[Document], wares: Wares) -> list[tuple[str, Pack, int]]:
    """Items' ids, packs and quantities. Raises: NeedsMendingError for one that is parked."""
    found = []
    for item in items:
        priced = _priced(item)
        sold = wares.sold(priced)
        if sold is None:
            continue
        what = usable(sold, priced.product_id).what
        if not isinstance(what, Pack):
            raise NeedsMendingError(
                f'the plan "{sold.slug}" was sold once, by a price that does not recur'
            )
        found.append((item["id"], what, quantity_of(item)))
    return found

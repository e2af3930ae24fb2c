"""Invoices: written down as payments, and what a paid one gives.

docs/money.md has the tables. One that gives no more than a ceiling is worked on after those that
were paid before it, and with what of these Stripe says had gone back by then: so what it gives does
not depend on which event came first.
"""

from __future__ import annotations

from itertools import takewhile
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.billing import (
    Paid,
    Payment,
    PaymentLine,
    cancel_payment,
    give_paid_lots,
    paid_keys,
    save_payment,
)
from gateway.ledger.clawbacks import payments_giving
from gateway.ledger.serving import lock_account
from gateway.ledger.untold import note_untold
from gateway.stripe_sync.customers import account_of, customer_of, id_of
from gateway.stripe_sync.deciding import decide
from gateway.stripe_sync.errors import NeedsMendingError, StripeMissingError
from gateway.stripe_sync.moments import ms_of
from gateway.stripe_sync.refunds import paid_back_before, take_back_of
from gateway.stripe_sync.sold import Priced, quantity_of, usable, wares_of
from gateway.stripe_sync.subscriptions import (
    fetch_subscription,
    plan_period,
    write_subscription,
)
from gateway.stripe_sync.superseded import cancel_superseded
from gateway.stripe_sync.unpaid import PROCESSING, intents_of
from policies.billing import (
    Line,
    PaidInvoice,
    given,
    invoice_kind,
    invoice_status,
    price_problem,
)
from policies.catalog import Plan
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.ledger.database import Session
    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.sold import Wares
    from gateway.stripe_sync.sync import Sync
    from policies.money_back import PaidBack

    Document = dict[str, Any]

CHANGE = "subscription_update"
# On the invoice items that we make for overage (overage.py): which part of it they are.
OVERAGE_KEY = "tollkeeper_overage"


class Written(NamedTuple):
    """An invoice in the books."""

    account_id: int
    transaction_id: int
    is_paid: bool
    # Payments before it that were written with it, or are for the same periods.
    earlier: tuple[int, ...] = ()

    @property
    def paid(self) -> tuple[int, ...]:
        """The payments whose charges may have been given back before they were written."""
        return (*self.earlier, self.transaction_id) if self.is_paid else ()


async def sync_invoice(sync: Sync, hint: Hint) -> None:
    """Something happened to an invoice. What a paid one gives is given, once."""
    await see_to_invoice(sync, hint.object_id, hint)


async def see_to_invoice(sync: Sync, invoice_id: str, hint: Hint) -> None:
    """Write an invoice down as it is now, with all that follows; tell Redis.

    Raises: NeedsMendingError when nobody knows whose it is, or what of ours it is for.
    """
    customer_id = await customer_of(hint, lambda: fetch_invoice(sync, invoice_id))
    if customer_id is None:
        await _forget(sync, invoice_id)
        return
    async with sync.customer_locked(customer_id) as session:
        try:
            document = await fetch_invoice(sync, invoice_id)
        except StripeMissingError:
            await cancel_payment(session, sync.mode, f"invoice:{invoice_id}")
            return
        written = await write_invoice(sync, session, document)
        if written is None:
            return
        await decide(sync, session, written.account_id)
        await note_untold(session, written.account_id)
    await sync.tell(written.account_id)
    for transaction_id in written.paid:
        # Charges may have been given back before anybody knew what they were for.
        await take_back_of(sync, transaction_id)
    await cancel_superseded(sync, written.account_id)


async def fetch_invoice(sync: Sync, invoice_id: str) -> Document:
    """An invoice as it is now, with the payments of it."""
    return await sync.api.ask(
        lambda v1: v1.invoices.retrieve_async(
            invoice_id, {"expand": ["payments.data.payment.payment_intent"]}
        )
    )


async def write_invoice(
    sync: Sync,
    session: Session,
    document: Document,
    *,
    sessions: tuple[Document, ...] = (),
    is_alone: bool = False,
) -> Written | None:
    """Write an invoice and its subscription into the books, and give what it gives.

    None: it is about nothing of ours. `sessions` may say whose it is. `is_alone`: those before it
    are seen to already.

    Raises: NeedsMendingError.
    """
    lines = await _lines(sync, document)
    wares = await wares_of(sync, session, map(_priced, lines))
    if not any(wares.sold(_priced(line)) or _is_overage(line) for line in lines):
        return None
    subscription_id = _subscription_id(document)
    subscription = None
    account_id: int | None = None
    if subscription_id is not None:
        subscription = await fetch_subscription(sync, subscription_id)
        account_id = await write_subscription(sync, session, subscription, sessions=sessions)
    if account_id is None:
        others = [one for one in (document, subscription, *sessions) if one is not None]
        account_id = await account_of(sync, session, id_of(document["customer"]), others=others)
    if account_id is None:
        raise NeedsMendingError(
            f"nobody knows whose the invoice {document['id']} is: give its customer the metadata "
            "tollkeeper_account and tollkeeper_platform"
        )
    account = await lock_account(session, account_id)
    payment = _payment(document, lines)
    rows = [_row(line, wares) for line in lines]
    if document["status"] != "paid" or account is None:
        transaction_id = await save_payment(session, sync.mode, account_id, payment, rows)
        return Written(account_id, transaction_id, document["status"] == "paid")
    invoice = _paid_invoice(document, lines, wares, subscription)
    lots = given(invoice, account.now_ms, sync.options)
    limited = [lot.expires_ms for lot in lots if lot.ceiling is not None]
    earlier: list[int] = []
    if limited and subscription_id is not None and not is_alone:
        earlier = await _write_earlier(sync, session, document, subscription_id)
    transaction_id = await save_payment(session, sync.mode, account_id, payment, rows)
    paid = Paid(sync.mode, transaction_id, account_id, subscription_id)
    back = await _back_before(sync, session, paid, invoice.paid_ms, limited) if limited else {}
    await give_paid_lots(session, paid, lots, back)
    return Written(account_id, transaction_id, is_paid=True, earlier=tuple({*earlier, *back}))


async def _write_earlier(
    sync: Sync, session: Session, document: Document, subscription_id: str
) -> list[int]:
    """Write what was paid for the same subscription before, and the books don't have yet."""
    listed = [
        (invoice["status_transitions"]["paid_at"], invoice["id"])
        async for invoice in sync.api.pages(
            lambda v1, params: v1.invoices.list_async(params),
            subscription=subscription_id,
            status="paid",
        )
    ]
    # Of those of the same second the list alone says which was first: it begins with the newest.
    listed.reverse()
    listed.sort(key=itemgetter(0))
    in_order = [invoice_id for _, invoice_id in listed]
    earlier = list(takewhile(lambda one: one != document["id"], in_order))
    known = await paid_keys(session, sync.mode, [f"invoice:{one}" for one in earlier])
    new = []
    for invoice_id in earlier:
        if f"invoice:{invoice_id}" not in known:
            found = await fetch_invoice(sync, invoice_id)
            written = await write_invoice(sync, session, found, is_alone=True)
            if written is not None:
                new.append(written.transaction_id)
    return new


async def _back_before(
    sync: Sync, session: Session, paid: Paid, paid_ms: int, ends_ms: list[int]
) -> dict[int, PaidBack]:
    """What of other payments for the same periods had gone back when this one was made."""
    return {
        payment.transaction_id: await paid_back_before(sync, payment, paid_ms)
        for payment in await payments_giving(session, paid, ends_ms)
        if payment.transaction_id != paid.transaction_id
    }


async def _forget(sync: Sync, invoice_id: str) -> None:
    """A draft that was deleted before anybody had looked at it closer."""
    async with sync.ledger.transaction() as session:
        await cancel_payment(session, sync.mode, f"invoice:{invoice_id}")


async def _lines(sync: Sync, document: Document) -> list[Document]:
    """All of them: the invoice itself shows only the first."""
    if not document["lines"]["has_more"]:
        return list(document["lines"]["data"])
    return [
        line
        async for line in sync.api.pages(
            lambda v1, params: v1.invoices.line_items.list_async(document["id"], params)
        )
    ]


def _subscription_id(document: Document) -> str | None:
    parent = document["parent"] or {}
    return id_of((parent.get("subscription_details") or {}).get("subscription"))


def _priced(line: Mapping[str, Any]) -> Priced:
    details = (line["pricing"] or {}).get("price_details") or {}
    return Priced(id_of(details.get("product")), id_of(details.get("price")))


def _details(line: Mapping[str, Any]) -> Mapping[str, Any]:
    """What made a line: a subscription's item, or an item of the invoice's own."""
    parent = line["parent"] or {}
    return parent.get(parent.get("type") or "") or {}


def _payment(document: Document, lines: list[Document]) -> Payment:
    intents = intents_of(document, among=("open", "paid"))
    paid = intents_of(document, among=("paid",))
    failed = next((one for one in intents if one.get("last_payment_error")), None)
    is_processing = any(one["status"] == PROCESSING for one in intents)
    transitions = document["status_transitions"]
    status = invoice_status(
        document["status"], attempts=document["attempt_count"], is_processing=is_processing
    )
    failure = None
    if status in {"failed", "cancelled"} and document["attempt_count"] > 0:
        error = (failed or {}).get("last_payment_error") or {}
        failure = str(error.get("message") or "the payment failed")
    charge = paid[0].get("latest_charge") if paid else None
    return Payment(
        business_key=f"invoice:{document['id']}",
        kind=invoice_kind(document["billing_reason"], only_overage=all(map(_is_overage, lines))),
        status=status,
        currency=document["currency"],
        amount_minor=document["total"],
        tax_minor=sum(tax["amount"] for tax in document["total_taxes"] or ()),
        created_ms=document["created"] * SECOND_MS,
        paid_ms=ms_of(transitions["paid_at"]) if document["status"] == "paid" else None,
        invoice_id=document["id"],
        payment_intent_id=paid[0]["id"] if paid else None,
        charge_id=id_of(charge),
        subscription_id=_subscription_id(document),
        failure=failure,
    )


def _row(line: Mapping[str, Any], wares: Wares) -> PaymentLine:
    priced = _priced(line)
    sold = wares.sold(priced)
    kind, slug = "other", ""
    if _is_overage(line):
        kind, slug = "overage", sold.slug if sold else ""
    elif sold is not None and sold.kind in {"plan", "pack"}:
        kind, slug = sold.kind, sold.slug
    off = sum(discount["amount"] for discount in line["discount_amounts"] or ())
    taxes = line["taxes"] or ()
    within = sum(tax["amount"] for tax in taxes if tax["tax_behavior"] == "inclusive")
    return PaymentLine(
        line["id"],
        kind,
        slug,
        priced.product_id,
        priced.price_id,
        quantity_of(line),
        line["amount"] - off - within,
        bool(_details(line).get("proration")),
        line["period"]["start"] * SECOND_MS,
        line["period"]["end"] * SECOND_MS,
    )


def _is_overage(line: Mapping[str, Any]) -> bool:
    return OVERAGE_KEY in (line["metadata"] or {})


def _paid_invoice(
    document: Document, lines: list[Document], wares: Wares, subscription: Document | None
) -> PaidInvoice:
    """What the policies need of it. Raises: NeedsMendingError for what is parked."""
    found = []
    for line in lines:
        priced = _priced(line)
        sold = wares.sold(priced)
        if sold is None or _is_overage(line):
            continue
        what = usable(sold, priced.product_id).what
        months = wares.months_of(priced)
        if isinstance(what, Plan) and (problem := price_problem(what, months)) is not None:
            raise NeedsMendingError(f"the price {priced.price_id}: {problem}")
        if what is None:
            continue
        details = _details(line)
        whole = (
            plan_period(subscription, details.get("subscription_item")) if subscription else None
        )
        end_ms = line["period"]["end"] * SECOND_MS
        is_proration = bool(details.get("proration"))
        found.append(
            Line(
                line["id"],
                what,
                quantity_of(line),
                line["amount"],
                line["period"]["start"] * SECOND_MS,
                end_ms,
                months,
                is_proration,
                is_proration and _is_credit(line, details),
                whole[0] if whole and whole[1] == end_ms else None,
            )
        )
    return PaidInvoice(
        document["id"],
        document["status_transitions"]["paid_at"] * SECOND_MS,
        document["billing_reason"] == CHANGE,
        ((subscription or {}).get("trial_end") or 0) * SECOND_MS,
        tuple(found),
    )


def _is_credit(line: Mapping[str, Any], details: Mapping[str, Any]) -> bool:
    """Whether a line is for time unused: by its sign or, of nothing, by what it refers to."""
    credited = (details.get("proration_details") or {}).get("credited_items")
    return bool(line["amount"] < 0 or credited is not None)

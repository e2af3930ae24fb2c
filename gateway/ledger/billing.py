"""Payments as the books keep them: what is sold, what was paid, and the lots that this gave.

All of it is written inside the transaction of whoever works on a customer's object, under names
that exist once, so that doing it again changes nothing.
"""

from __future__ import annotations

import json
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.lots import NewLot, insert_lot
from gateway.ledger.specs import pack_from_spec, plan_from_spec
from policies.money_back import PaidBack, left_microcredits, target_microcredits

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gateway.ledger.database import Session
    from gateway.ledger.subscriptions import Mode
    from policies.billing import Given
    from policies.catalog import Pack, Plan


class Sold(NamedTuple):
    """What a product of Stripe's is here.

    `what` None: nothing that could be given. `problem`: why nothing is, until somebody mends it.
    """

    kind: str  # plan | pack | unknown
    slug: str
    what: Plan | Pack | None
    problem: str | None


class Payment(NamedTuple):
    """An invoice, or a Checkout session, as Stripe has it. Amounts are minor units, with tax."""

    business_key: str
    kind: str
    status: str
    currency: str
    amount_minor: int
    tax_minor: int
    created_ms: int
    paid_ms: int | None
    invoice_id: str | None = None
    checkout_session_id: str | None = None
    payment_intent_id: str | None = None
    charge_id: str | None = None
    subscription_id: str | None = None
    failure: str | None = None


class PaymentLine(NamedTuple):
    """What of a payment was for what; after discounts, without tax."""

    line_id: str
    kind: str  # plan | pack | overage | other
    slug: str
    product_id: str | None
    price_id: str | None
    quantity: int
    amount_minor: int
    proration: bool = False
    period_start_ms: int | None = None
    period_end_ms: int | None = None


class Paid(NamedTuple):
    """A payment in the books, for lots to be given by."""

    mode: Mode
    transaction_id: int
    account_id: int
    subscription_id: str | None


async def products_sold(
    session: Session, mode: Mode, product_ids: Iterable[str]
) -> dict[str, Sold]:
    """What these products are, as far as the books know them."""
    found = await session.all("billing_sold", *mode, sorted(set(product_ids)))
    sold = {}
    for row in found:
        kind, slug, spec = row["kind"], row["slug"], row["spec"]
        what: Plan | Pack | None = None
        if spec is not None:
            read = plan_from_spec if kind == "plan" else pack_from_spec
            what = read(slug, json.loads(spec))
        problem = row["problem"]
        if what is None and problem is None:
            problem = f'there is no {kind} "{slug}" here'
        sold[row["product_id"]] = Sold(kind, slug, what, problem)
    return sold


async def price_months(
    session: Session, mode: Mode, price_ids: Iterable[str]
) -> dict[str, int | None]:
    """For how many months these prices are, as far as the books know them; None: paid once."""
    found = await session.all("billing_months", *mode, sorted(set(price_ids)))
    return {row["price_id"]: row["months"] for row in found}


async def save_payment(
    session: Session,
    mode: Mode,
    account_id: int,
    payment: Payment,
    lines: Sequence[PaymentLine],
) -> int:
    """Write a payment as it is now, with its lines; its number in the books."""
    found = await session.value(
        "transaction_save",
        *mode,
        payment.business_key,
        account_id,
        payment.kind,
        payment.status,
        payment.currency,
        payment.amount_minor,
        payment.tax_minor,
        payment.invoice_id,
        payment.checkout_session_id,
        payment.payment_intent_id,
        payment.charge_id,
        payment.subscription_id,
        payment.failure,
        payment.created_ms,
        payment.paid_ms,
    )
    line_ids = [line.line_id for line in lines]
    await session.value("transaction_line_forget", found, line_ids)
    for line in lines:
        await session.value("transaction_line_save", found, *line)
    return int(found)


async def cancel_payment(session: Session, mode: Mode, business_key: str) -> int | None:
    """A payment that is not to come any more; whose it was to be, None: nobody's."""
    found = await session.value("transaction_cancel", *mode, business_key)
    return None if found is None else int(found)


async def paid_keys(session: Session, mode: Mode, business_keys: Sequence[str]) -> set[str]:
    """Those of these payments that the books know to be made."""
    found = await session.all("transaction_paid_keys", *mode, list(business_keys))
    return {row["business_key"] for row in found}


async def give_paid_lots(
    session: Session, paid: Paid, lots: Iterable[Given], back: Mapping[int, PaidBack] | None = None
) -> list[int]:
    """Give what a payment gives and was not given yet; the new lots.

    `back`: what of payments for the same subscription had gone back before this one was made; their
    lots count against a ceiling less what went with that.
    """
    given = []
    for lot in lots:
        business_key = paid.mode.key_of_lot(lot.key)
        if await session.value("paid_lot_known", business_key):
            continue
        if lot.replaces:
            await session.value(
                "paid_lot_replace",
                *paid.mode,
                paid.account_id,
                lot.expires_ms,
                paid.subscription_id,
                paid.transaction_id,
            )
        microcredits = lot.microcredits
        if lot.ceiling is not None:
            before = await _given_before(session, paid, lot, back or {})
            microcredits = min(microcredits, lot.ceiling - before)
        if microcredits <= 0:
            continue
        new = NewLot(
            lot.source,
            microcredits,
            lot.priority,
            lot.effective_ms,
            lot.expires_ms or None,
            business_key=business_key,
        )
        grant_id = await insert_lot(session, paid.account_id, new)
        await session.value("paid_lot_insert", grant_id, paid.transaction_id, microcredits)
        given.append(int(grant_id or 0))
    return given


async def _given_before(
    session: Session, paid: Paid, lot: Given, back: Mapping[int, PaidBack]
) -> int:
    """What counts of all that the subscription was given for the period that a lot is for."""
    found = await session.all(
        "paid_lot_before",
        *paid.mode,
        paid.account_id,
        lot.expires_ms,
        paid.subscription_id,
        lot.source,
    )
    before = 0
    for payment, lots in groupby(found, itemgetter("transaction_id", "amount_minor")):
        transaction_id, amount_minor = payment
        rows = list(lots)
        given = [row["microcredits"] for row in rows]
        gone = target_microcredits(sum(given), amount_minor, back.get(transaction_id, PaidBack()))
        left = left_microcredits(given, gone)
        before += sum(some for row, some in zip(rows, left, strict=True) if row["counts"])
    return before


class Notice(NamedTuple):
    """What an account is to be told of, once for each `about`: ids of Stripe's, times."""

    kind: str
    about: tuple[object, ...]
    detail: Mapping[str, object]


async def note_event(session: Session, mode: Mode, account_id: int, notice: Notice) -> None:
    """Record what an account is to be told of, once."""
    business_key = ":".join(
        map(str, (notice.kind, mode.platform_id, int(mode.livemode), *notice.about))
    )
    detail = json.dumps(notice.detail)
    await session.value("event_note", account_id, notice.kind, business_key, detail)

"""Reading payments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.control.api.cursors import next_cursor, read_id_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import or_never
from gateway.control.api.money import is_live, mode_word
from gateway.control.api.problems import not_found
from gateway.control.api.roles import MEMBERS, VIEWERS
from gateway.control.transactions.models import (
    GrantGiven,
    Line,
    MyTransactionsQuery,
    Transaction,
    Transactions,
    TransactionsQuery,
    TransactionWithLines,
)
from gateway.ledger.revenue import TransactionFilter
from policies.money import format_minor

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.revenue import TransactionLine, TransactionRow

PATH = "/v1/transactions"


def transaction_document(row: TransactionRow) -> Transaction:
    """A payment's document."""
    return Transaction(**_fields(row))


async def read_list(ask: Ask, query: TransactionsQuery) -> Transactions:
    """A platform's, newest first."""
    if query.account_id is not None:
        account = await ask.ledger.account(ask.platform_id, query.account_id)
        if account is None:
            raise not_found("account")
    return await _read_list(ask, query, query.account_id)


async def read_own_list(ask: Ask, query: MyTransactionsQuery) -> Transactions:
    """The account's own, newest first."""
    return await _read_list(ask, query, (await ask.account()).account_id)


async def read(ask: Ask) -> TransactionWithLines:
    """One of them, with what it was for."""
    row = await ask.ledger.transaction_row(ask.platform_id, ask.id_of("transaction_id"))
    if row is None:
        raise not_found("transaction")
    lines = await ask.ledger.transaction_lines(ask.platform_id, [row.transaction_id])
    lots = await ask.ledger.transaction_lots(ask.platform_id, row.transaction_id)
    return TransactionWithLines(
        **_fields(row),
        lines=[_line(line, row.currency) for line in lines],
        grants=[GrantGiven(grant_id=lot.grant_id, credits=lot.microcredits) for lot in lots],
        taken_back_credits=await ask.ledger.transaction_taken_back(
            ask.platform_id, row.transaction_id
        ),
    )


async def _read_list(ask: Ask, query: MyTransactionsQuery, account_id: int | None) -> Transactions:
    page = await ask.ledger.transactions_page(
        ask.platform_id,
        TransactionFilter(
            account_id=account_id,
            livemode=None if query.mode is None else is_live(query.mode),
            status=query.status,
            kind=query.kind,
            currency=query.currency,
            from_ms=query.from_,
            until_ms=query.until,
        ),
        after=read_id_cursor(query.cursor),
        limit=query.limit,
    )
    return Transactions(
        data=[transaction_document(row) for row in page.rows],
        next_cursor=next_cursor(page.after),
    )


def _fields(row: TransactionRow) -> dict[str, Any]:
    currency = row.currency
    return {
        "id": row.transaction_id,
        "account_id": row.account_id,
        "mode": mode_word(row.livemode),
        "kind": row.kind,
        "status": row.status,
        "currency": currency,
        "amount": format_minor(row.amount_minor, currency),
        "tax": format_minor(row.tax_minor, currency),
        "refunded": format_minor(row.refunded_minor, currency),
        "disputed": format_minor(row.disputed_minor, currency),
        "created_at": row.created_ms,
        "paid_at": or_never(row.paid_ms),
        "failure": row.failure,
        "invoice_id": row.invoice_id,
        "checkout_session_id": row.checkout_session_id,
        "payment_intent_id": row.payment_intent_id,
        "charge_id": row.charge_id,
        "subscription_id": row.subscription_id,
    }


def _line(line: TransactionLine, currency: str) -> Line:
    return Line(
        kind=line.kind,  # type: ignore[arg-type] # the table's own check
        slug=line.slug,
        quantity=line.quantity,
        amount=format_minor(line.amount_minor, currency),
        proration=line.proration,
        period_start=or_never(line.period_start_ms),
        period_end=or_never(line.period_end_ms),
    )


ENDPOINTS = (
    Endpoint(
        "GET", PATH, "List payments", VIEWERS, read_list,
        query=TransactionsQuery, answers=Transactions, exports=True,
        description="Invoices and Checkout sessions, newest first, as Stripe has them.",
    ),
    Endpoint(
        "GET", f"{PATH}/{{transaction_id}}", "Read a payment", VIEWERS, read,
        answers=TransactionWithLines,
    ),
    Endpoint(
        "GET", "/v1/me/transactions", "List my payments", MEMBERS, read_own_list,
        query=MyTransactionsQuery, answers=Transactions, exports=True,
    ),
    Endpoint(
        "GET", "/v1/me/transactions/{transaction_id}", "Read a payment of mine", MEMBERS, read,
        answers=TransactionWithLines,
    ),
)  # fmt: skip

"""Reading statements."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import or_never
from gateway.control.api.problems import not_found
from gateway.control.api.roles import MEMBERS, VIEWERS
from gateway.control.statements.models import (
    GivenCredits,
    LineSum,
    MoneySum,
    OverageUse,
    RouteUse,
    Statement,
)
from gateway.control.transactions.endpoints import transaction_document
from gateway.operations import statements
from gateway.operations.errors import UsageError
from policies.money import format_minor

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.revenue import OverageUse as Overage
    from gateway.ledger.rows import AccountRow


async def read(ask: Ask) -> Statement:
    """Of a month."""
    account, month = await ask.account(), ask.path["month"]
    try:
        found = await statements.statement_of(
            ask.ledger,
            account,
            month,
            # Accounts may not read the platform's settings, but their money is of its mode.
            livemode=await ask.services.ledger.billing_livemode(ask.platform_id),
            now_ms=now_ms(),
        )
    except UsageError:
        raise not_found("month") from None
    return _document(account, month, found)


def _document(account: AccountRow, month: str, found: statements.Statement) -> Statement:
    return Statement(
        account_id=account.account_id,
        account=account.name,
        month=month,
        from_=found.from_ms,
        until=found.until_ms,
        final=found.is_final,
        # Which plans an account had before is in no book.
        plan=None if found.is_final else account.plan_slug,
        calls=sum(use.calls for use in found.routes),
        charged_credits=sum(use.charged_microcredits for use in found.routes),
        routes=[_route(use) for use in found.routes],
        given=[
            GivenCredits(
                source=one.source,  # type: ignore[arg-type] # the table's own check
                credits=one.microcredits,
                credited_credits=one.credited_microcredits,
                taken_credits=one.revoked_microcredits,
                expired_credits=one.expired_microcredits,
            )
            for one in found.given
        ],
        overage=[_overage(use) for use in found.overage],
        lines=[_line(line) for line in found.lines],
        totals=[_total(total) for total in found.totals],
        payments=[transaction_document(row) for row in found.payments],
    )


def _route(use: statements.RouteUse) -> RouteUse:
    return RouteUse(
        route_id=use.route_id,
        route=use.route,
        calls=use.calls,
        calls_completed=use.calls_completed,
        charged_credits=use.charged_microcredits,
    )


def _overage(use: Overage) -> OverageUse:
    charged = use.currency and format_minor(use.amount_minor, use.currency)
    return OverageUse(
        from_=use.from_ms,
        until=or_never(use.until_ms),
        used_credits=use.used_microcredits,
        currency=use.currency,
        amount=charged,
    )


def _line(line: statements.LineSum) -> LineSum:
    return LineSum(
        currency=line.currency,
        kind=line.kind,  # type: ignore[arg-type] # the table's own check
        slug=line.slug,
        quantity=line.quantity,
        amount=format_minor(line.amount_minor, line.currency),
    )


def _total(total: statements.MoneySum) -> MoneySum:
    return MoneySum(
        currency=total.currency,
        paid=format_minor(total.paid_minor, total.currency),
        tax=format_minor(total.tax_minor, total.currency),
        refunded=format_minor(total.refunded_minor, total.currency),
        open=format_minor(total.open_minor, total.currency),
    )


_DESCRIPTION = (
    'Of a month such as "2026-11" (UTC), with or without Stripe: calls and credits by route, what '
    "was given, what was paid for plans, packs and overage."
)
ENDPOINTS = (
    Endpoint(
        "GET", "/v1/accounts/{account_id}/invoices/{month}", "Read an account's month", VIEWERS,
        read, answers=Statement, description=_DESCRIPTION,
    ),
    Endpoint(
        "GET", "/v1/me/invoices/{month}", "Read my month", MEMBERS, read, answers=Statement,
        description=_DESCRIPTION,
    ),
)  # fmt: skip

"""An account's statement of a month: what it called, what that cost, what it was given and paid.

Made from the books whenever it is asked for, with or without Stripe. It is no invoice for the tax
office: Stripe's invoices are that. Months are UTC's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.errors import UsageError
from gateway.operations.revenue import month_span
from gateway.operations.usage import usage_series

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from gateway.ledger import Ledger
    from gateway.ledger.revenue import GivenCredits, OverageUse, TransactionLine, TransactionRow
    from gateway.ledger.rows import AccountRow


class RouteUse(NamedTuple):
    """What an account called of a route. `route` None: it is gone."""

    route_id: int
    route: str | None
    calls: int
    calls_completed: int
    charged_microcredits: int


class LineSum(NamedTuple):
    """What was paid for a plan, a pack, or overage; without tax.

    A change within a period gives back what was bought before: of that the quantity is below 0.
    """

    currency: str
    kind: str
    slug: str
    quantity: int
    amount_minor: int


class MoneySum(NamedTuple):
    """All payments of one currency: paid, of which tax; paid back of that; and still open."""

    currency: str
    paid_minor: int
    tax_minor: int
    refunded_minor: int
    open_minor: int


class Statement(NamedTuple):
    """A month of an account. `is_final`: the month is over."""

    from_ms: int
    until_ms: int
    is_final: bool
    routes: Sequence[RouteUse]
    given: Sequence[GivenCredits]
    overage: Sequence[OverageUse]
    lines: Sequence[LineSum]
    totals: Sequence[MoneySum]
    payments: Sequence[TransactionRow]


async def statement_of(
    ledger: Ledger, account: AccountRow, month: str, *, livemode: bool, now_ms: int
) -> Statement:
    """The statement of a month such as "2026-11"; of the one that runs, so far.

    Raises: UsageError for what is no month, or one that has not begun.
    """
    from_ms, until_ms = month_span(month)
    if from_ms > now_ms:
        raise UsageError(f'the month "{month}" has not begun')
    whose = account.platform_id, account.account_id
    used = await usage_series(
        ledger,
        account.platform_id,
        unit="month",
        from_ms=from_ms,
        until_ms=until_ms,
        by=("route",),
        account_id=account.account_id,
    )
    payments = await ledger.transactions_of_statement(
        *whose, livemode=livemode, from_ms=from_ms, until_ms=until_ms
    )
    paid = {one.transaction_id: one for one in payments if one.paid_ms}
    lines = await ledger.transaction_lines(account.platform_id, paid) if paid else []
    return Statement(
        from_ms,
        until_ms,
        until_ms <= now_ms,
        [
            RouteUse(
                point.route_id or 0,
                used.route_names.get(point.route_id or 0),
                point.calls,
                point.calls_completed,
                point.charged_microcredits,
            )
            for point in used.points
        ],
        await ledger.given_credits(*whose, from_ms=from_ms, until_ms=until_ms),
        await ledger.overage_uses(*whose, livemode=livemode, from_ms=from_ms, until_ms=until_ms),
        _by_product((paid[line.transaction_id].currency, line) for line in lines),
        _by_currency(payments),
        payments,
    )


def _by_product(lines: Iterable[tuple[str, TransactionLine]]) -> list[LineSum]:
    sums: dict[tuple[str, str, str], tuple[int, int]] = {}
    for currency, line in lines:
        what = currency, line.kind, line.slug
        quantity, amount = sums.get(what, (0, 0))
        sums[what] = quantity + _bought(line), amount + line.amount_minor
    return [LineSum(*what, *sums[what]) for what in sorted(sums)]


def _bought(line: TransactionLine) -> int:
    """How many more there are by a line. A change has two: the old is given back, the new bought.

    Where both are for nothing, as in a trial, nobody can say which is which.
    """
    if not line.proration or line.amount_minor > 0:
        return line.quantity
    return -line.quantity if line.amount_minor < 0 else 0


def _by_currency(payments: Iterable[TransactionRow]) -> list[MoneySum]:
    sums: dict[str, MoneySum] = {}
    for one in payments:
        before = sums.get(one.currency, MoneySum(one.currency, 0, 0, 0, 0))
        paid = one.amount_minor if one.paid_ms else 0
        sums[one.currency] = MoneySum(
            one.currency,
            before.paid_minor + paid,
            before.tax_minor + (one.tax_minor if one.paid_ms else 0),
            before.refunded_minor + (one.refunded_minor if one.paid_ms else 0),
            before.open_minor + (0 if one.paid_ms else one.amount_minor),
        )
    return [sums[currency] for currency in sorted(sums)]

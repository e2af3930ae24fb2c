"""Money's records, to read: payments, what they come to over a time, and who pays for what.

Amounts are minor units of a currency, and no sum has two currencies in it. Nothing here mixes test
mode with live mode either: every question but that for an account's own list names the mode.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from gateway.ledger.database import rows
from gateway.ledger.searching import ROW_ID_MAX, SCAN_ROWS_MAX, Page, Searching, page_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

R = TypeVar("R")
K = TypeVar("K")

# Of one account in a month.
STATEMENT_PAYMENTS_MAX = 1_000
# Every length of a price that Stripe allows, up to 36 months, divides this one.
MONTHS_ALL = 144_403_552_893_600


class TransactionRow(NamedTuple):
    """What somebody owes, pays or paid: an invoice, or a Checkout session. Tax is in the amount."""

    transaction_id: int
    account_id: int
    livemode: bool
    kind: str
    status: str
    currency: str
    amount_minor: int
    tax_minor: int
    refunded_minor: int
    disputed_minor: int
    invoice_id: str | None
    checkout_session_id: str | None
    payment_intent_id: str | None
    charge_id: str | None
    subscription_id: str | None
    failure: str | None
    created_ms: int
    paid_ms: int  # 0: it is not


class TransactionLine(NamedTuple):
    """What a payment was for; without tax. Its service's period, 0 and 0 for none."""

    transaction_id: int
    line_id: str
    kind: str
    slug: str
    quantity: int
    amount_minor: int
    proration: bool
    period_start_ms: int
    period_end_ms: int


class PaidLot(NamedTuple):
    """Credits that a payment gave."""

    grant_id: int
    microcredits: int


class GivenCredits(NamedTuple):
    """What an account was given in a time, of one source; and what became of that since.

    But for what calls were charged: credited to it, revoked or taken back of it, expired unused.
    """

    source: str
    microcredits: int
    credited_microcredits: int
    revoked_microcredits: int
    expired_microcredits: int


class OverageUse(NamedTuple):
    """What a billing period used beyond its grants; what that was charged with so far.

    `currency` None: nothing yet.
    """

    grant_id: int
    from_ms: int
    until_ms: int
    used_microcredits: int
    currency: str | None
    amount_minor: int


class TransactionFilter(NamedTuple):
    """Which payments; None does not ask. The times are about when they fell due."""

    account_id: int | None = None
    livemode: bool | None = None
    status: str | None = None
    kind: str | None = None
    currency: str | None = None
    from_ms: int | None = None
    until_ms: int | None = None


class RevenueQuery(NamedTuple):
    """What came in and went back in one mode, from `from_ms` to before `until_ms`."""

    livemode: bool
    from_ms: int
    until_ms: int
    currency: str | None = None


class RevenuePoint(NamedTuple):
    """What a day or month brought in, in one currency: gross less refunds and tax is net.

    Refunds are what went back then, of any payment, and the tax is less what went back with them.
    """

    since_ms: int
    currency: str
    payments: int
    gross_minor: int
    refunds_minor: int
    tax_minor: int
    net_minor: int


class ProductRevenue(NamedTuple):
    """What a plan, a pack or overage brought in, without tax: sold less refunds is net.

    Refunds are its part of what went back in the time, of any payment.
    """

    currency: str
    kind: str
    slug: str
    payments: int
    sold_minor: int
    refunds_minor: int
    net_minor: int


class Subscribers(NamedTuple):
    """Who pays in one currency at two moments.

    The amounts are minor units a month in units so small that they are exact: there are MONTHS_ALL
    of these in a minor unit.
    """

    currency: str
    customers: int
    customers_at_start: int
    customers_lost: int
    amount: int
    amount_at_start: int
    amount_lost: int


class Attempts(NamedTuple):
    """Payments that fell due and were tried, and how many of them are not paid."""

    currency: str
    tried: int
    failed: int


ALL_TRANSACTIONS = TransactionFilter()


class Revenue(Searching):
    """What people pay."""

    async def transactions_page(
        self,
        platform_id: int,
        wanted: TransactionFilter = ALL_TRANSACTIONS,
        *,
        after: int | None = None,
        limit: int,
        scan_rows_max: int = SCAN_ROWS_MAX,
    ) -> Page[TransactionRow, int]:
        """A platform's payments, newest first."""
        found = await self._session.all(
            "transaction_page",
            platform_id,
            self.account_in_scope(wanted.account_id),
            after or ROW_ID_MAX,
            scan_rows_max,
            limit + 1,
            wanted.livemode,
            wanted.status,
            wanted.kind,
            wanted.currency,
            wanted.from_ms,
            wanted.until_ms,
        )
        return page_of(found, TransactionRow, _transaction_place, limit, scan_rows_max)

    async def transaction_row(self, platform_id: int, transaction_id: int) -> TransactionRow | None:
        """One of them."""
        record = await self._session.one("transaction_get", platform_id, transaction_id)
        return TransactionRow(**record) if record else None

    async def transaction_lines(
        self, platform_id: int, transaction_ids: Iterable[int]
    ) -> list[TransactionLine]:
        """What payments were for, payment by payment."""
        found = await self._session.all("transaction_lines", platform_id, list(transaction_ids))
        return rows(TransactionLine, found)

    async def transaction_lots(self, platform_id: int, transaction_id: int) -> list[PaidLot]:
        """Which credits a payment gave."""
        return rows(
            PaidLot, await self._session.all("transaction_lots", platform_id, transaction_id)
        )

    async def transaction_taken_back(self, platform_id: int, transaction_id: int) -> int:
        """How many microcredits of what a payment gave are gone with its money."""
        found = await self._session.value("transaction_taken_back", platform_id, transaction_id)
        return int(found)

    async def transactions_of_statement(
        self, platform_id: int, account_id: int, *, livemode: bool, from_ms: int, until_ms: int
    ) -> list[TransactionRow]:
        """An account's payments of a time: by when they were made, else by when they fell due."""
        found = await self._session.all(
            "transaction_paid",
            platform_id,
            account_id,
            livemode,
            from_ms,
            until_ms,
            STATEMENT_PAYMENTS_MAX,
        )
        return rows(TransactionRow, found)

    async def given_credits(
        self, platform_id: int, account_id: int, *, from_ms: int, until_ms: int
    ) -> list[GivenCredits]:
        """What an account was given of each source, to be used from within a time on."""
        found = await self._session.all(
            "statement_grants", platform_id, account_id, from_ms, until_ms
        )
        return rows(GivenCredits, found)

    async def overage_uses(
        self, platform_id: int, account_id: int, *, livemode: bool, from_ms: int, until_ms: int
    ) -> list[OverageUse]:
        """The overage of an account's billing periods that a time touches."""
        found = await self._session.all(
            "statement_overage", platform_id, account_id, from_ms, until_ms, livemode
        )
        return rows(OverageUse, found)

    async def billing_livemode(self, platform_id: int) -> bool:
        """Whether the platform's money is real; so it is where it has no Stripe."""
        return bool(await self._session.value("revenue_mode", platform_id))

    async def revenue_series(
        self,
        platform_id: int,
        query: RevenueQuery,
        *,
        unit: str,
        after: tuple[int, str] | None = None,
        limit: int,
    ) -> Page[RevenuePoint, tuple[int, str]]:
        """By `unit`, day or month, of which the query's times are whole ones, in their order."""
        since_ms, currency = after or (query.from_ms, "")
        found = rows(
            RevenuePoint,
            await self._session.all(
                "revenue_series",
                platform_id,
                query.livemode,
                since_ms,
                query.until_ms,
                unit,
                limit + 1,
                query.currency,
                currency,
            ),
        )
        return _page(found, limit, lambda point: (point.since_ms, point.currency))

    async def revenue_products(
        self,
        platform_id: int,
        query: RevenueQuery,
        *,
        after: tuple[str, str, str] | None = None,
        limit: int,
    ) -> Page[ProductRevenue, tuple[str, str, str]]:
        """By currency, kind and slug."""
        found = rows(
            ProductRevenue,
            await self._session.all(
                "revenue_products",
                platform_id,
                query.livemode,
                query.from_ms,
                query.until_ms,
                query.currency,
                limit + 1,
                *(after or ("", "", "")),
            ),
        )
        return _page(found, limit, lambda one: (one.currency, one.kind, one.slug))

    async def subscribers(self, platform_id: int, query: RevenueQuery) -> list[Subscribers]:
        """Who pays for subscriptions at the query's two moments, currency by currency."""
        found = await self._session.all(
            "revenue_subscribers", platform_id, query.livemode, *query[1:], MONTHS_ALL
        )
        return [
            Subscribers(row["currency"], *(int(figure) for figure in tuple(row)[1:]))
            for row in found
        ]

    async def payment_attempts(self, platform_id: int, query: RevenueQuery) -> list[Attempts]:
        """How payments that fell due within a time ended, currency by currency."""
        found = await self._session.all("revenue_attempts", platform_id, query.livemode, *query[1:])
        return rows(Attempts, found)


def _transaction_place(row: TransactionRow) -> int:
    return row.transaction_id


def _page(found: Sequence[R], limit: int, place: Callable[[R], K]) -> Page[R, K]:
    """A page of a query that was asked for one more than `limit`."""
    if len(found) <= limit:
        return Page(list(found), None)
    return Page(list(found[:limit]), place(found[limit - 1]))

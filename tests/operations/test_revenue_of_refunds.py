"""What goes back of a payment counts when it goes, and all of it together to the last minor unit.

A reference in plain integers computes each span from what is gone of each payment at its two ends.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import pytest_asyncio

from gateway.ledger import Ledger
from gateway.ledger.revenue import RevenueQuery
from gateway.operations.revenue import month_span
from policies.catalog import Plan, Platform
from policies.spans import DAY_MS, HOUR_MS
from tests.support.billing_rows import BillingRows, ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from gateway.ledger.revenue import ProductRevenue, RevenuePoint

MONTHS = [f"2026-{number:02}" for number in range(1, 7)]
CURRENCIES = ("eur", "usd")
SLUGS = ("pro", "team", "max")
PAYMENTS = 60


class Books:
    """A platform with an account that pays and gets money back."""

    def __init__(self, ledger: Ledger, postgres_url: str) -> None:
        self._ledger = ledger
        self._postgres_url = postgres_url

    async def prepare(self, slug: str = "one") -> None:
        applied = await self._ledger.apply_catalog(Platform(slug), [Plan("free", 0)], [])
        self.platform_id = applied.platform_id
        made = await self._ledger.create_account(self.platform_id, "ada")
        assert made is not None
        self.account_id = made
        self.rows = BillingRows(self._postgres_url, self.platform_id)

    async def paid(self, *lines: int, tax: int = 0, **fields: Any) -> int:
        """A payment of these lines, of one product each, in January unless it is said."""
        return await self.rows.transaction(
            self.account_id,
            [{"slug": SLUGS[n], "amount_minor": amount} for n, amount in enumerate(lines)],
            amount_minor=sum(lines) + tax,
            tax_minor=tax,
            **{"paid_at": "2026-01-31T23:59", **fields},
        )

    async def points(
        self, *months: str, unit: str = "month", livemode: bool = True
    ) -> list[RevenuePoint]:
        """From the first of these months to the last."""
        (from_ms, _), (_, until_ms) = month_span(months[0]), month_span(months[-1])
        query = RevenueQuery(livemode, from_ms, until_ms)
        page = await self._ledger.revenue_series(self.platform_id, query, unit=unit, limit=1_000)
        return list(page.rows)

    async def products(self, *months: str) -> list[ProductRevenue]:
        """The same by product."""
        (from_ms, _), (_, until_ms) = month_span(months[0]), month_span(months[-1])
        query = RevenueQuery(True, from_ms, until_ms)  # noqa: FBT003 - live mode
        return list(
            (await self._ledger.revenue_products(self.platform_id, query, limit=1_000)).rows
        )


@pytest_asyncio.fixture
async def books(postgres_url: str) -> AsyncIterator[Books]:
    async with Ledger(postgres_url) as ledger:
        prepared = Books(ledger, postgres_url)
        await prepared.prepare()
        yield prepared


def figures(point: RevenuePoint | None) -> tuple[int, ...]:
    """Payments, gross, refunds, tax, net."""
    return () if point is None else tuple(point)[2:]


async def test_a_month_that_is_over_stays_as_it_was_whatever_goes_back_later(books: Books) -> None:
    payment = await books.paid(700, 300, tax=190)
    await books.rows.moved(payment, 100, "2026-02-10")
    months = MONTHS[:2]
    before = await books.points(*months), await books.products(*months)
    days = await books.points(*months, unit="day")

    await books.rows.moved(payment, 1_090, "2026-03-01")

    assert (await books.points(*months), await books.products(*months)) == before
    assert await books.points(*months, unit="day") == days
    assert [figures(one) for one in await books.points("2026-03")] == [
        (0, 0, 1_090, -175, -915)  # of 1.90 of tax 0.15 had gone with 1.00 of 11.90
    ]
    assert await books.points("2026-04") == []
    assert await books.products("2026-04") == []


async def test_thirds_in_three_months_are_the_whole_payment(books: Books) -> None:
    payment = await books.paid(333, 333, 175, tax=159)
    for month, amount in (("02", 333), ("03", 333), ("05", 334)):
        await books.rows.moved(payment, amount, f"2026-{month}-15")

    assert [figures(one) for one in await books.points(*MONTHS)] == [
        (1, 1_000, 0, 159, 841),
        (0, 0, 333, -52, -281),
        (0, 0, 333, -53, -280),
        (0, 0, 334, -54, -280),
    ]
    whole = await books.products(*MONTHS)
    assert [(one.payments, one.net_minor) for one in whole] == [(1, 0)] * 3
    gone = Counter[str]()
    for month in MONTHS:
        for one in await books.products(month):
            gone[one.slug] += one.refunds_minor
    assert gone == {"pro": 333, "team": 333, "max": 175}


async def test_a_dispute_goes_where_it_was_drawn_and_comes_again_where_it_was_won(
    books: Books,
) -> None:
    payment = await books.paid(1_000, tax=190)
    await books.rows.moved(payment, 1_190, "2026-02-28T23:59")
    await books.rows.moved(payment, -1_190, "2026-03-01")

    assert [figures(one) for one in await books.points(*MONTHS)] == [
        (1, 1_190, 0, 190, 1_000),
        (0, 0, 1_190, -190, -1_000),
        (0, 0, -1_190, 190, 1_000),
    ]
    assert [one.net_minor for one in await books.products("2026-03")] == [1_000]
    (whole,) = await books.products(*MONTHS)
    assert (whole.sold_minor, whole.refunds_minor) == (1_000, 0)


async def test_what_is_refunded_and_disputed_goes_back_once(books: Books) -> None:
    payment = await books.paid(1_000)
    await books.rows.moved(payment, 700, "2026-02-10")
    await books.rows.moved(payment, 1_000, "2026-03-10")  # disputed as a whole
    await books.rows.moved(payment, 200, "2026-04-10")
    assert [one.refunds_minor for one in await books.points(*MONTHS)] == [0, 700, 300, 0]

    await books.rows.moved(payment, -1_000, "2026-05-10")  # and won: two refunds stay

    assert [one.refunds_minor for one in await books.points(*MONTHS)] == [0, 700, 300, 0, -100]


async def test_what_is_not_paid_has_no_part_in_it(books: Books) -> None:
    unpaid = await books.paid(1_000, paid_at=None)
    free = await books.paid(0)
    for payment in (unpaid, free):
        await books.rows.moved(payment, 500, "2026-02-10")

    points = await books.points(*MONTHS)
    assert {one.net_minor for one in points} == {0}
    assert {one.net_minor for one in await books.products(*MONTHS)} == {0}


async def test_moves_of_another_platform_or_mode_are_in_no_figure(
    books: Books, postgres_url: str
) -> None:
    tests = BillingRows(postgres_url, books.platform_id, livemode=False)
    of_test = await tests.transaction(books.account_id, [{"amount_minor": 1_000}])
    async with Ledger(postgres_url) as ledger:
        other = Books(ledger, postgres_url)
        await other.prepare("two")
        of_other = await other.paid(1_000)
        await tests.moved(of_test, 300, "2026-02-10")
        await other.rows.moved(of_other, 400, "2026-02-10")

        assert await books.points("2026-02") == []
        assert await books.products("2026-02") == []
        assert [one.refunds_minor for one in await other.points("2026-02")] == [400]
        in_tests = await books.points("2026-02", livemode=False)
        assert [one.refunds_minor for one in in_tests] == [300]


class Line(NamedTuple):
    """What a payment was for."""

    slug: str
    amount: int


class Made(NamedTuple):
    """A payment and its moves, each with its time."""

    currency: str
    paid_ms: int
    amount: int
    tax: int
    lines: Sequence[Line]
    moves: Sequence[tuple[int, int]]

    def gone(self, until_ms: int) -> int:
        """What of it is gone of what moved before then."""
        moved = sum(amount for at_ms, amount in self.moves if at_ms < until_ms)
        return max(min(moved, self.amount), 0)

    def tax_gone(self, until_ms: int) -> int:
        """Its part of tax."""
        return cut(self.tax * self.gone(until_ms), self.amount)

    def lines_gone(self, until_ms: int) -> Counter[str]:
        """Its lines' parts, by product."""
        gone, so_far, parts = self.gone(until_ms) - self.tax_gone(until_ms), 0, Counter[str]()
        whole = sum(line.amount for line in self.lines)
        for line in self.lines:
            until = so_far + line.amount
            parts[line.slug] += cut(gone * until, whole) - cut(gone * so_far, whole)
            so_far = until
        return parts


def cut(part: int, whole: int) -> int:
    """Of a fraction the whole number that is nearer to 0; of nothing, nothing."""
    if not whole:
        return 0
    sign = 1 if (part < 0) == (whole < 0) else -1
    return sign * (abs(part) // abs(whole))


def made_by(chance: random.Random) -> Made:
    """A payment of some lines, some of which give back, and of which this and that goes back."""
    lines = [
        Line(chance.choice(SLUGS), chance.choice((1, 7, 333, 999, 1_000, 12_345)))
        for _ in range(chance.randint(1, 4))
    ]
    if chance.random() < 0.4:
        lines.insert(
            chance.randint(0, len(lines)),
            Line(chance.choice(SLUGS), -chance.randint(0, sum(line.amount for line in lines) - 1)),
        )
    net = sum(line.amount for line in lines)
    tax = chance.choice((0, net * 19 // 100, net // 3))
    begin_ms, end_ms = ms("2026-01-01"), ms("2026-07-01")
    moves: list[tuple[int, int]] = []
    paid_ms = chance.randrange(begin_ms, end_ms, HOUR_MS)
    for _ in range(chance.choice((0, 1, 1, 2, 3, 5))):
        amount = chance.choice((1, (net + tax) // 3, (net + tax) // 2, net + tax))
        at_ms = chance.randrange(paid_ms, end_ms, HOUR_MS)
        moves.append((at_ms, amount))
        if chance.random() < 0.3:
            moves.append((min(at_ms + chance.choice((0, 1, 40)) * DAY_MS, end_ms - 1), -amount))
    return Made(chance.choice(CURRENCIES), paid_ms, net + tax, tax, lines, moves)


async def write(books: Books, payment: Made) -> None:
    """A payment's rows."""
    transaction_id = await books.rows.transaction(
        books.account_id,
        [{"slug": line.slug, "amount_minor": line.amount} for line in payment.lines],
        currency=payment.currency,
        amount_minor=payment.amount,
        tax_minor=payment.tax,
        paid_at=None,
    )
    await books.rows.sql(
        "UPDATE billing_transactions SET paid_at = from_ms($2) WHERE id = $1",
        transaction_id,
        payment.paid_ms,
    )
    for number, (at_ms, amount) in enumerate(payment.moves):
        await books.rows.sql(
            "INSERT INTO billing_returns SELECT id, 're_' || $2::text, platform_id, account_id,"
            " from_ms($3), $4 FROM billing_transactions WHERE id = $1",
            transaction_id,
            str(number),
            at_ms,
            amount,
        )


def expected(
    payments: Sequence[Made], currency: str, from_ms: int, until_ms: int
) -> tuple[tuple[int, ...], Counter[str]]:
    """Payments, gross, refunds, tax and net of a span, and what was kept of each product."""
    count = gross = refunds = tax = 0
    kept = Counter[str]()
    for one in payments:
        if one.currency != currency:
            continue
        if from_ms <= one.paid_ms < until_ms:
            count, gross, tax = count + 1, gross + one.amount, tax + one.tax
            for line in one.lines:
                kept[line.slug] += line.amount
        refunds += one.gone(until_ms) - one.gone(from_ms)
        tax -= one.tax_gone(until_ms) - one.tax_gone(from_ms)
        kept.subtract(one.lines_gone(until_ms))
        kept.update(one.lines_gone(from_ms))
    return (count, gross, refunds, tax, gross - refunds - tax), kept


@pytest.mark.parametrize("seed", range(4))
async def test_months_add_up_to_the_whole_and_products_to_net_in_each(
    books: Books, seed: int
) -> None:
    chance = random.Random(f"refunds {seed}")
    payments = [made_by(chance) for _ in range(PAYMENTS)]
    for payment in payments:
        await write(books, payment)

    points = await books.points(*MONTHS)
    days = await books.points(*MONTHS, unit="day")
    for currency in CURRENCIES:
        of_months = {one.since_ms: one for one in points if one.currency == currency}
        for month in MONTHS:
            from_ms, until_ms = month_span(month)
            right, kept = expected(payments, currency, from_ms, until_ms)
            sold = [one for one in await books.products(month) if one.currency == currency]
            assert (figures(of_months.get(from_ms)) or (0,) * 5) == right, month
            assert {one.slug: one.net_minor for one in sold} == {
                slug: kept[slug] for slug in sorted(one.slug for one in sold)
            }
            assert sum(one.net_minor for one in sold) == right[-1]
            in_days = [
                figures(one)
                for one in days
                if one.currency == currency and from_ms <= one.since_ms < until_ms
            ]
            assert tuple(map(sum, zip(*in_days, strict=True))) == right
        # What was the definition of all time: of each payment what is gone of it in the end.
        mine = [one for one in payments if one.currency == currency]
        gone = [min(max(sum(amount for _, amount in one.moves), 0), one.amount) for one in mine]
        taxes = [cut(one.tax * part, one.amount) for one, part in zip(mine, gone, strict=True)]
        assert sum(one.refunds_minor for one in of_months.values()) == sum(gone)
        assert sum(one.tax_minor for one in of_months.values()) == sum(
            one.tax for one in mine
        ) - sum(taxes)

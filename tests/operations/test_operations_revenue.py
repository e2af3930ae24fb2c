"""Revenue is what docs/revenue.md says, to the last minor unit: its example, worked by hand there.

A figure of the page that is no longer what is computed here fails the last test.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.ledger import Ledger, Scope, Tenancy
from gateway.ledger.revenue import RevenueQuery
from gateway.operations.errors import UsageError
from gateway.operations.revenue import metrics_of, metrics_query, month_span, revenue_query
from policies.catalog import Plan, Platform
from policies.money import format_minor
from policies.units import format_percent
from tests.support.billing_rows import BillingRows, ms
from tests.support.dev import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.ledger.revenue import RevenuePoint
    from gateway.operations.revenue import Metrics

PAGE = ROOT / "docs" / "revenue.md"
NOW_MS = ms("2026-12-05T10:00")
MINUS = "\N{MINUS SIGN}"  # as the page writes it
NAMES = ("ada", "ben", "cleo", "dan", "eva", "fred", "gus", "hana")


class Books:
    """The platform of the page's example, and another one."""

    def __init__(self, ledger: Ledger, postgres_url: str) -> None:
        self.ledger = ledger
        self._postgres_url = postgres_url

    async def prepare(self) -> None:
        self.platform_id = await self._platform("one")
        self.other_id = await self._platform("two")
        self.rows = BillingRows(self._postgres_url, self.platform_id)
        self.accounts = {name: await self._account(self.platform_id, name) for name in NAMES}
        await self._subscriptions()
        await self._payments()
        await self._of_others()

    async def _subscriptions(self) -> None:
        rows, who = self.rows, self.accounts
        await rows.subscription(who["ada"], started_at="2026-08-01")
        await rows.subscription(
            who["ben"], started_at="2026-03-15", unit_amount=12_000, months=12, quantity=2
        )
        await rows.subscription(
            who["cleo"],
            started_at="2026-10-10",
            unit_amount=3_000,
            discount_minor=1_500,
        )
        await rows.subscription(
            who["dan"], started_at="2026-09-01", ended_at="2026-11-20", status="canceled"
        )
        await rows.subscription(
            who["eva"], started_at="2026-11-25", trial_end_at="2026-12-02", status="trialing"
        )
        await rows.subscription(who["fred"], started_at="2026-05-01", collection_paused=True)
        await rows.subscription(who["gus"], started_at="2026-11-10", unit_amount=10_000, months=12)
        await rows.subscription(
            who["hana"],
            started_at="2026-07-15",
            ended_at="2026-11-15",
            unit_amount=3_000,
            status="canceled",
        )
        await rows.subscription(who["hana"], started_at="2026-11-15")

    async def _payments(self) -> None:
        rows, who = self.rows, self.accounts
        await rows.transaction(
            who["ada"], [{"amount_minor": 1_000}], amount_minor=1_190, tax_minor=190
        )
        await rows.transaction(
            who["ada"],
            [{"amount_minor": 1_000}],
            amount_minor=1_190,
            tax_minor=190,
            paid_at="2026-12-01",
        )
        ben = await rows.transaction(
            who["ben"],
            [{"amount_minor": 500}, {"kind": "pack", "slug": "big", "amount_minor": 1_500}],
            amount_minor=2_380,
            tax_minor=380,
            refunded_minor=1_590,
            paid_at="2026-11-02",
        )
        await rows.moved(ben, 1_190, "2026-11-20")
        await rows.moved(ben, 400, "2026-12-02")
        hana = await rows.transaction(
            who["hana"],
            [
                {"amount_minor": -333, "proration": True},
                {"slug": "team", "amount_minor": 1_000, "proration": True},
            ],
            kind="change",
            amount_minor=667,
            paid_at="2026-11-15",
        )
        await rows.moved(hana, 100, "2026-11-25")
        await rows.moved(hana, -100, "2026-12-04")
        await rows.transaction(
            who["gus"], [{"amount_minor": 500}], currency="usd", amount_minor=500
        )
        await rows.transaction(who["dan"], [{"amount_minor": 1_000}], paid_at="2026-10-01")
        for status, failure in (
            *(("succeeded", None),) * 3,
            ("refunded", None),
            ("failed", "Your card was declined."),
            ("cancelled", "Your card was declined."),
            ("cancelled", None),
            ("pending", None),
        ):
            await rows.transaction(
                who["cleo"], status=status, failure=failure, paid_at=None, created_at="2026-11-12"
            )

    async def _of_others(self) -> None:
        """What must be in no figure: test mode, and another platform's."""
        foreign = await self._account(self.other_id, "ada")
        for rows, account in (
            (BillingRows(self._postgres_url, self.platform_id, livemode=False), "ada"),
            (BillingRows(self._postgres_url, self.other_id), None),
        ):
            account_id = foreign if account is None else self.accounts[account]
            await rows.subscription(account_id, stripe_id="sub_other")
            other = await rows.transaction(
                account_id, [{"amount_minor": 777}], amount_minor=777, business_key="other"
            )
            for made_at in ("2026-11-20", "2026-12-02"):
                await rows.moved(other, 77, made_at)

    async def month(self, month: str) -> RevenuePoint:
        """What a month brought in, in euro."""
        query = RevenueQuery(True, *month_span(month), "eur")  # noqa: FBT003 - live mode
        page = await self.ledger.revenue_series(self.platform_id, query, unit="month", limit=10)
        (point,) = page.rows
        return point

    async def sold(self, month: str) -> list[tuple[object, ...]]:
        """Of what, in all currencies."""
        query = RevenueQuery(True, *month_span(month))  # noqa: FBT003 - live mode
        page = await self.ledger.revenue_products(self.platform_id, query, limit=10)
        return [tuple(one) for one in page.rows]

    async def metrics(self, month: str = "2026-11") -> list[Metrics]:
        query = metrics_query(month, now_ms=NOW_MS, livemode=True)
        return await metrics_of(self.ledger, self.platform_id, query)

    async def _platform(self, slug: str) -> int:
        plans = [Plan("free", 0)]
        return (await self.ledger.apply_catalog(Platform(slug), plans, [])).platform_id

    async def _account(self, platform_id: int, name: str) -> int:
        made = await self.ledger.create_account(platform_id, name)
        assert made is not None
        return made


@pytest_asyncio.fixture
async def books(postgres_url: str) -> AsyncIterator[Books]:
    async with Ledger(postgres_url) as ledger:
        prepared = Books(ledger, postgres_url)
        await prepared.prepare()
        yield prepared


async def test_mrr_is_what_subscriptions_that_are_paid_for_bring_in_a_month(books: Books) -> None:
    """A year's price by 12, with discounts and quantities, without trials and pauses."""
    (eur, _) = await books.metrics()

    assert eur.currency == "eur"
    assert eur.mrr_minor == 1_000 + 2_000 + 1_500 + 833 + 1_000
    assert eur.customers == 5
    assert eur.arpu_minor == 1_267  # 63.333… / 5


async def test_churn_is_who_stopped_paying_and_how_much_that_was(books: Books) -> None:
    (eur, _) = await books.metrics()

    assert (eur.customers_lost, eur.customers_at_start, eur.customer_churn) == (1, 5, 2_000)
    assert eur.mrr_at_start_minor == 1_000 + 2_000 + 1_500 + 1_000 + 3_000
    assert eur.mrr_lost_minor == 1_000 + (3_000 - 1_000)
    assert eur.revenue_churn == 3_529  # 30 / 85
    assert eur.ltv_minor == 6_333  # 12.6666… / 0.2


async def test_the_failed_payment_rate_is_of_payments_that_were_tried(books: Books) -> None:
    eur, usd = await books.metrics()

    # Three that are paid by themselves, and 3 + 1 + 1 + 1 of cleo's eight.
    assert (eur.payments_failed, eur.payments_tried, eur.failed_payments) == (2, 9, 2_222)
    assert (usd.payments_failed, usd.payments_tried, usd.failed_payments) == (0, 1, 0)


async def test_what_can_not_be_divided_is_no_figure(books: Books) -> None:
    _, usd = await books.metrics()

    assert usd.mrr_minor == 0
    assert (usd.arpu_minor, usd.customer_churn, usd.revenue_churn, usd.ltv_minor) == (None,) * 4


async def test_thirds_of_minor_units_are_added_before_they_are_rounded(books: Books) -> None:
    rows = BillingRows(books._postgres_url, books.platform_id)
    for number in range(3):
        await rows.subscription(
            books.accounts[NAMES[number]],
            stripe_id=f"sub_third_{number}",
            currency="chf",
            unit_amount=1_000,
            months=12,
        )

    chf = (await books.metrics())[0]

    assert chf.mrr_minor == 250  # 83.333… three times; each rounded by itself it would be 249


async def test_a_subscription_that_is_left_unpaid_is_lost_when_that_began(books: Books) -> None:
    rows = BillingRows(books._postgres_url, books.platform_id)
    unpaid = {"currency": "chf", "unpaid_since": "2026-11-08"}
    for number, more in enumerate(
        (
            {"status": "unpaid"},
            {"status": "past_due", "dunning_stage": "downgraded"},
            {"status": "past_due", "dunning_stage": "notified"},  # may be paid yet
        )
    ):
        await rows.subscription(
            books.accounts[NAMES[number]], stripe_id=f"sub_{number}_chf", **unpaid, **more
        )

    chf = (await books.metrics())[0]

    assert (chf.customers_at_start, chf.customers_lost, chf.customers) == (3, 2, 1)


async def test_gross_less_refunds_and_tax_is_net(books: Books) -> None:
    query = revenue_query("month", ms("2026-10-05"), NOW_MS, now_ms=0, livemode=True)

    page = await books.ledger.revenue_series(books.platform_id, query, unit="month", limit=10)

    assert [tuple(point) for point in page.rows] == [
        (ms("2026-10-01"), "eur", 1, 1_000, 0, 0, 1_000),
        # 11.90 + 23.80 + 6.67; of 3.80 of tax half went back with 11.90 of 23.80.
        (ms("2026-11-01"), "eur", 3, 4_237, 1_190 + 100, 190 + 190, 2_567),
        (ms("2026-11-01"), "usd", 1, 500, 0, 0, 500),
        # 4.00 more of ben's: 15.90 of 23.80 take 2.53 of 3.80 of tax, 1.90 of which were gone.
        (ms("2026-12-01"), "eur", 1, 1_190, 400 - 100, 190 - (253 - 190), 763),
    ]
    assert page.after is None


async def test_products_add_up_to_net_to_the_last_minor_unit(books: Books) -> None:
    november, december = await books.sold("2026-11"), await books.sold("2026-12")

    assert november == [
        # currency, kind, slug, payments, sold, refunds, net
        ("eur", "pack", "big", 1, 1_500, 750, 750),
        ("eur", "plan", "pro", 3, 1_000 + 500 - 333, 250 - 49, 966),
        ("eur", "plan", "team", 1, 1_000, 149, 851),
        ("usd", "plan", "pro", 1, 500, 0, 500),
    ]
    assert december == [
        ("eur", "pack", "big", 0, 0, 253, -253),
        ("eur", "plan", "pro", 1, 1_000, 84 + 49, 867),
        ("eur", "plan", "team", 0, 0, -149, 149),
    ]
    assert (await books.month("2026-11")).net_minor == 750 + 966 + 851
    assert (await books.month("2026-12")).net_minor == -253 + 867 + 149


async def test_pages_go_on_where_the_last_one_ended(books: Books) -> None:
    query = revenue_query("day", ms("2026-10-01"), NOW_MS, now_ms=0, livemode=True)
    whole = await books.ledger.revenue_series(books.platform_id, query, unit="day", limit=100)
    products = await books.ledger.revenue_products(books.platform_id, query, limit=100)

    days, place = [], None
    while True:
        page = await books.ledger.revenue_series(
            books.platform_id, query, unit="day", after=place, limit=1
        )
        days += page.rows
        if (place := page.after) is None:
            break
    sold, at = [], None
    while True:
        part = await books.ledger.revenue_products(books.platform_id, query, after=at, limit=1)
        sold += part.rows
        if (at := part.after) is None:
            break

    assert days == whole.rows
    assert [point.refunds_minor for point in days] == [0] * 5 + [1_190, 100, 0, 400, -100]
    assert sold == products.rows


async def test_an_account_sees_nothing_of_the_platforms_revenue(
    books: Books, postgres_url: str
) -> None:
    """By its own numbers alone, whatever it asks."""
    query = revenue_query("month", ms("2026-10-01"), NOW_MS, now_ms=0, livemode=True)
    async with Tenancy(postgres_url) as tenancy:
        dan = tenancy.ledger(Scope(books.platform_id, books.accounts["dan"], "test"))
        own = await dan.revenue_series(books.platform_id, query, unit="month", limit=10)
        sold = await dan.revenue_products(books.platform_id, query, limit=10)
        listed = await dan.transactions_page(books.platform_id, limit=10)
        ben = tenancy.ledger(Scope(books.platform_id, books.accounts["ben"], "test"))
        bens = await ben.revenue_series(books.platform_id, query, unit="month", limit=10)
        stranger = tenancy.ledger(Scope(books.other_id, None, "test"))
        foreign = await stranger.revenue_series(books.platform_id, query, unit="month", limit=10)

    assert [(point.gross_minor, point.refunds_minor) for point in own.rows] == [(1_000, 0)]
    assert [(one.sold_minor, one.refunds_minor) for one in sold.rows] == [(1_000, 0)]
    assert {row.account_id for row in listed.rows} == {books.accounts["dan"]}
    assert [point.refunds_minor for point in bens.rows] == [1_190, 400]
    assert foreign.rows == []


def test_times_are_widened_to_whole_days_and_months() -> None:
    now = ms("2026-11-21T15:00")
    months = revenue_query("month", None, None, now_ms=now, livemode=True)
    days = revenue_query("day", None, None, now_ms=now, livemode=False, currency="eur")
    running = metrics_query("2026-11", now_ms=now, livemode=True)
    last = metrics_query(None, now_ms=now, livemode=True)

    assert months == (True, ms("2025-12-01"), ms("2026-12-01"), None)
    assert days == (False, ms("2026-10-23"), ms("2026-11-22"), "eur")
    assert running == (True, ms("2026-11-01"), now, None)
    assert last == (True, ms("2026-10-22T15:00"), now, None)
    assert month_span("2026-12") == (ms("2026-12-01"), ms("2027-01-01"))


@pytest.mark.parametrize("month", ["2026", "2026-13", "26-11", "2026-1", "", "2027-01"])
def test_what_is_no_month_that_has_begun_is_refused(month: str) -> None:
    with pytest.raises(UsageError):
        metrics_query(month, now_ms=ms("2026-11-21"), livemode=True)


async def test_the_page_states_the_figures_that_are_computed(books: Books) -> None:
    (eur, _) = await books.metrics()

    assert stated("What it comes to") == {
        **figures(await books.month("2026-11")),
        "mrr": money(eur.mrr_minor),
        "customers": str(eur.customers),
        "arpu": money(eur.arpu_minor or 0),
        "customer churn": format_percent(eur.customer_churn or 0) + " %",
        "revenue churn": format_percent(eur.revenue_churn or 0) + " %",
        "ltv": money(eur.ltv_minor or 0),
        "failed payments": format_percent(eur.failed_payments or 0) + " %",
    }
    assert stated("And December, until the 5th") == figures(await books.month("2026-12"))


async def test_the_page_states_what_each_product_comes_to(books: Books) -> None:
    for month, title in (
        ("2026-11", "What it comes to"),
        ("2026-12", "And December, until the 5th"),
    ):
        _, _, products = section(title).partition("pack big")
        said = re.findall(rf"(\w+)\s[^;]*? is ({MINUS}?[\d.]+);", f"big{products}")
        assert said == [
            (str(slug), money(int(str(net))).replace("-", MINUS))
            for currency, _, slug, *_, net in await books.sold(month)
            if currency == "eur"
        ]


def figures(point: RevenuePoint) -> dict[str, str]:
    """What a month brought in, by the figure's name."""
    return {
        "gross": money(point.gross_minor),
        "refunds": money(point.refunds_minor),
        "tax": money(point.tax_minor),
        "net": money(point.net_minor),
    }


def money(amount_minor: int) -> str:
    return format_minor(amount_minor, "eur")


def section(title: str) -> str:
    """What the page says under a title."""
    _, _, rest = PAGE.read_text().partition(f"\n## {title}\n")
    return rest.partition("\n## ")[0]


def stated(title: str) -> dict[str, str]:
    """What a table of results says, by the figure's name."""
    return dict(
        re.findall(r"^\| (\w[^|]*?) \| [^|]* \| \*\*([^*|]+)\*\* \|$", section(title), re.MULTILINE)
    )

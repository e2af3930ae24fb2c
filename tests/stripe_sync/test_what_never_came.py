"""What no event told us is found at Stripe, once, however long the endpoint was down."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio

from gateway.config.stripe import StripeTable
from gateway.jobs.stripe_events import StripeReconciliation
from gateway.ledger import Ledger
from gateway.stripe_sync.errors import NeedsMendingError, StripeUnavailableError
from gateway.stripe_sync.reconcile import Place, Reconciler
from policies.catalog import Plan, Platform
from tests.support.inbox import TEST, execute, jobs, statuses
from tests.support.stripe_intake import SECRET, running_intake
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.events import Hint
    from gateway.stripe_sync.reconcile import Report
    from gateway.stripe_sync.sync import Sync
    from tests.support.stripe_intake import Intake

HOUR_MS = 3_600_000


@pytest_asyncio.fixture
async def intake(postgres_url: str) -> AsyncIterator[Intake]:
    async with running_intake(postgres_url) as running:
        running.handlers |= {"customer.created": running.record, "invoice.paid": running.record}
        yield running


async def reconcile(intake: Intake, **options: Any) -> Report:
    sync = await intake.billing.sync(intake.platform_id)
    return await Reconciler(sync, intake.queue, intake.handlers).reconcile(**options)


async def kept(intake: Intake) -> set[str]:
    return set(await statuses(intake.postgres_url))


def made(intake: Intake, *types: str) -> set[str]:
    return {one["id"] for kind in types for one in intake.fake.events(kind)}


class Books:
    """Invoices and sessions that a handler books as the real ones do: once, by their key."""

    def __init__(self, intake: Intake, account_id: int) -> None:
        self.intake = intake
        self.account_id = account_id
        self.handled: list[str] = []
        self.failure: Exception | None = None

    async def book(self, _sync: Sync, hint: Hint) -> None:
        self.handled.append(hint.object_id)
        if self.failure is not None:
            raise self.failure
        kind = "invoice" if hint.type.startswith("invoice") else "checkout"
        await self.write(f"{kind}:{hint.object_id}", "succeeded")

    async def write(self, business_key: str, status: str) -> None:
        await execute(
            self.intake.postgres_url,
            "INSERT INTO billing_transactions (platform_id, account_id, livemode, business_key,"
            " kind, status, currency, amount_minor, created_at)"
            " VALUES ($1, $2, false, $3, 'other', $4, 'usd', 1, now())"
            " ON CONFLICT (platform_id, livemode, business_key) DO UPDATE SET status = $4",
            self.intake.platform_id,
            self.account_id,
            business_key,
            status,
        )

    async def keys(self) -> list[str]:
        connection = await asyncpg.connect(self.intake.postgres_url)
        try:
            found = await connection.fetch(
                "SELECT business_key FROM billing_transactions WHERE status = 'succeeded'"
                " ORDER BY business_key"
            )
        finally:
            await connection.close()
        return [row["business_key"] for row in found]


@pytest_asyncio.fixture
async def books(intake: Intake) -> Books:
    plan = Plan("free", 1_000)
    await intake.ledger.apply_catalog(Platform("demo"), (plan,), ())
    account_id = await intake.ledger.create_account(intake.platform_id, "alice", "free")
    assert account_id is not None
    kept_books = Books(intake, account_id)
    intake.handlers.clear()
    intake.handlers |= {
        "invoice.paid": kept_books.book,
        "checkout.session.completed": kept_books.book,
    }
    return kept_books


async def test_an_endpoint_that_was_down_for_longer_than_three_days_misses_nothing(
    intake: Intake,
) -> None:
    endpoint = intake.fake.add_endpoint("http://127.0.0.1:9/nobody")
    before = await intake.shop.customer()
    await intake.fake.delivered()
    await intake.fake.advance(days=4)
    assert {each.state for each in intake.fake.deliveries.all} == {"given up"}

    endpoint.url = f"{intake.url}/webhooks/stripe/demo"
    after = await intake.shop.customer()
    await intake.fake.delivered()
    assert len(await kept(intake)) == 1
    report = await reconcile(intake)
    assert (report.events_added, report.next) == (1, None)
    assert await kept(intake) == made(intake, "customer.created")
    async with intake.working():
        await eventually(lambda: len(intake.seen) == 2)
    assert {hint.object_id for hint in intake.seen} == {before, after}
    row, payload = await intake.ledger.stripe_event(  # type: ignore[misc] # it is there
        intake.platform_id, intake.fake.events("customer.created")[0]["id"]
    )
    assert (row.source, row.shape, payload["type"]) == ("reconcile", "snapshot", "customer.created")


async def test_a_second_reconciliation_changes_nothing(intake: Intake, books: Books) -> None:
    intake.handlers["customer.created"] = intake.record
    await intake.shop.subscribe(await intake.shop.price(interval="month"))
    first = await reconcile(intake)
    async with intake.working():
        await eventually(lambda: no_jobs(intake))
    state = await statuses(intake.postgres_url), await books.keys()
    assert (first.events_added, first.payments_mended) == (3, 1)
    again = await reconcile(intake)
    assert (again.events_added, again.payments_mended, again.problems) == (0, 0, [])
    assert (again.events_seen, again.payments_seen) == (first.events_seen, first.payments_seen)
    assert (await statuses(intake.postgres_url), await books.keys()) == state
    assert await jobs(intake.postgres_url) == {}


async def test_all_pages_are_looked_at_and_it_goes_on_where_it_ended(intake: Intake) -> None:
    for _ in range(230):
        await intake.shop.customer()
    place, reports = None, []
    while True:
        report = await reconcile(intake, start=place, enough=lambda: True)
        reports.append(report)
        place = report.next
        if place is None:
            break
    assert [report.events_added for report in reports] == [100, 100, 30, 0]
    assert reports[2].next == Place("events", intake.fake.events()[0]["id"])
    assert await kept(intake) == made(intake, "customer.created")


async def test_what_nobody_handles_is_not_kept(intake: Intake) -> None:
    await intake.shop.price()
    report = await reconcile(intake)
    assert report.events_seen > 0
    assert (report.events_added, await kept(intake)) == (0, set())


async def test_events_are_looked_at_from_where_the_last_one_ended(intake: Intake) -> None:
    await intake.shop.customer()
    await intake.fake.advance(days=2)
    await intake.shop.customer()
    since_ms = (intake.fake.clock.now_s - 3_600) * 1_000
    assert (await reconcile(intake, events_since_ms=since_ms)).events_added == 1
    assert (await reconcile(intake)).events_added == 1


async def test_paid_invoices_and_packs_that_the_books_lack_are_worked_on(
    intake: Intake, books: Books
) -> None:
    monthly, pack = await intake.shop.price(interval="month"), await intake.shop.price()
    await intake.shop.subscribe(monthly)
    await intake.shop.subscribe(monthly)
    bought = await intake.shop.buy(pack)
    await intake.shop.session(pack)  # opened and not paid
    paid = [one["data"]["object"]["id"] for one in intake.fake.events("invoice.paid")]
    await books.write(f"invoice:{paid[0]}", "succeeded")
    await books.write(f"invoice:{paid[1]}", "pending")
    report = await reconcile(intake, stages=("invoices", "packs"))
    assert (report.payments_seen, report.payments_mended) == (3, 2)
    assert sorted(books.handled) == sorted([paid[1], bought["id"]])
    assert await books.keys() == sorted(
        [f"checkout:{bought['id']}", *(f"invoice:{one}" for one in paid)]
    )
    assert await jobs(intake.postgres_url) == {}


async def test_a_payment_that_can_not_be_booked_is_told_and_others_are(
    intake: Intake, books: Books
) -> None:
    monthly = await intake.shop.price(interval="month")
    await intake.shop.subscribe(monthly)
    books.failure = NeedsMendingError("the customer is nobody's")
    report = await reconcile(intake, stages=("invoices",))
    assert [told.problem for told in report.problems] == ["the customer is nobody's"]
    assert report.payments_mended == 0
    books.failure = None
    assert (await reconcile(intake, stages=("invoices",))).payments_mended == 1


async def test_trouble_ends_a_reconciliation(intake: Intake, books: Books) -> None:
    await intake.shop.subscribe(await intake.shop.price(interval="month"))
    books.failure = StripeUnavailableError("Stripe is away")
    with pytest.raises(StripeUnavailableError):
        await reconcile(intake, stages=("invoices",))
    intake.fake.fail_next(10)
    with pytest.raises(StripeUnavailableError):
        await reconcile(intake)


@pytest_asyncio.fixture
async def with_settings(intake: Intake) -> Intake:
    table = StripeTable("env:STRIPE_KEY", ())
    assert await intake.ledger.save_stripe_settings(
        intake.platform_id, table, livemode=False, managed_by="config"
    )
    return intake


async def test_eight_nodes_take_a_platforms_turn_once(with_settings: Intake) -> None:
    url = with_settings.postgres_url
    async with AsyncExitStack() as nodes:
        ledgers = [await nodes.enter_async_context(Ledger(url)) for _ in range(8)]
        turns = await asyncio.gather(*(one.claim_stripe_turn(HOUR_MS) for one in ledgers))
    assert [turn for turn in turns if turn] == [with_settings.platform_id]
    assert await with_settings.ledger.claim_stripe_turn(0) == with_settings.platform_id


async def test_the_job_looks_from_where_it_was_and_at_payments_once_a_day(
    with_settings: Intake, books: Books
) -> None:
    intake = with_settings
    intake.handlers["customer.created"] = intake.record
    await intake.shop.subscribe(await intake.shop.price(interval="month"))
    job = StripeReconciliation(intake.billing, intake.queue, intake.handlers, every_ms=0)
    mode = intake.platform_id, TEST
    await turn(job, intake)
    assert len(books.handled) == 1
    assert len(await kept(intake)) == 3
    first_ms = await intake.ledger.stripe_cursor(*mode, "events")
    assert first_ms is not None

    asked = len(intake.fake.requests)
    await turn(job, intake)
    paths = [request.path for request in intake.fake.requests[asked:]]
    assert set(paths) == {"/v1/events"}
    later_ms = await intake.ledger.stripe_cursor(*mode, "events")
    assert later_ms is not None
    assert later_ms > first_ms

    await execute(intake.postgres_url, "UPDATE stripe_cursors SET at = at - interval '1 day'")
    asked = len(intake.fake.requests)
    await turn(job, intake)
    paths = [request.path for request in intake.fake.requests[asked:]]
    assert set(paths) == {"/v1/events", "/v1/invoices", "/v1/checkout/sessions"}


async def test_a_turn_that_failed_is_made_up_for_by_the_next(with_settings: Intake) -> None:
    intake = with_settings
    await intake.shop.customer()
    job = StripeReconciliation(intake.billing, intake.queue, intake.handlers)
    intake.fake.fail_next(10)
    assert await job.reconcile() == 1
    assert await intake.ledger.stripe_cursor(intake.platform_id, TEST, "events") is None
    intake.fake.api.trouble.clear()
    assert await job.reconcile() == 0
    await execute(intake.postgres_url, "UPDATE stripe_cursors SET at = at - interval '1 day'")
    assert await job.reconcile() == 1
    assert await kept(intake) == made(intake, "customer.created")


async def test_live_and_test_mode_are_reconciled_apart(intake: Intake) -> None:
    await intake.shop.customer()
    settings = intake.source.by_platform[intake.platform_id]
    intake.source.by_platform[intake.platform_id] = replace(
        settings, livemode=True, secret_key=intake.fake.live_api_key, webhook_secrets=(SECRET,)
    )
    report = await reconcile(intake)
    assert (report.events_seen, await kept(intake)) == (0, set())


async def turn(job: StripeReconciliation, intake: Intake) -> None:
    """One platform's turn, whose next one is due at once: no more than one is taken here."""
    intake.ledger.claim_stripe_turn = _once(intake.platform_id)  # type: ignore[method-assign]
    assert await job.reconcile() == 1


def _once(platform_id: int) -> Any:
    left = [platform_id]

    async def claim(_every_ms: int) -> int | None:
        return left.pop() if left else None

    return claim


async def no_jobs(intake: Intake) -> bool:
    return await jobs(intake.postgres_url) == {}

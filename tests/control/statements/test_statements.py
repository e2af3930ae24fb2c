"""An account's month: what it called, was given and paid, each as the books have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.clock import now_ms
from gateway.control.api.fields import write_moment
from tests.control.test_reading import settle
from tests.support.billing_rows import BillingRows
from tests.support.stripe_desk import THANKS, opened_desk

if TYPE_CHECKING:
    from tests.support.api import Api


def month_of(moment_ms: int) -> str:
    return write_moment(moment_ms)[: len("2026-11")]


async def test_200_a_month_has_calls_grants_and_payments(api: Api) -> None:
    """With the platform's Stripe in live mode, for it has none."""
    account = api.demo.account.account_id
    month = month_of(now_ms())
    await settle(api, api.demo)
    rows = BillingRows(api.postgres_url, api.demo.platform_id)
    test = BillingRows(api.postgres_url, api.demo.platform_id, livemode=False)
    begin = f"{month}-01"
    await rows.transaction(
        account,
        [
            {"amount_minor": 2_000},
            {"kind": "pack", "slug": "big", "quantity": 2, "amount_minor": 3_000},
        ],
        amount_minor=5_950,
        tax_minor=950,
        refunded_minor=100,
        paid_at=begin,
    )
    await rows.transaction(account, status="failed", paid_at=None, created_at=begin)
    await rows.transaction(account, status="cancelled", paid_at=None, created_at=begin)
    await rows.transaction(account, [{"amount_minor": 1}], paid_at="2026-01-01")
    await test.transaction(account, [{"amount_minor": 1}], paid_at=begin, business_key="test")

    found = (await api.as_("viewer").get(f"/v1/accounts/{account}/invoices/{month}")).body

    assert (found["account"], found["month"], found["final"]) == ("alice", month, False)
    assert found["calls"] == sum(use["calls"] for use in found["routes"]) > 0
    assert found["charged_credits"] != "0"
    assert found["given"] == [
        {
            "source": "manual",
            "credits": "100",
            "credited_credits": "0",
            "taken_credits": "0",
            "expired_credits": "0",
        }
    ]
    assert found["overage"] == []
    assert [
        (line["kind"], line["slug"], line["quantity"], line["amount"]) for line in found["lines"]
    ] == [
        ("pack", "big", 2, "30.00"),
        ("plan", "pro", 1, "20.00"),
    ]
    assert found["totals"] == [
        {"currency": "eur", "paid": "59.50", "tax": "9.50", "refunded": "1.00", "open": "10.00"}
    ]
    assert len(found["payments"]) == 2
    assert (await api.as_key().get(f"/v1/me/invoices/{month}")).body == found


async def test_200_what_was_given_says_what_became_of_it(api: Api) -> None:
    """So that given, added, taken, expired and charged come to what is left."""
    account = api.demo.account.account_id
    rows = BillingRows(api.postgres_url, api.demo.platform_id)
    month = month_of(now_ms())
    for taken, credited in ((250_000_000, 100_000_000), (50_000_000, 0)):
        await rows.insert(
            "grants",
            account_id=account,
            source="pack",
            amount_microcredits=500_000_000,
            revoked_microcredits=taken,
            credited_microcredits=credited,
            expired_microcredits=1_000_000,
            priority=0,
            effective_at=f"{month}-01",
        )
    _, pack = (await api.as_key().get(f"/v1/me/invoices/{month}")).body["given"]

    assert pack == {
        "source": "pack",
        "credits": "1000",
        "credited_credits": "100",
        "taken_credits": "300",
        "expired_credits": "2",
    }


async def test_200_a_month_that_is_over_says_nothing_of_todays_plan(api: Api) -> None:
    account = api.demo.account.account_id
    assert (await api.as_("owner").patch(f"/v1/accounts/{account}", {"plan": "free"})).status == 200
    this, past = month_of(now_ms()), "2026-01"
    plans = [(await api.as_key().get(f"/v1/me/invoices/{month}")).body for month in (this, past)]

    assert [(one["final"], one["plan"]) for one in plans] == [(False, "free"), (True, None)]


async def test_200_a_change_counts_what_is_bought_less_what_is_given_back(api: Api) -> None:
    account = api.demo.account.account_id
    rows = BillingRows(api.postgres_url, api.demo.platform_id)
    change: dict[str, object] = {"proration": True}
    paid = (
        ("2026-01-01", [{"amount_minor": 1_900}]),
        (
            "2026-01-02",
            [
                {**change, "amount_minor": -1_900},
                {**change, "amount_minor": 3_800, "quantity": 2},
            ],
        ),
        (
            "2026-02-02",
            [
                {**change, "amount_minor": -3_800, "quantity": 2},
                {**change, "slug": "max", "amount_minor": 4_900},
            ],
        ),
    )
    for paid_at, lines in paid:
        await rows.transaction(account, lines, paid_at=paid_at)
    sold = {
        month: [
            (line["slug"], line["quantity"], line["amount"])
            for line in (await api.as_key().get(f"/v1/me/invoices/{month}")).body["lines"]
        ]
        for month in ("2026-01", "2026-02")
    }
    assert sold == {
        "2026-01": [("pro", 2, "38.00")],
        "2026-02": [("max", 1, "49.00"), ("pro", -2, "-38.00")],
    }


async def test_200_more_of_a_plan_is_told_as_so_many(api: Api) -> None:
    """By what Stripe writes on the invoice of the change."""
    async with opened_desk(api) as desk:
        admin = api.as_("admin")
        page = await admin.post("/v1/subscribe", {"plan": "pro", "success_url": THANKS})
        await desk.pay(page.body)
        changed = await admin.post("/v1/me/subscription/change", {"quantity": 3})
        assert changed.body["subscription"]["quantity"] == 3
        await desk.follow()
        lines = (await admin.get(f"/v1/me/invoices/{month_of(now_ms())}")).body["lines"]

    assert [(line["slug"], line["quantity"]) for line in lines] == [("pro", 3)]


async def test_200_overage_is_told_with_what_it_was_charged(api: Api) -> None:
    account = api.demo.account.account_id
    rows = BillingRows(api.postgres_url, api.demo.platform_id)
    grant = await rows.sql(
        "INSERT INTO grants (platform_id, account_id, source, amount_microcredits,"
        " settled_microcredits, priority, effective_at, expires_at)"
        " VALUES ($1, $2, 'overage', 50000000, 12500000, 1000000, '2026-10-15', '2026-11-15')"
        " RETURNING id",
        api.demo.platform_id,
        account,
    )
    await rows.insert(
        "overage_charges",
        account_id=account,
        grant_id=grant,
        livemode=True,
        business_key="overage",
        from_microcredits=0,
        to_microcredits=12_500_000,
        currency="eur",
        amount_minor=25,
    )
    for month, touches in (("2026-10", True), ("2026-11", True), ("2026-09", False)):
        found = (await api.as_key().get(f"/v1/me/invoices/{month}")).body
        told = [(one["used_credits"], one["amount"], one["currency"]) for one in found["overage"]]
        assert told == ([("12.5", "0.25", "eur")] if touches else []), month


@pytest.mark.parametrize("month", ["2026-13", "next", "9999-12"])
async def test_404_what_is_no_month_that_has_begun(api: Api, month: str) -> None:
    assert (await api.as_key().get(f"/v1/me/invoices/{month}")).status == 404

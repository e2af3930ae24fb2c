"""`/v1/revenue`, by status. What the figures are: tests/operations/test_operations_revenue.py."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.support.billing_rows import BillingRows

if TYPE_CHECKING:
    from tests.support.api import Api

PATH = "/v1/revenue"
NOVEMBER = {"from": "2026-11-01T00:00:00Z", "until": "2026-11-30T00:00:00Z"}


@pytest_asyncio.fixture
async def rows(api: Api) -> BillingRows:
    """A subscription, and payments in two currencies."""
    account = api.demo.account.account_id
    made = BillingRows(api.postgres_url, api.demo.platform_id)
    await made.subscription(account, started_at="2026-08-01")
    paid = await made.transaction(account, [{"amount_minor": 1_000}], refunded_minor=1_000)
    await made.moved(paid, 250, "2026-11-30T23:59")
    await made.moved(paid, 750, "2026-12-01")
    await made.transaction(account, [{"amount_minor": 1_900}], currency="jpy", amount_minor=1_900)
    return made


async def test_200_each_currency_has_its_own_sums(api: Api, rows: BillingRows) -> None:
    del rows
    found = (await api.as_("viewer").get(PATH, **NOVEMBER)).body["data"]

    assert found == [
        {
            "at": "2026-11-01T00:00:00.000Z",
            "currency": "eur",
            "payments": 1,
            "gross": "10.00",
            "refunds": "2.50",
            "tax": "0.00",
            "net": "7.50",
        },
        {
            "at": "2026-11-01T00:00:00.000Z",
            "currency": "jpy",
            "payments": 1,
            "gross": "1900",
            "refunds": "0",
            "tax": "0",
            "net": "1900",
        },
    ]


async def test_200_what_only_went_back_is_below_0_where_it_went(
    api: Api, rows: BillingRows
) -> None:
    del rows
    viewer = api.as_("viewer")
    december = {"from": "2026-12-01T00:00:00Z", "until": "2026-12-31T00:00:00Z"}
    (point,) = (await viewer.get(PATH, **december)).body["data"]
    (sold,) = (await viewer.get(f"{PATH}/products", **december)).body["data"]
    text = (await viewer.get(PATH, headers={"Accept": "text/csv"}, **december)).body

    assert (point["payments"], point["gross"], point["refunds"]) == (0, "0.00", "7.50")
    assert point["net"] == sold["net"] == "-7.50"
    assert (sold["payments"], sold["sold"], sold["refunds"]) == (0, "0.00", "7.50")
    assert [row["net"] for row in csv.DictReader(io.StringIO(text))] == ["-7.50"]


async def test_200_a_payment_of_nothing_is_none(api: Api, rows: BillingRows) -> None:
    """As of a trial; one of nothing that moves money from a plan to another is in both."""
    account = api.demo.account.account_id
    free = {"amount_minor": 0, "paid_at": "2025-05-01"}
    await rows.transaction(account, [{"amount_minor": 0}], **free)
    viewer = api.as_("viewer")
    may = {"from": "2025-05-01T00:00:00Z", "until": "2025-05-31T00:00:00Z"}
    assert (await viewer.get(PATH, **may)).body["data"] == []
    assert (await viewer.get(f"{PATH}/products", **may)).body["data"] == []

    moved = [{"amount_minor": -500}, {"slug": "max", "amount_minor": 500}]
    await rows.transaction(account, moved, **free)
    sold = (await viewer.get(f"{PATH}/products", **may)).body["data"]
    assert [(one["slug"], one["net"]) for one in sold] == [("max", "5.00"), ("pro", "-5.00")]


async def test_200_products_and_metrics_of_one_currency(api: Api, rows: BillingRows) -> None:
    del rows
    viewer = api.as_("viewer")
    (sold,) = (await viewer.get(f"{PATH}/products", currency="eur", **NOVEMBER)).body["data"]
    (metrics,) = (await viewer.get(f"{PATH}/metrics", currency="eur", month="2026-10")).body["data"]

    assert (sold["kind"], sold["slug"], sold["net"]) == ("plan", "pro", "7.50")
    assert (metrics["mrr"], metrics["customers"], metrics["arpu"]) == ("10.00", 1, "10.00")
    assert (metrics["customer_churn_percent"], metrics["ltv"]) == ("0", None)
    assert (metrics["from"], metrics["until"]) == (
        "2026-10-01T00:00:00.000Z",
        "2026-11-01T00:00:00.000Z",
    )


@pytest.mark.usefixtures("rows")
async def test_200_lists_come_in_parts_and_as_csv(api: Api) -> None:
    viewer = api.as_("viewer")
    for path in (PATH, f"{PATH}/products", f"{PATH}/metrics"):
        query = {} if path.endswith("metrics") else NOVEMBER
        whole = (await viewer.get(path, **query)).body["data"]
        first = (await viewer.get(path, limit=1, **query)).body
        rest = (await viewer.get(path, cursor=first["next_cursor"], **query)).body
        text = (await viewer.get(path, headers={"Accept": "text/csv"}, **query)).body
        exported = list(csv.DictReader(io.StringIO(text)))
        for rows in (whole, first["data"] + rest["data"], exported):
            assert [row["currency"] for row in rows] == ["eur", "jpy"], path
        assert list(exported[0]) == list(whole[0])


async def test_200_test_mode_is_apart_from_live_mode(api: Api, rows: BillingRows) -> None:
    """Without being told, it is that of the platform's key."""
    viewer = api.as_("viewer")
    assert (await viewer.get(PATH, mode="test", **NOVEMBER)).body["data"] == []
    await rows.insert("stripe_settings", livemode=False, secret_key="secret:x", webhook_secrets=[])
    assert (await viewer.get(PATH, **NOVEMBER)).body["data"] == []
    assert len((await viewer.get(PATH, mode="live", **NOVEMBER)).body["data"]) == 2


async def test_200_another_platform_sees_nothing_of_it(api: Api, rows: BillingRows) -> None:
    del rows
    other = api.as_("owner", api.other)
    for path in (PATH, f"{PATH}/products", f"{PATH}/metrics"):
        assert (await other.get(path)).body["data"] == []


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (PATH, {"by": "week"}),
        (PATH, {"from": "2026-11-02T00:00:00Z", "until": "2026-10-01T00:00:00Z"}),
        (PATH, {"mode": "real"}),
        (f"{PATH}/metrics", {"month": "2026-13"}),
        (f"{PATH}/metrics", {"month": "9998-01"}),
        (f"{PATH}/products", {"currency": "EUR"}),
    ],
)
async def test_422_what_can_not_be_asked(api: Api, path: str, query: dict[str, str]) -> None:
    assert (await api.as_("viewer").get(path, **query)).status == 422

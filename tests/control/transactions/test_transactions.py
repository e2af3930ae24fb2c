"""`/v1/transactions`, by status."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import pytest_asyncio

from tests.support.billing_rows import BillingRows

if TYPE_CHECKING:
    from tests.support.api import Api

PATH = "/v1/transactions"


@pytest_asyncio.fixture
async def ids(api: Api) -> list[int]:
    """Three payments of the account: paid, failed, and one in test mode."""
    account = api.demo.account.account_id
    rows = BillingRows(api.postgres_url, api.demo.platform_id)
    test = BillingRows(api.postgres_url, api.demo.platform_id, livemode=False)
    foreign = BillingRows(api.postgres_url, api.other.platform_id)
    made = [
        await rows.transaction(
            account,
            [{"amount_minor": 1_000, "period_start_at": "2026-11-01"}],
            amount_minor=1_190,
            tax_minor=190,
            invoice_id="in_1",
        ),
        await rows.transaction(account, status="failed", paid_at=None, failure="No money."),
        await test.transaction(account, currency="jpy", amount_minor=1_900, business_key="test"),
    ]
    await foreign.transaction(api.other.account.account_id)
    grant = await rows.sql(
        "SELECT id FROM grants WHERE account_id = $1 ORDER BY id LIMIT 1", account
    )
    await rows.insert(
        "paid_lots",
        grant_id=grant,
        transaction_id=made[0],
        account_id=account,
        microcredits=100_000_000,
    )
    return made


async def test_200_a_platform_lists_its_payments_newest_first(api: Api, ids: list[int]) -> None:
    found = (await api.as_("viewer").get(PATH)).body["data"]

    assert [one["id"] for one in found] == ids[::-1]
    paid = found[-1]
    assert (paid["amount"], paid["tax"], paid["currency"]) == ("11.90", "1.90", "eur")
    assert (paid["status"], paid["mode"], paid["invoice_id"]) == ("succeeded", "live", "in_1")
    assert found[0]["amount"] == "1900"  # a yen has no parts


async def test_200_filters_go_together(api: Api, ids: list[int]) -> None:
    viewer = api.as_("viewer")

    async def found(**query: object) -> list[int]:
        return [one["id"] for one in (await viewer.get(PATH, **query)).body["data"]]

    assert await found(status="failed") == [ids[1]]
    assert await found(mode="test") == [ids[2]]
    assert await found(currency="eur", status="succeeded") == [ids[0]]
    assert await found(until="2026-10-31T00:00:00Z") == []
    assert await found(account_id=api.demo.account.account_id, kind="renewal") == ids[::-1]


async def test_200_pages_go_on_behind_the_last_row(api: Api, ids: list[int]) -> None:
    viewer = api.as_("viewer")
    first = (await viewer.get(PATH, limit=2)).body
    second = (await viewer.get(PATH, limit=2, cursor=first["next_cursor"])).body

    assert [one["id"] for one in first["data"] + second["data"]] == ids[::-1]
    assert second["next_cursor"] is None


async def test_200_the_whole_list_as_csv(api: Api, ids: list[int]) -> None:
    answer = await api.as_("viewer").get(PATH, headers={"Accept": "text/csv"})
    rows = list(csv.DictReader(io.StringIO(answer.body)))

    assert [int(row["id"]) for row in rows] == ids[::-1]
    assert rows[-1]["amount"] == "11.90"


async def test_200_a_payment_says_what_it_was_for_and_what_it_gave(
    api: Api, ids: list[int]
) -> None:
    found = (await api.as_("viewer").get(f"{PATH}/{ids[0]}")).body

    assert found["lines"] == [
        {
            "kind": "plan",
            "slug": "pro",
            "quantity": 1,
            "amount": "10.00",
            "proration": False,
            "period_start": "2026-11-01T00:00:00.000Z",
            "period_end": None,
        }
    ]
    assert [grant["credits"] for grant in found["grants"]] == ["100"]
    assert found["taken_back_credits"] == "0"
    assert (await api.as_key().get(f"/v1/me/transactions/{ids[0]}")).body == found


async def test_404_another_platforms_payment_is_not_there(api: Api, ids: list[int]) -> None:
    other = api.as_("viewer", api.other)

    assert (await other.get(f"{PATH}/{ids[0]}")).status == 404
    assert (await api.as_key(api.other).get(f"/v1/me/transactions/{ids[0]}")).status == 404
    foreign = api.demo.account.account_id
    assert (await other.get(PATH, account_id=foreign)).status == 404
    assert len((await other.get(PATH)).body["data"]) == 1

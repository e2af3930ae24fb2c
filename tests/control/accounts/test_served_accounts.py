"""Accounts that go by a subscription, as the API shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg

if TYPE_CHECKING:
    from tests.support.api import Api


async def _serve(postgres_url: str, account_id: int) -> None:
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(
            "UPDATE accounts SET renewed_by = 'subscription', payment_suspended = true"
            " WHERE id = $1",
            account_id,
        )
    finally:
        await connection.close()


async def test_200_an_account_shows_who_renews_it_and_whether_it_is_paid_for(
    api: Api, postgres_url: str
) -> None:
    account_id = api.demo.account.account_id
    owner = api.as_("owner")
    shown = (await owner.get(f"/v1/accounts/{account_id}")).body
    assert (shown["renewed_by"], shown["payment_suspended"]) == ("clock", False)
    await _serve(postgres_url, account_id)
    shown = (await owner.get(f"/v1/accounts/{account_id}")).body
    assert (shown["status"], shown["payment_suspended"]) == ("active", True)
    assert shown["renewed_by"] == "subscription"


async def test_409_the_plan_of_a_subscription_is_not_changed_by_hand(
    api: Api, postgres_url: str
) -> None:
    account_id = api.demo.account.account_id
    await _serve(postgres_url, account_id)
    answer = await api.as_("owner").patch(f"/v1/accounts/{account_id}", {"plan": "pro"})
    assert (answer.status, answer.body["code"]) == (409, "plan_follows_subscription")

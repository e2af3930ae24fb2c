"""Accounts by the API: made, read, changed; and what they have at this moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.clock import now_ms
from gateway.operations.grants import add_grant
from gateway.operations.keys import create_key
from gateway.operations.standing import balance_of
from policies.catalog import Caps, Limits, Plan, Platform
from tests.support.api import CREDIT, PLANS
from tests.support.api_calls import serving_calls
from tests.support.debts import owe
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.api import Api

ACCOUNTS = "/v1/accounts"
MINUTE_MS = 60_000


def path_of(api: Api) -> str:
    return f"{ACCOUNTS}/{api.demo.account.account_id}"


async def test_201_an_account_begins_with_its_plan(api: Api) -> None:
    owner = api.as_("owner")
    made = await owner.post(ACCOUNTS, {"name": "bob", "plan": "free"})

    assert made.status == 201
    assert (made.body["plan"], made.body["status"]) == ("free", "active")
    balance = await owner.get(f"{ACCOUNTS}/{made.body['id']}/balance")
    assert balance.body["available_credits"] == "100"
    assert [lot["source"] for lot in balance.body["lots"]] == ["plan"]


async def test_201_credits_of_ones_own_stand_in_for_the_plans(api: Api) -> None:
    owner = api.as_("owner")
    made = await owner.post(ACCOUNTS, {"name": "bob", "plan": "free", "credits": "2.5"})

    balance = await owner.get(f"{ACCOUNTS}/{made.body['id']}/balance")
    assert balance.body["available_credits"] == "2.5"


async def test_200_a_page_goes_on_behind_the_one_before(api: Api) -> None:
    owner = api.as_("owner")
    for name in ("bob", "bea", "carol"):
        await owner.post(ACCOUNTS, {"name": name, "plan": "pro"})
    names, cursor = [], None
    while True:
        page = await owner.get(ACCOUNTS, limit=2, plan="pro", cursor=cursor)
        names += [row["name"] for row in page.body["data"]]
        cursor = page.body["next_cursor"]
        if cursor is None:
            break
    assert names == ["bob", "bea", "carol"]
    begins = await owner.get(ACCOUNTS, name="b")
    assert [row["name"] for row in begins.body["data"]] == ["bob", "bea"]


async def test_200_all_changes_are_made_at_once(api: Api) -> None:
    owner = api.as_("owner")
    told = {"name": "alicia", "status": "suspended", "plan": "pro", "discount_percent": "12.5"}
    changed = await owner.patch(path_of(api), told)

    assert changed.status == 200
    assert {name: changed.body[name] for name in told} == told
    assert (await owner.get(path_of(api))).body == changed.body
    back = {"status": "active", "discount_percent": None}
    assert (await owner.patch(path_of(api), back)).body["discount_percent"] is None


async def test_409_nothing_is_changed_when_the_new_name_is_taken(api: Api) -> None:
    owner = api.as_("owner")
    await owner.post(ACCOUNTS, {"name": "bob"})
    before = await owner.get(path_of(api))

    refused = await owner.patch(path_of(api), {"status": "suspended", "plan": "pro", "name": "bob"})

    assert (refused.status, refused.code) == (409, "name_taken")
    assert (await owner.get(path_of(api))).body == before.body
    again = await owner.post(ACCOUNTS, {"name": "bob"})
    assert (again.status, again.code) == (409, "name_taken")


async def test_412_who_changes_what_he_has_not_seen_is_told(api: Api) -> None:
    owner = api.as_("owner")
    seen = (await owner.get(path_of(api))).etag
    assert (
        await owner.patch(path_of(api), {"plan": "pro"}, headers={"If-Match": seen})
    ).status == 200
    late = await owner.patch(path_of(api), {"plan": "free"}, headers={"If-Match": seen})

    assert (late.status, late.code) == (412, "precondition_failed")
    assert (await owner.get(path_of(api))).body["plan"] == "pro"


async def test_422_every_wrong_field_is_named(api: Api) -> None:
    owner = api.as_("owner")
    wrong = {"name": " bob", "status": "gone", "plan": "X", "discount_percent": "101", "x": 1}
    assert set((await owner.patch(path_of(api), wrong)).wrong) == set(wrong)
    unknown = await owner.patch(path_of(api), {"plan": "gold"})
    assert set(unknown.wrong) == {"plan"}
    assert set((await owner.post(ACCOUNTS, {"name": "a\tb", "credits": "-1"})).wrong) == {
        "name",
        "credits",
    }


@pytest.mark.parametrize("role", ["viewer", "admin", "member"])
async def test_403_only_editors_change_accounts(api: Api, role: str) -> None:
    client = api.as_(role)
    assert (await client.post(ACCOUNTS, {"name": "bob"})).status == 403
    assert (await client.patch(path_of(api), {"status": "suspended"})).status == 403


async def test_403_accounts_ask_of_themselves_and_platforms_of_accounts(api: Api) -> None:
    for client in (api.as_("admin"), api.as_("member"), api.as_key()):
        assert (await client.get(f"{path_of(api)}/balance")).status == 403
        assert (await client.get("/v1/me/balance")).status == 200
        assert (await client.get("/v1/me/limits")).status == 200
    assert (await api.as_("owner").get("/v1/me/balance")).status == 403


async def test_404_what_foreign_accounts_have_is_nobodys_business(api: Api) -> None:
    foreign = f"{ACCOUNTS}/{api.other.account.account_id}"
    for part in ("", "/balance", "/limits"):
        assert (await api.as_("owner").get(foreign + part)).status == 404
    key = api.other.key.key_id
    assert (await api.as_("owner").get(f"{path_of(api)}/limits", key_id=key)).status == 404
    assert (await api.as_("member").get("/v1/me/limits", key_id=key)).status == 404
    own = await api.as_("member").get("/v1/me/limits", key_id=api.demo.key.key_id)
    assert own.status == 200


async def test_a_balance_tells_lots_in_the_order_in_which_they_pay(api: Api) -> None:
    account, soon = api.demo.account, now_ms() + 60 * MINUTE_MS
    for priority, effective_ms, expires_ms in ((1, 0, 0), (0, 0, soon), (0, soon, 0)):
        await add_grant(
            api.ledger,
            api.counters,
            account,
            CREDIT,
            priority=priority,
            effective_ms=effective_ms,
            expires_ms=expires_ms,
        )
    balance = (await api.as_("viewer").get(f"{path_of(api)}/balance")).body

    assert balance["live"] is False
    assert balance["available_credits"] == "102", "what begins later pays later"
    lots = balance["lots"]
    assert [lot["left_credits"] for lot in lots] == ["1", "100", "1", "1"]
    assert lots[0]["expires_at"] is not None
    assert lots[2]["effective_at"] > lots[1]["effective_at"]
    assert (await api.as_("member").get("/v1/me/balance")).body == balance


async def test_a_balance_says_of_a_lot_what_its_grant_says(api: Api) -> None:
    """What was taken back and then given again, as by a dispute that was won, was granted once."""
    (grant,) = (await api.as_("viewer").get(f"{path_of(api)}/grants")).body["data"]
    adjust = f"/v1/grants/{grant['id']}/adjust"
    assert (await api.as_("editor").post(adjust, {"credits": "50"})).status == 200
    (lot,) = (await api.as_("viewer").get(f"{path_of(api)}/balance")).body["lots"]
    (grant,) = (await api.as_("viewer").get(f"{path_of(api)}/grants")).body["data"]

    for one in (lot, grant):
        assert (one["granted_credits"], one["credited_credits"]) == ("100", "50")
        assert one["left_credits"] == "150"


async def test_a_balance_is_live_once_redis_decides_calls(api: Api, clean_redis_url: str) -> None:
    async with serving_calls(api, clean_redis_url) as proxy:
        assert await proxy.status(api.demo.key.text) == 200
        balance = (await api.as_("member").get("/v1/me/balance")).body
        assert balance["live"] is True
        assert balance["available_credits"] == "99", "at once, not when Postgres has it"
        assert balance["lots"][0]["left_credits"] == "99"
        assert balance["lots"][0]["granted_credits"] == "100"


async def test_what_is_held_and_owed_is_told_apart(api: Api, clean_redis_url: str) -> None:
    plan = Plan("metered", 0, overage_cap_microcredits=10 * CREDIT)
    await api.ledger.apply_catalog(Platform("demo", "Demo", None), [*PLANS, plan], [])
    owner = api.as_("owner")
    made = (await owner.post(ACCOUNTS, {"name": "bob", "plan": "metered"})).body
    key = (await owner.post(f"{ACCOUNTS}/{made['id']}/keys", {})).body["secret"]
    async with serving_calls(api, clean_redis_url) as proxy:
        assert await proxy.status(key) == 200
        balance = (await owner.get(f"{ACCOUNTS}/{made['id']}/balance")).body

    assert balance["live"] is True
    assert (balance["available_credits"], balance["overage_credits"]) == ("-1", "1")
    assert [lot["source"] for lot in balance["lots"]] == ["overage"]
    assert balance["lots"][0]["left_credits"] == "9"


async def test_limits_say_what_is_left_of_them_now(api: Api) -> None:
    plan = Plan(
        "all",
        100 * CREDIT,
        requests_per_second=50,
        burst=80,
        requests_per_minute=60,
        requests_per_month=1_000,
        concurrency=3,
        caps=Caps(day=10 * CREDIT, session=CREDIT),
    )
    owner = api.as_("owner")
    await api.ledger.apply_catalog(Platform("demo", "Demo", None), [*PLANS, plan], [])
    await owner.patch(path_of(api), {"plan": "all"})
    before = (await owner.get(f"{path_of(api)}/limits")).body

    assert before["live"] is False
    assert {limit["limit_kind"]: limit["left"] for limit in before["limits"]} == {
        "requests_per_second": 80,
        "requests_per_minute": 60,
        "requests_per_month": 1_000,
        "concurrency": 3,
    }
    caps = {cap["window"]: cap for cap in before["caps"]}
    assert caps["day"]["left_credits"] == "10"
    assert caps["day"]["resets_at"].endswith("T00:00:00.000Z")
    assert caps["session"]["used_credits"] is None


async def test_limits_of_a_plan_count_the_last_call(api: Api, clean_redis_url: str) -> None:
    plan = Plan("counted", 0, requests_per_minute=60, requests_per_month=1_000, concurrency=3)
    await api.ledger.apply_catalog(Platform("demo", "Demo", None), [*PLANS, plan], [])
    await api.as_("owner").patch(path_of(api), {"plan": "counted"})
    async with serving_calls(api, clean_redis_url) as proxy:
        assert await proxy.status(api.demo.key.text) == 200
        found = (await api.as_key().get("/v1/me/limits")).body

    assert found["live"] is True
    used = {limit["limit_kind"]: (limit["used"], limit["left"]) for limit in found["limits"]}
    assert used["requests_per_month"] == (1, 999)
    assert used["concurrency"] == (0, 3)
    # A minute's allowance comes back call by call, one each second.
    assert used["requests_per_minute"] in {(1, 59), (0, 60)}


async def test_limits_of_a_key_are_its_own(api: Api, clean_redis_url: str) -> None:
    key = await create_key(
        api.ledger,
        api.counters,
        api.demo.account,
        api.services.keys,
        limits=Limits(requests_per_minute=5, requests_per_month=7),
        caps=Caps(total=3 * CREDIT),
    )
    async with serving_calls(api, clean_redis_url) as proxy:
        assert await proxy.status(key.text) == 200
        found = (await api.as_("member").get("/v1/me/limits", key_id=key.key_id)).body

    assert (found["live"], found["key_id"]) == (True, key.key_id)
    limits = {limit["limit_kind"]: limit for limit in found["limits"]}
    assert limits["requests_per_minute"]["left"] == 4, "one comes back in twelve seconds"
    assert limits["requests_per_minute"]["resets_at"] is not None
    assert (limits["requests_per_month"]["used"], limits["requests_per_month"]["left"]) == (1, 6)
    [cap] = found["caps"]
    assert (cap["window"], cap["used_credits"], cap["left_credits"]) == ("total", "1", "2")
    assert cap["resets_at"] is None
    own = (await api.as_("member").get("/v1/me/limits")).body
    assert (own["limits"], own["caps"], own["key_id"]) == ([], [], None)


async def test_a_balance_is_the_same_in_redis_and_in_postgres_behind_it(
    api: Api, clean_redis_url: str
) -> None:
    account = api.demo.account
    async with serving_calls(api, clean_redis_url) as proxy:
        for _ in range(3):
            assert await proxy.status(api.demo.key.text) == 200

        async def written() -> bool:
            return len(await api.ledger.settlements(account.account_id, limit=4)) == 3

        await eventually(written)
    live = await balance_of(api.ledger, api.counters, account)
    await api.counters.command("DEL", api.counters.keys(account.account_id).name)
    loaded = await balance_of(api.ledger, api.counters, account)

    assert (live.is_live, loaded.is_live) == (True, False)
    assert live.available_microcredits == loaded.available_microcredits == 97 * CREDIT


async def test_a_changed_account_binds_the_next_call(api: Api, clean_redis_url: str) -> None:
    owner = api.as_("owner")
    async with serving_calls(api, clean_redis_url) as proxy:
        assert await proxy.status(api.demo.key.text) == 200
        await owner.patch(path_of(api), {"name": "alicia", "status": "suspended"})
        assert await proxy.status(api.demo.key.text) == 403
        await owner.patch(path_of(api), {"status": "active", "discount_percent": "50"})
        answer = await proxy.call(api.demo.key.text)
        assert answer.headers["X-Credits-Charged"] == "0.5"


async def test_200_an_account_shows_what_it_owes_until_a_grant_has_paid_it(api: Api) -> None:
    await owe(api.postgres_url, api.demo.account, 3 * CREDIT // 2)
    owner = api.as_("owner")
    assert (await owner.get(path_of(api))).body["debt_credits"] == "1.5"
    own = api.as_key(api.demo)
    for place in ("balance", "subscription"):
        assert (await own.get(f"/v1/me/{place}")).body["debt_credits"] == "1.5"
        assert (await owner.get(f"{path_of(api)}/{place}")).body["debt_credits"] == "1.5"
    listed = await owner.get(ACCOUNTS)
    assert next(row["debt_credits"] for row in listed.body["data"]) == "1.5"

    given = await owner.post(f"{path_of(api)}/grants", {"credits": "1"})
    assert (given.status, given.body["revoked_credits"]) == (201, "1")
    assert (await owner.get(path_of(api))).body["debt_credits"] == "0.5"

"""`/v1/plans`, by status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.operations.accounts import create_account

if TYPE_CHECKING:
    from tests.support.api import Api

PLANS = "/v1/plans"
TEAM = {
    "slug": "team",
    "credits": "1000.50",
    "requests_per_minute": 60,
    "requests_per_month": 5000,
    "quota_window": "billing",
    "caps": {"day": "100", "session": "2.5"},
    "overage": "bill",
    "overage_cap": "50",
    "rollover": "250",
    "discount": "12.5",
    "price_per_month": ["19.00 usd", "1900 jpy"],
    "trial_days": 14,
    "overage_price": "0.002",
    "features": ["Priority"],
}


async def test_201_a_plan_has_the_keys_of_the_config(api: Api) -> None:
    made = await api.as_("editor").post(PLANS, TEAM)

    assert made.status == 201, made.body
    document = dict(made.body)
    assert isinstance(document.pop("id"), int)
    assert document == {
        **TEAM,
        "credits": "1000.5",
        "period": "month",
        "managed_by": "api",
        "requests_per_second": None,
        "burst": None,
        "concurrency": None,
        "caps": {"day": "100", "month": None, "total": None, "session": "2.5"},
        "rollover_periods": None,
        "low_credits": "0",
        "refund_expired": "grant",
        "price_per_year": None,
        "trial_credits": None,
    }
    assert (await api.as_("viewer").get(f"{PLANS}/team")).body == made.body


async def test_200_whoever_belongs_to_the_platform_may_see_what_is_sold(api: Api) -> None:
    for client in (*(api.as_(role) for role in ("owner", "viewer", "member")), api.as_key()):
        listed = await client.get(PLANS)
        assert listed.status == 200
        assert [plan["slug"] for plan in listed.body["data"]] == ["free", "pro"]
        assert listed.body["data"][0]["managed_by"] == "config"
        assert (await client.get(f"{PLANS}/free")).status == 200


async def test_200_a_list_goes_on_where_its_cursor_says(api: Api) -> None:
    client = api.as_("owner")
    await client.post(PLANS, TEAM)
    slugs, cursor = [], None
    while True:
        page = (await client.get(PLANS, limit=1, cursor=cursor)).body
        slugs += [plan["slug"] for plan in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert slugs == ["free", "pro", "team"]


async def test_200_a_patch_says_what_is_different(api: Api) -> None:
    client = api.as_("editor")
    made = await client.post(PLANS, TEAM)
    patch = {"caps": {"day": None, "month": "500"}, "rollover": None, "discount": "0"}
    changed = await client.patch(
        f"{PLANS}/team", patch, headers={"If-Match": (await client.get(f"{PLANS}/team")).etag}
    )

    assert changed.status == 200, changed.body
    assert changed.body == {
        **made.body,
        "caps": {"day": None, "month": "500", "total": None, "session": "2.5"},
        "rollover": "none",
        "rollover_periods": None,
        "discount": "0",
    }


async def test_412_a_patch_of_another_version_changes_nothing(api: Api) -> None:
    client = api.as_("editor")
    await client.post(PLANS, TEAM)
    stale = await client.patch(f"{PLANS}/team", {"credits": "1"}, headers={"If-Match": '"x"'})

    assert (stale.status, stale.code) == (412, "precondition_failed")
    assert (await client.get(f"{PLANS}/team")).body["credits"] == "1000.5"


async def test_204_a_plan_goes_and_is_not_there_any_more(api: Api) -> None:
    client = api.as_("editor")
    await client.post(PLANS, TEAM)

    assert (await client.delete(f"{PLANS}/team")).status == 204
    assert (await client.get(f"{PLANS}/team")).status == 404


@pytest.mark.parametrize("role", ["viewer", "admin", "member"])
async def test_403_who_only_looks_changes_nothing(api: Api, role: str) -> None:
    client = api.as_(role)
    assert (await client.post(PLANS, TEAM)).status == 403
    assert (await client.patch(f"{PLANS}/free", {})).status == 403
    assert (await client.delete(f"{PLANS}/free")).status == 403


async def test_404_the_plans_of_others_are_not_there(api: Api) -> None:
    await api.as_("owner", api.other).post(PLANS, TEAM)
    client = api.as_("owner")
    for answer in (
        await client.get(f"{PLANS}/team"),
        await client.patch(f"{PLANS}/team", {"credits": "1"}),
        await client.delete(f"{PLANS}/team"),
    ):
        assert (answer.status, answer.code) == (404, "not_found")


async def test_409_the_config_file_manages_its_own(api: Api) -> None:
    client = api.as_("owner")
    for answer in (
        await client.patch(f"{PLANS}/free", {"credits": "1"}),
        await client.delete(f"{PLANS}/free"),
    ):
        assert (answer.status, answer.code) == (409, "managed_by_config")
        assert "config file" in answer.body["detail"]
    taken = await client.post(PLANS, {"slug": "free"})
    assert (taken.status, taken.code) == (409, "name_taken")


async def test_409_a_plan_that_an_account_has_stays(api: Api) -> None:
    client = api.as_("owner")
    await client.post(PLANS, TEAM)
    await create_account(api.ledger, api.demo.platform_id, "bob", plan="team")

    kept = await client.delete(f"{PLANS}/team")

    assert (kept.status, kept.code) == (409, "in_use")


async def test_422_every_mistake_is_named_whoever_found_it(api: Api) -> None:
    answer = await api.as_("owner").post(
        PLANS,
        {
            "slug": "No Slug",
            "credits": 5,
            "burst": 3,
            "period": "week",
            "caps": {"day": "9", "month": "5", "year": "1"},
            "rollover_periods": 0,
            "overage": "bill",
            "prise": 1,
        },
    )

    assert (answer.status, answer.code) == (422, "invalid")
    assert set(answer.wrong) == {
        *("slug", "credits", "burst", "period", "caps.day", "caps.year"),
        *("rollover_periods", "overage_cap", "prise"),
    }
    assert 'did you mean "' in answer.wrong["prise"] or "there is" in answer.wrong["prise"]
    assert "amounts are texts" in answer.wrong["credits"]


async def test_422_a_patch_is_judged_with_what_it_leaves(api: Api) -> None:
    client = api.as_("owner")
    await client.post(PLANS, TEAM)

    answer = await client.patch(f"{PLANS}/team", {"overage": "block", "slug": "other"})

    assert answer.status == 422
    assert set(answer.wrong) == {"overage_cap", "overage_price"}
    assert (await client.patch(f"{PLANS}/team", {"slug": "other"})).wrong.keys() == {"slug"}


async def test_a_repeated_request_makes_one_plan(api: Api) -> None:
    client = api.as_("owner")
    once = {"Idempotency-Key": "make team"}
    first = await client.post(PLANS, TEAM, headers=once)
    again = await client.post(PLANS, TEAM, headers=once)

    assert (first.status, again.status) == (201, 201)
    assert again.body == first.body

"""`/v1/platforms`, by status."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.api import Api

PLATFORMS = "/v1/platforms"


async def test_201_an_operator_makes_a_platform_and_works_on_it(api: Api) -> None:
    client = api.as_("operator")
    made = await client.post(PLATFORMS, {"slug": "third", "upgrade_url": "https://third.example"})

    assert made.status == 201, made.body
    assert made.body["name"] == "third"
    assert made.body["upgrade_url"] == "https://third.example"
    assert (await client.get(f"{PLATFORMS}/third")).body == made.body
    slugs = [row["slug"] for row in (await client.get(PLATFORMS)).body["data"]]
    assert slugs == ["demo", "other", "third"]
    there = {"Tollkeeper-Platform": "third"}
    account = await client.ask("POST", "/v1/accounts", {"name": "carol"}, headers=there)
    assert account.status == 201


async def test_200_owners_see_and_change_their_own(api: Api) -> None:
    client = api.as_("owner", api.other)
    path = f"{PLATFORMS}/other"
    read = await client.get(path)
    changed = await client.patch(
        path, {"upgrade_url": "https://other.example/buy"}, headers={"If-Match": read.etag}
    )

    assert changed.status == 200, changed.body
    assert changed.body == {**read.body, "upgrade_url": "https://other.example/buy"}
    back = await client.patch(path, {"upgrade_url": None, "name": "Others"})
    assert back.body == {**read.body, "name": "Others"}
    snapshot = await api.ledger.snapshot_catalogue()
    assert [one.platform.name for one in snapshot.platforms] == ["Demo", "Others"]


async def test_403_owners_make_and_list_none(api: Api) -> None:
    for role in ("owner", "editor", "admin"):
        client = api.as_(role)
        assert (await client.post(PLATFORMS, {"slug": "mine"})).status == 403
        assert (await client.get(PLATFORMS)).status == 403
    assert (await api.as_("editor").patch(f"{PLATFORMS}/demo", {})).status == 403


async def test_404_the_platforms_of_others_are_not_there(api: Api) -> None:
    client = api.as_("owner")
    for answer in (
        await client.get(f"{PLATFORMS}/other"),
        await client.patch(f"{PLATFORMS}/other", {"name": "Mine"}),
        await client.get(f"{PLATFORMS}/none"),
    ):
        assert (answer.status, answer.code) == (404, "not_found")


async def test_409_that_of_the_config_is_changed_there(api: Api) -> None:
    for role in ("operator", "owner"):
        answer = await api.as_(role).patch(f"{PLATFORMS}/demo", {"name": "Mine"})
        assert (answer.status, answer.code) == (409, "managed_by_config")


async def test_409_there_is_one_platform_of_a_slug(api: Api) -> None:
    answer = await api.as_("operator").post(PLATFORMS, {"slug": "other"})
    assert (answer.status, answer.code) == (409, "name_taken")


@pytest.mark.parametrize(
    ("body", "wrong"),
    [
        ({}, {"slug"}),
        ({"slug": "No Slug", "name": "", "colour": 1}, {"slug", "name", "colour"}),
        ({"slug": "mine", "upgrade_url": "javascript:alert(1)"}, {"upgrade_url"}),
        ({"slug": "mine", "name": "line\nbreak"}, {"name"}),
    ],
)
async def test_422_every_wrong_field_is_named(
    api: Api, body: dict[str, object], wrong: set[str]
) -> None:
    answer = await api.as_("operator").post(PLATFORMS, body)
    assert answer.status == 422
    assert set(answer.wrong) == wrong

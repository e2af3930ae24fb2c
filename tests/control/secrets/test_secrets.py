"""`/v1/secrets`, by status. That agents are shown them is in tests/journeys."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

if TYPE_CHECKING:
    from tests.support.api import Api

SECRETS = "/v1/secrets"
VALUE = {"value": "Bearer canary-of-the-secret"}


async def test_200_a_secret_is_written_and_never_read(api: Api) -> None:
    client = api.as_("owner")
    first = await client.put(f"{SECRETS}/openai", VALUE)
    again = await client.put(f"{SECRETS}/openai", {"value": "Bearer another-canary"})

    assert (first.status, again.status) == (200, 200), (first.body, again.body)
    assert again.body["created_at"] == first.body["created_at"]
    assert again.body["updated_at"] > first.body["updated_at"]
    listed = await api.as_("viewer").get(SECRETS)
    assert listed.body == {"data": [again.body], "next_cursor": None}
    assert (await api.as_("viewer").get(f"{SECRETS}/openai")).body == again.body
    assert "canary" not in str((first.body, again.body, listed.body))


async def test_nothing_of_a_secret_is_in_the_database_nor_in_the_audit_log(api: Api) -> None:
    await api.as_("owner").put(f"{SECRETS}/openai", VALUE)
    await api.as_("owner").delete(f"{SECRETS}/openai")
    connection = await asyncpg.connect(api.postgres_url)
    log = await connection.fetch("SELECT action, resource, before, after FROM audit_log")
    await connection.close()
    assert [(row["action"], row["resource"]) for row in log] == [
        ("create", "secret"),
        ("delete", "secret"),
    ]
    assert "canary" not in str(log)
    assert "sealed" not in str(log)


async def test_200_a_list_goes_on_where_its_cursor_says(api: Api) -> None:
    client = api.as_("owner")
    for name in ("b", "a", "c"):
        await client.put(f"{SECRETS}/{name}", VALUE)
    first = (await client.get(SECRETS, limit=2)).body
    rest = (await client.get(SECRETS, limit=2, cursor=first["next_cursor"])).body
    assert [row["name"] for row in first["data"] + rest["data"]] == ["a", "b", "c"]
    assert rest["next_cursor"] is None


async def test_204_a_deleted_secret_is_not_there(api: Api) -> None:
    client = api.as_("owner")
    await client.put(f"{SECRETS}/openai", VALUE)
    assert (await client.delete(f"{SECRETS}/openai")).status == 204
    assert (await client.get(f"{SECRETS}/openai")).status == 404
    assert (await client.delete(f"{SECRETS}/openai")).status == 404


@pytest.mark.parametrize("role", ["editor", "viewer", "admin"])
async def test_403_only_owners_write_secrets(api: Api, role: str) -> None:
    client = api.as_(role)
    assert (await client.put(f"{SECRETS}/openai", VALUE)).status == 403
    assert (await client.delete(f"{SECRETS}/openai")).status == 403


async def test_404_the_secrets_of_others_are_not_there(api: Api) -> None:
    await api.as_("owner", api.other).put(f"{SECRETS}/openai", VALUE)
    client = api.as_("owner")
    assert (await client.get(f"{SECRETS}/openai")).status == 404
    assert (await client.delete(f"{SECRETS}/openai")).status == 404
    assert (await client.get(SECRETS)).body["data"] == []


async def test_409_without_a_master_key_nothing_can_be_sealed(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.services.sealer, "_fernet", None)
    answer = await api.as_("owner").put(f"{SECRETS}/openai", VALUE)
    assert (answer.status, answer.code) == (409, "not_configured")
    assert "gateway.master_key" in answer.body["detail"]


@pytest.mark.parametrize("value", ["", " canary", "can\nary", "canar\u00fd", 5, None])
async def test_422_a_bad_value_is_not_repeated(api: Api, value: object) -> None:
    answer = await api.as_("owner").put(f"{SECRETS}/openai", {"value": value})
    assert answer.status == 422
    assert set(answer.wrong) == {"value"}
    assert "anar" not in str(answer.body)


async def test_422_a_name_is_a_slug(api: Api) -> None:
    answer = await api.as_("owner").put(f"{SECRETS}/Open-AI", VALUE)
    assert answer.status == 422

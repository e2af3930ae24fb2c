"""Tokens of the API: nobody makes one that may more than he himself; revoked ones are nobody's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.control.api.roles import Role

if TYPE_CHECKING:
    from tests.support.api import Api

TOKENS, OWN = "/v1/tokens", "/v1/me/tokens"
ROLES = [role.value for role in Role]


def body_of(api: Api, role: str) -> dict[str, object]:
    body: dict[str, object] = {"role": role, "name": f"a new {role}"}
    return body | (
        {"account_id": api.demo.account.account_id} if role in {"admin", "member"} else {}
    )


@pytest.mark.parametrize("maker", ROLES)
async def test_who_may_make_which(api: Api, maker: str) -> None:
    client = api.as_(maker)
    allowed = {"operator": set(ROLES), "owner": set(ROLES) - {"operator"}}.get(maker, set())
    for role in ROLES:
        made = await client.post(TOKENS, body_of(api, role))
        assert made.status == (201 if role in allowed else 403), (role, made.body)
        if made.status == 201:
            me = (await api.client(made.body["token"]).get("/v1/me")).body
            assert me["role"] == role
            assert me["token_id"] == made.body["id"]
    allowed = {"admin", "member"} if maker == "admin" else set()
    for role in ROLES:
        made = await client.post(OWN, {"role": role, "name": "x"})
        expected = 201 if role in allowed else 422 if maker == "admin" else 403
        assert made.status == expected, (role, made.body)


async def test_201_the_text_is_shown_once(api: Api) -> None:
    owner = api.as_("owner")
    made = await owner.post(
        TOKENS, {**body_of(api, "viewer"), "expires_at": "2099-01-01T00:00:00Z"}
    )
    text = made.body.pop("token")
    assert text.startswith(made.body["prefix"])
    assert made.body["expires_at"] == "2099-01-01T00:00:00.000Z"
    assert (await owner.get(f"{TOKENS}/{made.body['id']}")).body == made.body
    listed = await owner.get(TOKENS)
    assert made.body in listed.body["data"]
    assert text not in str(listed.body)


async def test_201_a_repeated_making_makes_one_token(api: Api) -> None:
    first, again = [
        await api.as_("owner").post(
            TOKENS, body_of(api, "viewer"), headers={"Idempotency-Key": "k"}
        )
        for _ in range(2)
    ]
    assert first.body == again.body
    assert first.body["token"]


async def test_a_revoked_token_is_nobodys(api: Api) -> None:
    owner = api.as_("owner")
    made = (await owner.post(TOKENS, body_of(api, "editor"))).body
    editor = api.client(made["token"])
    login = (await api.stranger.post("/v1/login", {"token": made["token"]})).body
    logged_in = api.client(login["access_token"])
    assert (await editor.get("/v1/me")).status == (await logged_in.get("/v1/me")).status == 200
    for _ in range(2):
        ended = await owner.post(f"{TOKENS}/{made['id']}/revoke")
        assert (ended.status, ended.body["status"]) == (200, "revoked")
        assert (await editor.get("/v1/me")).status == 401
        assert (await logged_in.get("/v1/me")).status == 401
    assert (await api.stranger.post("/v1/login", {"token": made["token"]})).status == 401


async def test_404_foreign_tokens_are_not_there(api: Api) -> None:
    operator = api.as_("operator")
    operators = (await operator.post(TOKENS, body_of(api, "operator"))).body["id"]
    foreign = (await api.as_("owner", api.other).get(TOKENS)).body["data"]
    bob = (await api.as_("owner").post("/v1/accounts", {"name": "bob"})).body["id"]
    bobs = await api.as_("owner").post(TOKENS, {"role": "member", "name": "bob", "account_id": bob})
    owners = next(
        row["id"]
        for row in (await api.as_("owner").get(TOKENS)).body["data"]
        if row["role"] == "owner"
    )
    for client, base, ids in (
        (api.as_("owner"), TOKENS, [operators, *(row["id"] for row in foreign)]),
        (api.as_("admin"), OWN, [operators, foreign[0]["id"], bobs.body["id"], owners]),
    ):
        for token_id in ids:
            assert (await client.get(f"{base}/{token_id}")).status == 404
            assert (await client.post(f"{base}/{token_id}/revoke")).status == 404
    own = (await api.as_("admin").get(OWN)).body["data"]
    assert {row["role"] for row in own} == {"admin", "member"}
    assert {row["account_id"] for row in own} == {api.demo.account.account_id}


async def test_operators_are_listed_for_operators(api: Api) -> None:
    operator = api.as_("operator")
    made = (await operator.post(TOKENS, body_of(api, "operator"))).body
    listed = (await operator.get(TOKENS, operators="true")).body["data"]
    assert made["id"] in [row["id"] for row in listed]
    assert made["id"] not in [row["id"] for row in (await operator.get(TOKENS)).body["data"]]
    assert (await operator.post(f"{TOKENS}/{made['id']}/revoke")).body["status"] == "revoked"
    assert (await api.as_("owner").get(TOKENS, operators="true")).status == 403


async def test_200_pages_of_one_account(api: Api) -> None:
    owner, cursor, found = api.as_("owner"), None, []
    account_id = api.demo.account.account_id
    while True:
        page = await owner.get(TOKENS, limit=1, account_id=account_id, cursor=cursor)
        found += [row["role"] for row in page.body["data"]]
        cursor = page.body["next_cursor"]
        if cursor is None:
            break
    assert found == ["admin", "member"]
    assert (await owner.get(TOKENS, account_id=api.other.account.account_id)).body["data"] == []


async def test_422_every_wrong_field_of_a_token_is_named(api: Api) -> None:
    owner = api.as_("owner")
    wrong = {"role": "king", "name": "", "account_id": "x", "expires_at": 5, "z": 1}
    assert set((await owner.post(TOKENS, wrong)).wrong) == set(wrong)
    meant = {"role": "admin", "name": "a\tb", "expires_at": "2020-01-01T00:00:00Z"}
    assert set((await owner.post(TOKENS, meant)).wrong) == {"account_id", "name", "expires_at"}
    for body in (
        {"role": "viewer", "name": "x", "account_id": api.demo.account.account_id},
        {"role": "admin", "name": "x", "account_id": api.other.account.account_id},
    ):
        assert set((await owner.post(TOKENS, body)).wrong) == {"account_id"}

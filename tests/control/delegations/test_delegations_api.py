"""Delegations by the API: parts of keys for agents, whose fan-out never spends more than it has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from gateway.identity.seal import Sealer
from tests.support.api_calls import serving_calls

if TYPE_CHECKING:
    from tests.support.api import Api, Client

PATH = "/v1/me/delegations"
NEW = {"credits": "3", "expires_in_s": 600}


async def parent_of(api: Api, **told: object) -> Client:
    """Whoever has a new key of the account with a cap of five credits in all."""
    body = {"caps": {"total": "5"}, **told}
    made = await api.as_("admin").post("/v1/me/keys", body)
    assert made.status == 201, made.body
    return api.client(made.body["secret"])


async def used(client: Client) -> dict[int, Any]:
    listed = await client.get(PATH)
    return {row["key_id"]: row["used_credits"] for row in listed.body["data"]}


async def test_201_a_token_says_what_it_is_for(api: Api) -> None:
    client = await parent_of(api)
    made = await client.post(PATH, {**NEW, "name": "agent 7", "metadata": {"run": "x"}})

    assert made.status == 201
    assert set(made.body) == {
        "token",
        "key_id",
        "parent_key_id",
        "expires_at",
        "credits",
        "routes",
    }
    assert (made.body["credits"], made.body["routes"]) == ("3", None)
    claims = jwt.decode(made.body["token"], options={"verify_signature": False})
    assert (claims["aud"], claims["key"]) == ("tollkeeper", made.body["key_id"])
    read = (await client.get(f"{PATH}/{made.body['key_id']}")).body
    assert (read["name"], read["metadata"], read["status"]) == ("agent 7", {"run": "x"}, "active")
    assert (read["used_credits"], read["left_credits"]) == ("0", "3")
    assert made.body["token"] not in str(read)


async def test_201_a_repeated_delegation_is_one(api: Api) -> None:
    client = await parent_of(api)
    first, again = [
        await client.post(PATH, NEW, headers={"Idempotency-Key": "k"}) for _ in range(2)
    ]
    assert first.body == again.body
    assert len((await client.get(PATH)).body["data"]) == 1


async def test_a_token_and_its_childs_spend_their_budgets_and_no_more(
    api: Api, clean_redis_url: str
) -> None:
    async with serving_calls(api, clean_redis_url) as proxy:
        client = await parent_of(api)
        token = (await client.post(PATH, NEW)).body["token"]
        agent = api.client(token)
        assert (await agent.get("/v1/me")).body["key"]["kind"] == "delegated"
        below = (await agent.post(PATH, {"credits": "2", "expires_in_s": 60})).body
        deep = api.client(below["token"])
        deepest = (await deep.post(PATH, {"credits": "1", "expires_in_s": 30})).body

        assert [await proxy.status(token) for _ in range(2)] == [200, 402]
        assert [await proxy.status(below["token"]) for _ in range(2)] == [200, 402]
        assert [await proxy.status(deepest["token"]) for _ in range(2)] == [200, 402]
        assert [await proxy.status(str(client.credential)) for _ in range(3)] == [200, 200, 402]
        assert await used(agent) == {below["key_id"]: "2"}
        assert await used(deep) == {deepest["key_id"]: "1"}
        balance = (await agent.get("/v1/me/balance")).body
        assert balance["available_credits"] == "95"


async def test_422_of_many_that_ask_at_once_none_gets_what_is_not_there(api: Api) -> None:
    client = await parent_of(api)
    # Redis knows the account from then on. While it is loaded, those who ask count as if they had
    # got it: then fewer may get some, never more.
    assert (await client.post(PATH, {**NEW, "credits": "1"})).status == 201
    answers = await asyncio.gather(*(client.post(PATH, {**NEW, "credits": "2"}) for _ in range(5)))

    assert sorted(answer.status for answer in answers) == [201, 201, 422, 422, 422]
    assert len((await client.get(PATH, limit=1)).body["data"]) == 1
    states = [row["status"] for row in (await client.get(PATH)).body["data"]]
    assert states.count("active") == 3


async def test_routes_are_narrowed_and_never_widened(api: Api, clean_redis_url: str) -> None:
    async with serving_calls(api, clean_redis_url) as proxy:
        client = await parent_of(api)
        made = (await client.post(PATH, {**NEW, "routes": ["more"]})).body
        assert made["routes"] == ["more"]
        assert await proxy.status(made["token"], "/more/x") == 200
        assert await proxy.status(made["token"]) == 403
        agent = api.client(made["token"])
        wider = await agent.post(PATH, {"credits": "1", "expires_in_s": 60, "routes": ["any"]})
        assert wider.status == 422
        below = (await agent.post(PATH, {"credits": "1", "expires_in_s": 60})).body
        assert await proxy.status(below["token"]) == 403
        assert await proxy.status(below["token"], "/more/x") == 200


async def test_what_ends_a_delegation_ends_all_below_it(api: Api, clean_redis_url: str) -> None:
    async with serving_calls(api, clean_redis_url) as proxy:
        client = await parent_of(api)
        made = (await client.post(PATH, NEW)).body
        below = (await api.client(made["token"]).post(PATH, {**NEW, "credits": "1"})).body
        # A child can't live longer than its parent; half as long is fine.
        assert below.get("status") == 422
        below = (
            await api.client(made["token"]).post(PATH, {"credits": "1", "expires_in_s": 60})
        ).body
        assert await proxy.status(below["token"]) == 200

        ended = await client.post(f"{PATH}/{made['key_id']}/revoke")
        assert (ended.status, ended.body["status"]) == (200, "revoked")
        assert await proxy.status(below["token"]) == 401
        assert await proxy.status(made["token"]) == 401
        assert (await api.client(made["token"]).get("/v1/me")).status == 401
        assert (await client.post(f"{PATH}/{made['key_id']}/revoke")).status == 200


async def test_owners_see_and_end_delegations_as_keys(api: Api, clean_redis_url: str) -> None:
    async with serving_calls(api, clean_redis_url) as proxy:
        client = await parent_of(api)
        made = (await client.post(PATH, NEW)).body
        owner = api.as_("owner")
        [row] = (await owner.get("/v1/keys", kind="delegated")).body["data"]
        assert (row["id"], row["budget_credits"]) == (made["key_id"], "3")
        wrong = await owner.patch(f"/v1/keys/{row['id']}", {"caps": {"total": "9"}, "routes": []})
        assert set(wrong.wrong) == {"caps", "routes"}
        await owner.post(f"/v1/keys/{row['id']}/revoke")
        assert await proxy.status(made["token"]) == 401


async def test_admins_delegate_from_the_keys_of_their_account(api: Api) -> None:
    admin = api.as_("admin")
    made = await admin.post(PATH, {**NEW, "key_id": api.demo.key.key_id})
    assert made.status == 201
    assert made.body["parent_key_id"] == api.demo.key.key_id
    listed = await admin.get(PATH)
    assert [row["key_id"] for row in listed.body["data"]] == [made.body["key_id"]]
    assert (await admin.post(f"{PATH}/{made.body['key_id']}/revoke")).status == 200
    assert set((await admin.post(PATH, NEW)).wrong) == {"key_id"}
    assert (await admin.post(PATH, {**NEW, "key_id": api.other.key.key_id})).status == 404


async def test_403_members_without_a_key_only_look(api: Api) -> None:
    made = (await api.as_key().post(PATH, NEW)).body
    member = api.as_("member")
    assert (await member.post(PATH, {**NEW, "key_id": api.demo.key.key_id})).status == 403
    assert (await member.post(f"{PATH}/{made['key_id']}/revoke")).status == 403
    assert len((await member.get(PATH)).body["data"]) == 1
    assert (await api.as_("owner").get(PATH)).status == 403


async def test_404_a_key_sees_what_comes_from_it_and_nothing_else(api: Api) -> None:
    one, two = await parent_of(api), await parent_of(api)
    made = (await one.post(PATH, NEW)).body
    agent = api.client(made["token"])
    below = (await agent.post(PATH, {"credits": "1", "expires_in_s": 60})).body

    for stranger in (two, api.as_key(api.other), api.as_("admin", api.other)):
        for key_id in (made["key_id"], below["key_id"]):
            assert (await stranger.get(f"{PATH}/{key_id}")).status == 404
            assert (await stranger.post(f"{PATH}/{key_id}/revoke")).status == 404
        assert (await stranger.get(PATH)).body["data"] == []
    assert (await agent.get(f"{PATH}/{made['key_id']}")).status == 404, "not even itself"
    assert (await one.get(f"{PATH}/{below['key_id']}")).status == 200
    assert [row["key_id"] for row in (await one.get(PATH)).body["data"]] == [made["key_id"]]


async def test_422_every_wrong_field_of_a_delegation_is_named(api: Api) -> None:
    client = await parent_of(api)
    wrong = {"credits": "0", "expires_in_s": 86_401, "routes": "any", "key_id": 0, "x": 1}
    assert set((await client.post(PATH, wrong)).wrong) == set(wrong)
    meant = {**NEW, "routes": ["gone"], "metadata": {"a\tb": "c"}}
    assert set((await client.post(PATH, meant)).wrong) == {"routes[0]", "metadata.a\tb"}
    assert set((await client.post(PATH, {**NEW, "key_id": 2**40})).wrong) == {"key_id"}
    assert (await client.post(PATH, {**NEW, "credits": "5.5"})).status == 422


@pytest.mark.parametrize("life_s", [10, 86_400])
async def test_201_the_bounds_of_a_life_are_allowed(api: Api, life_s: int) -> None:
    made = await api.as_key().post(PATH, {"credits": "1", "expires_in_s": life_s})
    assert made.status == 201, made.body


async def test_409_without_a_master_key_nothing_is_carved(api: Api) -> None:
    object.__setattr__(api.services, "sealer", Sealer(()))
    answer = await api.as_key().post(PATH, NEW)
    assert (answer.status, answer.code) == (409, "not_configured")
    assert (await api.as_key().get(PATH)).body["data"] == []


async def test_a_key_whose_token_could_not_be_signed_is_over(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise OSError("no")

    monkeypatch.setattr(type(api.services.signer), "delegated_token", fails)
    client = await parent_of(api)
    assert (await client.post(PATH, NEW)).status == 500
    [row] = (await client.get(PATH)).body["data"]
    assert row["status"] == "revoked"


async def test_429_one_caller_can_only_ask_so_often(api: Api) -> None:
    limiter = api.services.delegating
    client = api.as_key()
    while not limiter.take(f"key:{api.demo.key.key_id}"):
        pass
    answer = await client.post(PATH, NEW)
    assert answer.status == 429
    assert int(answer.headers["Retry-After"]) >= 1
    other = await api.as_key(api.other).post(PATH, NEW)
    assert other.status == 201


async def test_a_page_of_delegations_goes_on_behind_the_one_before(api: Api) -> None:
    client = await parent_of(api, caps={})
    ids = [(await client.post(PATH, {**NEW, "name": str(n)})).body["key_id"] for n in range(3)]
    for who in (client, api.as_("admin")):
        found, cursor = [], None
        while True:
            page = await who.get(PATH, limit=2, cursor=cursor)
            found += [row["key_id"] for row in page.body["data"]]
            cursor = page.body["next_cursor"]
            if cursor is None:
                break
        assert found == ids

"""Keys by the API: made, changed, replaced, ended; and what the next call feels of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.operations.errors import ConflictError
from gateway.operations.keys import KeyMaker
from tests.support.api_calls import serving_calls
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.api import Api

OWN = "/v1/me/keys"
WHOLE = {
    "name": "ci",
    "expires_at": "2099-12-31T00:00:00.000Z",
    "limits": {"requests_per_minute": 60, "burst": 5, "concurrency": 3},
    "caps": {"day": "2.5", "total": "10"},
    "addresses": ["127.0.0.0/8"],
    "metadata": {"team": "red"},
}


def keys_of(api: Api) -> str:
    return f"/v1/accounts/{api.demo.account.account_id}/keys"


async def test_201_the_secret_is_shown_once(api: Api) -> None:
    owner = api.as_("owner")
    made = await owner.post(keys_of(api), WHOLE)

    assert made.status == 201
    secret = made.body.pop("secret")
    assert secret.startswith(made.body["prefix"])
    read = await owner.get(f"/v1/keys/{made.body['id']}")
    assert read.body == made.body
    told = {
        **WHOLE,
        "limits": {"requests_per_second": None, "requests_per_month": None, **WHOLE["limits"]},  # type: ignore[dict-item]
        "caps": {"month": None, "session": None, **WHOLE["caps"]},  # type: ignore[dict-item]
    }
    assert {name: read.body[name] for name in told} == told
    assert (read.body["status"], read.body["kind"]) == ("active", "key")
    listed = await owner.get("/v1/keys")
    assert secret not in str(listed.body)


async def test_201_a_repeated_making_makes_one_key_and_tells_it_again(api: Api) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = [
        await api.as_("owner").post(keys_of(api), {"name": "ci"}, headers=key) for _ in range(2)
    ]

    assert (first.status, again.status) == (201, 201)
    assert first.body == again.body
    assert len((await api.as_("owner").get("/v1/keys")).body["data"]) == 2


async def test_422_every_wrong_field_of_a_key_is_named(api: Api) -> None:
    owner = api.as_("owner")
    shapes = {
        "name": "",
        "limits": {"requests_per_minute": -1, "color": 1},
        "caps": {"day": 1.5},
        "addresses": "10.0.0.0/8",
        "metadata": {"": "x"},
        "expires_at": "tomorrow",
    }
    found = set((await owner.post(keys_of(api), shapes)).wrong)
    assert found >= {
        "name",
        "limits.requests_per_minute",
        "limits.color",
        "caps.day",
        "addresses",
        "expires_at",
    }
    meanings = {
        "name": "a\tb",
        "limits": {"burst": 3},
        "caps": {"day": "5", "total": "1"},
        "routes": ["chat"],
        "addresses": ["127.0.0.0/8", "127.0.0.1/8"],
        "metadata": {"a\tb": "x"},
        "expires_at": "2020-01-01T00:00:00Z",
    }
    assert set((await owner.post(keys_of(api), meanings)).wrong) == {
        "name",
        "limits.burst",
        "caps.day",
        "routes[0]",
        "addresses[1]",
        "metadata.a\tb",
        "expires_at",
    }
    assert len((await owner.get("/v1/keys")).body["data"]) == 1


async def test_200_what_is_left_out_of_a_change_stays(api: Api) -> None:
    owner = api.as_("owner")
    made = (await owner.post(keys_of(api), WHOLE)).body
    path = f"/v1/keys/{made['id']}"
    del made["secret"]

    changed = await owner.patch(path, {"caps": {"day": None, "month": "4"}, "expires_at": None})

    assert changed.status == 200
    caps = {"day": None, "month": "4", "total": "10", "session": None}
    assert changed.body == {**made, "caps": caps, "expires_at": None}
    assert (await owner.get(path)).etag == changed.etag
    wrong = await owner.patch(path, {"caps": {"total": "3"}})
    assert set(wrong.wrong) == {"caps.month"}, "with what was there already"


async def test_412_a_key_that_was_changed_meanwhile_is_not_changed(api: Api) -> None:
    owner, path = api.as_("owner"), f"/v1/keys/{api.demo.key.key_id}"
    seen = {"If-Match": (await owner.get(path)).etag}
    assert (await owner.patch(path, {"name": "one"}, headers=seen)).status == 200
    assert (await owner.patch(path, {"name": "two"}, headers=seen)).status == 412
    assert (await owner.get(path)).body["name"] == "one"


async def test_200_pages_and_filters(api: Api) -> None:
    owner = api.as_("owner")
    ids = [api.demo.key.key_id]
    ids += [(await owner.post(keys_of(api), {"name": str(n)})).body["id"] for n in range(3)]
    await owner.post(f"/v1/keys/{ids[1]}/revoke")

    async def listed(**query: object) -> list[int]:
        found: list[int] = []
        while True:
            page = await owner.get("/v1/keys", limit=1, **query)
            found += [row["id"] for row in page.body["data"]]
            query["cursor"] = page.body["next_cursor"]
            if query["cursor"] is None:
                return found

    assert await listed() == ids
    assert await listed(status="revoked") == [ids[1]]
    assert await listed(kind="delegated") == []
    assert await listed(account_id=api.demo.account.account_id, status="active") == [
        ids[0],
        *ids[2:],
    ]
    assert await listed(account_id=api.other.account.account_id) == []
    wrong = await owner.get("/v1/keys", status="gone", kind="x", account_id="y")
    assert set(wrong.wrong) == {"status", "kind", "account_id"}


async def test_200_keys_are_exported_without_secrets(api: Api) -> None:
    owner = api.as_("owner")
    made = await owner.post(keys_of(api), WHOLE)
    answer = await owner.ask("GET", "/v1/keys", headers={"Accept": "application/x-ndjson"})

    assert answer.status == 200
    assert len(answer.body.splitlines()) == 2
    assert made.body["secret"] not in answer.body


async def test_403_members_look_and_admins_change(api: Api) -> None:
    own = f"{OWN}/{api.demo.key.key_id}"
    for client in (api.as_("member"), api.as_key()):
        assert (await client.get(OWN)).status == 200
        assert (await client.get(own)).status == 200
        assert (await client.post(OWN, {})).status == 403
        assert (await client.patch(own, {"name": "x"})).status == 403
        assert (await client.post(f"{own}/rotate", {})).status == 403
        assert (await client.post(f"{own}/revoke")).status == 403
    assert (await api.as_("admin").post(OWN, {"name": "mine"})).status == 201
    assert (await api.as_("admin").patch(own, {"name": "x"})).status == 200
    assert (await api.as_("viewer").post(keys_of(api), {})).status == 403
    assert (await api.as_("viewer").post(f"/v1/keys/{api.demo.key.key_id}/revoke")).status == 403
    assert (await api.as_("admin").get("/v1/keys")).status == 403


async def test_404_foreign_keys_are_not_there(api: Api) -> None:
    owner = api.as_("owner")
    bob = (await owner.post("/v1/accounts", {"name": "bob"})).body["id"]
    bobs = (await owner.post(f"/v1/accounts/{bob}/keys", {})).body["id"]
    for client, base, foreign in (
        (owner, "/v1/keys", api.other.key.key_id),
        (api.as_("admin"), OWN, api.other.key.key_id),
        (api.as_("admin"), OWN, bobs),
    ):
        path = f"{base}/{foreign}"
        assert (await client.get(path)).status == 404
        assert (await client.patch(path, {"name": "mine"})).status == 404
        assert (await client.post(f"{path}/rotate", {})).status == 404
        assert (await client.post(f"{path}/revoke")).status == 404
    foreign_account = f"/v1/accounts/{api.other.account.account_id}/keys"
    assert (await owner.post(foreign_account, {})).status == 404
    assert bobs not in [row["id"] for row in (await api.as_("admin").get(OWN)).body["data"]]


async def test_a_key_made_works_on_its_first_call_and_revoked_not_on_the_next(
    api: Api, clean_redis_url: str
) -> None:
    owner = api.as_("owner")
    async with serving_calls(api, clean_redis_url) as proxy:
        made = (await owner.post(keys_of(api), {})).body
        assert await proxy.status(made["secret"]) == 200
        for _ in range(2):
            ended = await owner.post(f"/v1/keys/{made['id']}/revoke")
            assert (ended.status, ended.body["status"]) == (200, "revoked")
            assert await proxy.status(made["secret"]) == 401
        assert (await owner.get("/v1/me/balance")).status == 403


async def test_limits_caps_routes_and_addresses_bind_the_next_call(
    api: Api, clean_redis_url: str
) -> None:
    admin = api.as_("admin")
    async with serving_calls(api, clean_redis_url) as proxy:
        made = (await admin.post(OWN, {})).body
        secret, path = made["secret"], f"{OWN}/{made['id']}"
        assert await proxy.status(secret) == 200
        # What a new cap or quota counts from before is what Postgres has.
        account_id = api.demo.account.account_id
        await eventually(lambda: api.ledger.settlements(account_id, limit=1))
        for change, status in (
            ({"caps": {"total": "1.5"}}, 402),
            ({"caps": {"total": None}}, 200),
            ({"routes": ["more"]}, 403),
            ({"routes": []}, 200),
            ({"addresses": ["192.0.2.0/24"]}, 403),
            ({"addresses": ["127.0.0.1"]}, 200),
            ({"limits": {"requests_per_month": 1}}, 429),
            ({"limits": {"requests_per_month": None}}, 200),
            ({"expires_at": "2020-01-01T00:00:00Z"}, 401),
            ({"expires_at": None}, 200),
        ):
            changed = await admin.patch(path, change)
            assert changed.status == 200, changed.body
            assert await proxy.status(secret) == status, change


async def test_a_replaced_key_works_as_long_as_it_was_told_to(
    api: Api, clean_redis_url: str
) -> None:
    admin = api.as_("admin")
    async with serving_calls(api, clean_redis_url) as proxy:
        made = (await admin.post(OWN, {**WHOLE, "name": "ci"})).body
        follower = await admin.post(f"{OWN}/{made['id']}/rotate", {"overlap_s": 3_600})
        assert follower.status == 201
        assert follower.body["caps"] == made["caps"]
        assert follower.body["secret"] != made["secret"]
        assert await proxy.status(made["secret"]) == 200
        assert await proxy.status(follower.body["secret"]) == 200
        assert (await admin.get(f"{OWN}/{made['id']}")).body["expires_at"] < WHOLE["expires_at"]

        last = await admin.post(f"{OWN}/{follower.body['id']}/rotate", {})
        assert await proxy.status(follower.body["secret"]) == 401
        assert await proxy.status(last.body["secret"]) == 200
        again = await admin.post(f"{OWN}/{follower.body['id']}/rotate", {})
        assert (again.status, again.code) == (409, "revoked")


@pytest.mark.parametrize("overlap", [-1, 1e9, "1h"])
async def test_422_an_overlap_has_bounds(api: Api, overlap: object) -> None:
    path = f"/v1/keys/{api.demo.key.key_id}/rotate"
    wrong = await api.as_("owner").post(path, {"overlap_s": overlap})
    assert set(wrong.wrong) == {"overlap_s"}


async def test_200_a_key_is_found_by_how_it_begins_by_its_own_people_alone(api: Api) -> None:
    owner = api.as_("owner")
    made = (await owner.post(keys_of(api), {"name": "ci"})).body
    prefix = made["prefix"]

    async def ids(who: str, path: str, **more: object) -> list[int]:
        answer = await api.as_(who).get(path, prefix=prefix, **more)
        assert answer.status == 200
        return [key["id"] for key in answer.body["data"]]

    assert await ids("owner", "/v1/keys") == [made["id"]]
    assert await ids("member", OWN) == [made["id"]]
    assert await ids("owner", "/v1/keys", status="revoked") == []
    assert await ids("owner", "/v1/keys", kind="delegated") == []
    assert await ids("owner", "/v1/keys", account_id=made["account_id"] + 1) == []
    foreign = await api.as_("owner", api.other).get("/v1/keys", prefix=prefix)
    assert foreign.body["data"] == []


async def test_a_process_without_the_pepper_makes_and_knows_no_key() -> None:
    maker = KeyMaker("dev", b"")
    with pytest.raises(ConflictError, match=r"gateway\.key_pepper"):
        assert maker.pepper

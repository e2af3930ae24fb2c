"""Grants by the API: given, adjusted, ended; once, and from the next call on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.control.api.idempotency import Asker, change_id_of
from gateway.operations.audit import audit
from gateway.operations.grants import OwnedGrant, adjust_grant
from tests.support.api import CREDIT
from tests.support.api_calls import serving_calls

if TYPE_CHECKING:
    from tests.support.api import Api


def grants_of(api: Api) -> str:
    return f"/v1/accounts/{api.demo.account.account_id}/grants"


async def first_grant(api: Api) -> int:
    listed = await api.as_("viewer").get(grants_of(api))
    return int(listed.body["data"][-1]["id"])


async def available(api: Api) -> str:
    return str((await api.as_("member").get("/v1/me/balance")).body["available_credits"])


async def test_201_a_grant_is_as_it_was_told(api: Api) -> None:
    owner = api.as_("owner")
    told = {
        "source": "pack",
        "effective_at": "2030-01-01T00:00:00.000Z",
        "expires_at": "2031-01-01T00:00:00.000Z",
        "priority": 7,
        "note": "Goodwill",
    }
    made = await owner.post(grants_of(api), {"credits": "12.5", **told})

    assert made.status == 201
    assert {name: made.body[name] for name in told} == told
    assert (made.body["granted_credits"], made.body["left_credits"]) == ("12.5", "12.5")
    assert (await owner.get(f"/v1/grants/{made.body['id']}")).body == made.body
    listed = await owner.get(grants_of(api))
    assert listed.body["data"][0]["id"] == made.body["id"]
    assert (await api.as_key().get("/v1/me/grants")).body == listed.body


async def test_201_a_repeated_grant_is_given_once(api: Api) -> None:
    key = {"Idempotency-Key": "k"}
    first, again = [
        await api.as_("editor").post(grants_of(api), {"credits": "5"}, headers=key)
        for _ in range(2)
    ]
    assert first.body == again.body
    assert await available(api) == "105"


async def test_422_every_wrong_field_of_a_grant_is_named(api: Api) -> None:
    owner = api.as_("owner")
    wrong = {
        "credits": "0",
        "source": "overage",
        "priority": -1,
        "note": "two\nlines",
        "effective_at": "2030-01-01",
        "x": 1,
    }
    assert set((await owner.post(grants_of(api), wrong)).wrong) == set(wrong)
    for times in (
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2030-01-01T00:00:00Z", "effective_at": "2030-01-01T00:00:00Z"},
    ):
        answer = await owner.post(grants_of(api), {"credits": "1", **times})
        assert set(answer.wrong) == {"expires_at"}
    adjust = f"/v1/grants/{await first_grant(api)}/adjust"
    assert set((await owner.post(adjust, {"credits": "0"})).wrong) == {"credits"}
    assert set((await owner.post(adjust, {"credits": "-1", "note": "x"})).wrong) == {"note"}
    assert await available(api) == "100"


@pytest.mark.parametrize("role", ["viewer", "admin", "member"])
async def test_403_only_editors_give_and_take(api: Api, role: str) -> None:
    client, grant = api.as_(role), f"/v1/grants/{await first_grant(api)}"
    assert (await client.post(grants_of(api), {"credits": "1"})).status == 403
    assert (await client.post(f"{grant}/adjust", {"credits": "1"})).status == 403
    assert (await client.post(f"{grant}/revoke")).status == 403


async def test_404_foreign_grants_are_not_there(api: Api) -> None:
    foreign = f"/v1/accounts/{api.other.account.account_id}/grants"
    listed = await api.as_("operator").ask("GET", foreign, headers={"Tollkeeper-Platform": "other"})
    grant = f"/v1/grants/{listed.body['data'][0]['id']}"
    owner = api.as_("owner")
    assert (await owner.get(foreign)).status == 404
    assert (await owner.post(foreign, {"credits": "1"})).status == 404
    assert (await owner.get(grant)).status == 404
    assert (await owner.post(f"{grant}/adjust", {"credits": "1"})).status == 404
    assert (await owner.post(f"{grant}/revoke")).status == 404


async def test_a_grant_binds_the_next_call(api: Api, clean_redis_url: str) -> None:
    owner, secret = api.as_("owner"), api.demo.key.text
    grant = f"/v1/grants/{await first_grant(api)}"
    async with serving_calls(api, clean_redis_url) as proxy:
        assert await proxy.status(secret) == 200

        taken = await owner.post(f"{grant}/adjust", {"credits": "-1000"})
        assert taken.status == 200
        assert taken.body["credits"] == "-99", "no more than there is"
        assert await proxy.status(secret) == 402

        added = await owner.post(f"{grant}/adjust", {"credits": "1.5", "note": "Sorry"})
        assert (added.body["credits"], added.body["grant"]["credited_credits"]) == ("1.5", "1.5")
        assert await proxy.status(secret) == 200
        assert await proxy.status(secret) == 402

        given = await owner.post(grants_of(api), {"credits": "1"})
        assert await proxy.status(secret) == 200
        await owner.post(f"/v1/grants/{given.body['id']}/adjust", {"credits": "5"})

        ended = await owner.post(f"/v1/grants/{given.body['id']}/revoke")
        assert ended.status == 200
        assert ended.body["revoked_at"] is not None
        assert await proxy.status(secret) == 402
        again = await owner.post(f"/v1/grants/{given.body['id']}/revoke")
        assert again.body["revoked_at"] == ended.body["revoked_at"]
        late = await owner.post(f"/v1/grants/{given.body['id']}/adjust", {"credits": "1"})
        assert (late.status, late.code) == (409, "grant_ended")


@pytest.mark.parametrize("amount", ["-2", "2"])
async def test_an_adjustment_whose_maker_died_is_not_made_again(
    api: Api, clean_redis_url: str, amount: str
) -> None:
    # The first request did its work without the API's being told: no answer is kept, and nothing
    # in the audit log says so.
    owner, grant_id = api.as_("owner"), await first_grant(api)
    path = f"/v1/grants/{grant_id}/adjust"
    async with serving_calls(api, clean_redis_url) as proxy:
        assert await proxy.status(api.demo.key.text) == 200
        row = await api.ledger.grant(api.demo.platform_id, grant_id)
        assert row is not None
        listed = await owner.get("/v1/tokens")
        actor = next(f"token:{one['id']}" for one in listed.body["data"] if one["role"] == "owner")
        asker = Asker(actor, api.demo.platform_id)
        body = f'{{"credits": "{amount}"}}'.encode()
        change_id = change_id_of(asker, "k", b"POST" + path.encode() + b"\n" + body)
        await adjust_grant(
            api.ledger,
            api.counters,
            OwnedGrant(api.demo.account, row),
            int(amount) * CREDIT,
            change_id=change_id,
        )
        after = await available(api)

        repeated = await owner.post(path, {"credits": amount}, headers={"Idempotency-Key": "k"})

        assert repeated.status == 200
        assert repeated.body["credits"] == amount
        assert await available(api) == after
    assert (await audit(api.ledger, api.counters)).findings == []


async def test_who_gave_what_is_in_the_audit_log(api: Api, postgres_url: str) -> None:
    made = await api.as_("editor").post(grants_of(api), {"credits": "5"})
    await api.as_("editor").post(f"/v1/grants/{made.body['id']}/adjust", {"credits": "1"})
    connection = await asyncpg.connect(postgres_url)
    try:
        rows = await connection.fetch(
            "SELECT actor, resource, request_id FROM audit_log WHERE actor LIKE 'token:%'"
            " ORDER BY id"
        )
    finally:
        await connection.close()
    assert [row["resource"] for row in rows] == ["grant", "ledger_change"]
    assert rows[0]["request_id"] == made.headers["X-Request-Id"]

"""Logging in, going on, logging out; and the keys that our tokens are signed with."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import jwt
import pytest
from jwt.algorithms import OKPAlgorithm

from tests.support.api import ADMIN_TOKEN
from tests.support.api_calls import serving_calls

if TYPE_CHECKING:
    from tests.support.api import Answer, Api

JWKS = "/.well-known/jwks.json"
NEW = {"credits": "1", "expires_in_s": 600}


async def log_in(api: Api, token: str | None) -> Answer:
    return await api.stranger.post("/v1/login", {"token": token})


@pytest.mark.parametrize("role", ["operator", "owner", "viewer", "admin", "member"])
async def test_200_a_login_may_what_its_token_may(api: Api, role: str) -> None:
    answer = await log_in(api, api.as_(role).credential)

    assert answer.status == 200
    assert 0 < answer.body["expires_in_s"] <= 600
    me = (await api.client(answer.body["access_token"]).get("/v1/me")).body
    assert (me["role"], me["logged_in"]) == (role, True)
    own = (await api.as_(role).get("/v1/me")).body
    assert own["logged_in"] is False
    assert {**own, "logged_in": True, "token_id": me["token_id"]} == me


async def test_401_for_what_is_no_token_of_the_api(api: Api) -> None:
    own = str(api.as_("owner").credential)
    for text in ("wrong", own[:-1], api.demo.key.text, ADMIN_TOKEN + "x", "é", "eyJ.eyJ.x"):
        answer = await log_in(api, text)
        assert (answer.status, answer.code) == (401, "unauthenticated")
        assert text not in str(answer.body)
    assert set((await api.stranger.post("/v1/login", {"tokn": "x"})).wrong) == {"token", "tokn"}


async def test_a_refresh_token_is_good_once_and_an_old_one_ends_the_login(api: Api) -> None:
    first = (await log_in(api, api.as_("owner").credential)).body
    second = await api.stranger.post("/v1/login/refresh", {"refresh_token": first["refresh_token"]})
    assert second.status == 200
    assert (await api.client(second.body["access_token"]).get("/v1/me")).status == 200

    stolen = await api.stranger.post("/v1/login/refresh", {"refresh_token": first["refresh_token"]})
    assert (stolen.status, stolen.code) == (401, "unauthenticated")
    assert (await api.client(second.body["access_token"]).get("/v1/me")).status == 401
    newest = {"refresh_token": second.body["refresh_token"]}
    assert (await api.stranger.post("/v1/login/refresh", newest)).status == 401


async def test_204_who_logs_out_is_nobody_any_more(api: Api) -> None:
    login = (await log_in(api, api.as_("owner").credential)).body
    client = api.client(login["access_token"])
    assert (await client.post("/v1/logout")).status == 204
    assert (await client.get("/v1/me")).status == 401
    refresh = {"refresh_token": login["refresh_token"]}
    assert (await api.stranger.post("/v1/login/refresh", refresh)).status == 401
    assert (await api.as_("owner").post("/v1/logout")).status == 204
    assert (await api.as_("owner").get("/v1/me")).status == 200, "a token has no login to end"


async def test_429_who_tries_to_log_in_again_and_again_has_to_wait(api: Api) -> None:
    answers = await asyncio.gather(*(log_in(api, "wrong") for _ in range(40)))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {401, 429}
    refused = next(answer for answer in answers if answer.status == 429)
    assert int(refused.headers["Retry-After"]) >= 1


async def test_strangers_can_verify_our_tokens(api: Api) -> None:
    answer = await api.stranger.get(JWKS)
    assert answer.status == 200
    assert "public" in answer.headers["Cache-Control"]
    [key] = answer.body["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}, "the public half and no more"
    token = (await log_in(api, api.as_("owner").credential)).body["access_token"]
    public = OKPAlgorithm.from_jwk(key)
    jwt.decode(token, public, algorithms=["EdDSA"], audience="tollkeeper:control")  # type: ignore[arg-type]


async def test_tokens_of_a_retired_signing_key_stay_good_and_new_ones_are_at_once(
    api: Api, clean_redis_url: str
) -> None:
    async with serving_calls(api, clean_redis_url) as proxy:
        login = (await log_in(api, api.as_("owner").credential)).body
        old = (await api.as_key().post("/v1/me/delegations", NEW)).body["token"]
        rotated = await api.as_("operator").post("/v1/signing-keys/rotate")

        assert rotated.status == 200
        kids = [key["kid"] for key in rotated.body["keys"]]
        assert len(kids) == 2
        new = (await api.as_key().post("/v1/me/delegations", NEW)).body["token"]
        assert jwt.get_unverified_header(new)["kid"] == kids[0]
        assert jwt.get_unverified_header(old)["kid"] == kids[1]
        assert await proxy.status(new) == 200
        assert await proxy.status(old) == 200
        assert (await api.client(login["access_token"]).get("/v1/me")).status == 200
        again = (await log_in(api, api.as_("owner").credential)).body
        assert (await api.client(again["access_token"]).get("/v1/me")).status == 200


@pytest.mark.parametrize("role", ["owner", "viewer", "admin"])
async def test_403_only_operators_change_signing_keys(api: Api, role: str) -> None:
    assert (await api.as_(role).post("/v1/signing-keys/rotate")).status == 403
    assert len((await api.stranger.get(JWKS)).body["keys"]) == 1

"""Who gets in with a key: from where it may be used, and while what it is a part of lasts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from gateway.control.api import callers
from gateway.peers import Peers

if TYPE_CHECKING:
    from tests.support.api import Api, Client

ME = "/v1/me"
HERE, ELSEWHERE = "127.0.0.0/8", "192.0.2.0/24"
PATHS = ("/v1/me/keys", "/v1/me/delegations")


async def key_of(api: Api, **told: object) -> tuple[Client, int]:
    """Whoever has a new key of the account, and its id."""
    made = await api.as_("admin").post("/v1/me/keys", {"caps": {"total": "5"}, **told})
    assert made.status == 201, made.body
    return api.client(made.body["secret"]), made.body["id"]


async def agent_of(api: Api, client: Client, life_s: int = 600) -> Client:
    """Whoever has a token delegated from a client's key."""
    made = await client.post("/v1/me/delegations", {"credits": "1", "expires_in_s": life_s})
    assert made.status == 201, made.body
    return api.client(made.body["token"])


async def test_a_key_that_is_for_other_networks_does_not_get_in(api: Api) -> None:
    client, key_id = await key_of(api, addresses=[HERE])
    agent = await agent_of(api, client)
    for one in (client, agent):
        assert (await one.get(ME)).status == 200

    await api.as_("admin").patch(f"/v1/me/keys/{key_id}", {"addresses": [ELSEWHERE]})

    for one in (client, agent):
        for path in PATHS:
            answer = await one.get(path)
            assert (answer.status, answer.code) == (403, "forbidden")
        answer = await one.post("/v1/me/delegations", {"credits": "1", "expires_in_s": 600})
        assert answer.status == 403


@pytest.mark.parametrize(
    "end",
    [
        "UPDATE api_keys SET expires_at = now() - interval '1 s' WHERE id = $1",
        # As an issuer's key is revoked, by that alone.
        "UPDATE api_keys SET status = 'revoked', revoked_at = now() WHERE id = $1",
    ],
)
async def test_a_token_is_over_with_whatever_it_comes_from(api: Api, end: str) -> None:
    client, key_id = await key_of(api)
    child = await agent_of(api, client)
    grandchild = await agent_of(api, child, 60)
    assert (await grandchild.get(ME)).status == 200

    async with api.ledger._pool.acquire() as connection:
        await connection.execute(end, key_id)

    for one in (client, child, grandchild):
        assert (await one.get(ME)).status == 401


async def test_a_trusted_proxy_says_where_a_request_comes_from(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, _ = await key_of(api, addresses=[ELSEWHERE])
    forwarded = {"X-Forwarded-For": "192.0.2.7"}
    assert (await client.ask("GET", ME, headers=forwarded)).status == 403, "anybody can write that"

    trusting = dataclasses.replace(api.services, peers=Peers(["127.0.0.0/8"]))
    told = callers.client_of
    monkeypatch.setattr(
        "gateway.control.api.serve.client_of", lambda request, _: told(request, trusting)
    )

    assert (await client.ask("GET", ME, headers=forwarded)).status == 200
    spoofed = {"X-Forwarded-For": "192.0.2.7, 198.51.100.1, 127.0.0.1"}
    assert (await client.ask("GET", ME, headers=spoofed)).status == 403
    await api.as_("owner").post("/v1/accounts", {"name": "bob"}, headers=forwarded)
    log = await api.as_("owner").get("/v1/audit-log", resource="account")
    assert log.body["data"][0]["address"] == "192.0.2.7"

    async def guess(address: str) -> int:
        headers = {"X-Forwarded-For": address}
        return (await api.client("wrong").ask("GET", ME, headers=headers)).status

    statuses = [await guess("192.0.2.8") for _ in range(40)]
    assert (statuses[-1], await guess("192.0.2.9")) == (429, 401), "each client waits for itself"

"""`tollkeeper audit-log`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote


async def test_it_says_who_changed_what(api: Api, remote: Remote) -> None:
    me = await remote.log_in(api.demo.tokens[Role.OWNER])
    account_id = api.demo.account.account_id
    path = f"/v1/accounts/{account_id}"
    changed = await api.as_("owner").patch(path, {"status": "suspended"})
    assert changed.status == 200

    words = ("audit-log", "--resource", "account", "--id", str(account_id), "--since", "1h")
    [entry] = (await remote.json(*words, "--actor", f"token:{me['token_id']}"))["entries"]
    assert (entry["before"], entry["after"]) == ({"status": "active"}, {"status": "suspended"})
    table = (await remote(*words)).out
    assert "status: active -> suspended" in table
    assert f"token:{me['token_id']}" in table

    assert (await remote.json(*words, "--until", "1h"))["entries"] == []
    await remote.json("tokens", "create", "viewer", "--name", "one")
    await remote.json("tokens", "create", "viewer", "--name", "two")
    [newest] = (await remote.json("audit-log", "--limit", "1"))["entries"]
    assert newest["after"]["name"] == "two"
    of_alice = (await remote.json("audit-log", "--account", "alice"))["entries"]
    assert {one["account_id"] for one in of_alice} == {account_id}


async def test_admins_see_their_accounts_part(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.ADMIN])
    made = await remote.json("tokens", "create", "member", "--name", "bot")
    [entry] = (await remote.json("audit-log", "--resource", "token"))["entries"]

    assert (entry["action"], entry["resource_id"]) == ("create", str(made["token"]["id"]))
    assert made["token"]["token"] not in (await remote("audit-log")).out

"""`tollkeeper delegations`: with a key in hand, and as an admin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote

CREATE = ("delegations", "create", "--credits", "5", "--expires", "30m")


async def test_who_shows_a_key_delegates_from_it_and_so_on(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.key.text)
    made = (await remote.json(*CREATE, "--name", "scout", "--metadata", "team=a"))["delegation"]

    assert (made["parent_key_id"], made["credits"]) == (api.demo.key.key_id, "5")
    [row] = (await remote.json("delegations", "list"))["delegations"]
    assert (row["key_id"], row["name"], row["metadata"]) == (
        *(made["key_id"], "scout"),
        {"team": "a"},
    )

    words = ("delegations", "create", "--credits", "2", "--expires", "10m")
    below = (await remote.json(*words, token=made["token"]))["delegation"]
    assert below["parent_key_id"] == made["key_id"]
    table = (await remote("delegations", "list", token=made["token"])).out
    assert str(below["key_id"]) in table

    ended = await remote.json("delegations", "revoke", str(made["key_id"]))
    assert ended["delegation"]["status"] == "revoked"
    assert (await remote("whoami", token=made["token"])).code == 1


async def test_people_see_the_token_once(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.key.text)
    answer = await remote(*CREATE)

    token = answer.out.splitlines()[-1].strip()
    assert (await remote.json("whoami", token=token))["role"] == "member"
    assert token not in (await remote("delegations", "list")).out


async def test_an_admin_says_from_which_key(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.ADMIN])

    assert "--key" in (await remote(*CREATE)).err
    by_number = await remote.json(*CREATE, "--key", str(api.demo.key.key_id))
    prefix = (await remote.json("whoami", token=api.demo.key.text))["key"]["prefix"]
    by_prefix = await remote.json(*CREATE, "--key", prefix)
    parents = {made["delegation"]["parent_key_id"] for made in (by_number, by_prefix)}
    assert parents == {api.demo.key.key_id}
    assert "there is no key" in (await remote(*CREATE, "--key", "tk_dev_none")).err


async def test_who_is_of_no_account_is_told_to_show_a_key(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    for words in (CREATE, ("delegations", "list"), ("delegations", "revoke", "1")):
        answer = await remote(*words)
        assert (answer.code, "TOLLKEEPER_TOKEN" in answer.err) == (2, True)

"""`tollkeeper tokens`, as owners and as admins of an account."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote


async def test_a_token_is_shown_once_and_works_until_it_is_revoked(
    api: Api, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    words = ("tokens", "create", "viewer", "--name", "dashboard", "--expires", "90d")
    made = (await remote.json(*words))["token"]

    assert (made["role"], made["name"], made["status"]) == ("viewer", "dashboard", "active")
    assert (await remote.json("whoami", token=made["token"]))["token_id"] == made["id"]
    rows = (await remote.json("tokens", "list"))["tokens"]
    assert rows[-1] == {name: value for name, value in made.items() if name != "token"}
    table = (await remote("tokens", "list")).out
    assert f"{made['prefix']}…{made['last4']}" in table
    assert made["token"] not in table

    ended = (await remote.json("tokens", "revoke", str(made["id"])))["token"]
    assert ended["status"] == "revoked"
    assert (await remote("whoami", token=made["token"])).code == 1


async def test_people_see_the_text_of_a_new_token_on_a_line_of_its_own(
    api: Api, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    lines = (await remote("tokens", "create", "editor", "--name", "ci")).out.splitlines()

    assert lines[0].endswith("Keep it now, it is not shown again:")
    assert (await remote.json("whoami", token=lines[2].strip()))["role"] == "editor"


async def test_an_owner_makes_admins_of_accounts_by_name(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])
    words = ("tokens", "create", "admin", "--name", "of alice", "--account", "alice")
    made = (await remote.json(*words))["token"]

    assert made["account"] == "alice"
    rows = (await remote.json("tokens", "list", "--account", "alice"))["tokens"]
    assert {row["role"] for row in rows} == {"admin", "member"}
    unknown = await remote("tokens", "list", "--account", "alicf")
    assert (unknown.code, unknown.err.count("alice")) == (2, 1)


async def test_an_admin_makes_tokens_of_its_own_account_only(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.ADMIN])
    made = (await remote.json("tokens", "create", "member", "--name", "bot"))["token"]

    assert made["account"] == "alice"
    rows = (await remote.json("tokens", "list"))["tokens"]
    assert {row["role"] for row in rows} == {"admin", "member"}
    assert (await remote("tokens", "create", "owner", "--name", "no")).code == 2
    assert (await remote.json("tokens", "revoke", str(made["id"])))["token"]["status"] == "revoked"


async def test_what_one_may_not_do_is_one_line_and_exit_code_2(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    answer = await remote("tokens", "list")

    assert (answer.code, answer.err.count("\n"), answer.out) == (2, 1, "")

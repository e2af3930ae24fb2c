"""`tollkeeper platforms`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role
from tests.support.api import ADMIN_TOKEN

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote


async def test_an_operator_makes_a_platform_and_works_on_it(api: Api, remote: Remote) -> None:
    await remote.log_in(ADMIN_TOKEN)
    made = (await remote.json("platforms", "create", "acme", "--name", "Acme"))["platform"]

    assert (made["slug"], made["name"], made["upgrade_url"]) == ("acme", "Acme", None)
    listed = (await remote.json("platforms", "list"))["platforms"]
    assert [row["slug"] for row in listed] == ["acme", "demo", "other"]
    words = ("platforms", "change", "acme", "--upgrade-url", "https://acme.example/buy")
    changed = (await remote.json(*words))["platform"]
    assert changed == made | {"upgrade_url": "https://acme.example/buy"}
    assert (await remote.json("platforms", "show", "acme"))["platform"] == changed
    emptied = await remote.json("platforms", "change", "acme", "--upgrade-url", "")
    assert emptied["platform"]["upgrade_url"] is None
    assert "sent nowhere" in (await remote("platforms", "show", "acme")).out

    await remote.log_in(ADMIN_TOKEN, "--platform", "acme")
    owner = (await remote.json("tokens", "create", "owner", "--name", "hers"))["token"]
    assert (await remote.json("whoami", token=owner["token"]))["platform"] == "acme"


async def test_owners_see_their_own_platform_and_no_other(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])

    assert (await remote.json("platforms", "show", "demo"))["platform"]["slug"] == "demo"
    foreign = await remote("platforms", "show", "other")
    absent = await remote("platforms", "show", "absent")
    assert (foreign.code, absent.code) == (2, 2)
    assert foreign.err == absent.err.replace("absent", "other")

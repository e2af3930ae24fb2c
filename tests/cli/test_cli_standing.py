"""`tollkeeper balance` and `limits`: of any account for a platform's people, else of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote


async def test_a_platforms_people_name_the_account(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])

    found = (await remote.json("balance", "alice"))["balance"]
    assert (found["available_credits"], len(found["lots"])) == ("100", 1)
    assert "100 credits available, 0 held." in (await remote("balance", "alice")).out
    assert (await remote.json("limits", "alice"))["limits"]["caps"] == []
    assert "say of which account" in (await remote("balance")).err
    assert "there is no account" in (await remote("limits", "bob")).err


async def test_an_account_sees_its_own_and_no_other(api: Api, remote: Remote) -> None:
    path = f"/v1/keys/{api.demo.key.key_id}"
    patch = {"caps": {"day": "20"}, "limits": {"requests_per_minute": 60}}
    assert (await api.as_("editor").patch(path, patch)).status == 200
    await remote.log_in(api.demo.key.text)

    assert (await remote.json("balance"))["balance"]["available_credits"] == "100"
    limits = (await remote("limits", "--key", str(api.demo.key.key_id))).out
    assert "requests per minute" in limits
    assert "credits per day" in limits
    assert "There is no limit and no cap." in (await remote("limits", "alice")).out
    assert (await remote("balance", "bob")).code == 2

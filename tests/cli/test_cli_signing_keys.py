"""`tollkeeper signing-keys`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.roles import Role
from tests.support.api import ADMIN_TOKEN

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote


async def test_an_operator_rotates_and_logins_stay_good(api: Api, remote: Remote) -> None:
    await remote.log_in(ADMIN_TOKEN)
    before = (await remote.json("signing-keys", "list"))["keys"]
    after = (await remote.json("signing-keys", "rotate"))["keys"]

    assert [key["kid"] for key in after[1:]] == [key["kid"] for key in before]
    assert (await remote.json("whoami"))["role"] == "operator"
    table = (await remote("signing-keys", "list")).out.splitlines()
    assert [after[0]["kid"] in table[1], table[1].split()[-1]] == [True, "yes"]


async def test_nobody_else_rotates(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.OWNER])

    assert (await remote("signing-keys", "rotate")).code == 2

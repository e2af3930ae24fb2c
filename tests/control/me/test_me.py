"""Who am I, as everybody is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.control.api.roles import Role

if TYPE_CHECKING:
    from tests.support.api import Api


@pytest.mark.parametrize("role", list(Role))
async def test_200_everybody_is_told_who_he_is(api: Api, role: Role) -> None:
    me = (await api.as_(role).get("/v1/me")).body
    assert (me["role"], me["platform"], me["key"]) == (role.value, "demo", None)
    of_account = role in (Role.ADMIN, Role.MEMBER)
    assert (me["account"] or {}).get("name") == ("alice" if of_account else None)
    assert (me["token_id"] is None) == (role is Role.OPERATOR)


async def test_200_a_key_is_told_what_it_may(api: Api) -> None:
    for tenant in (api.demo, api.other):
        me = (await api.as_key(tenant).get("/v1/me")).body
        assert (me["role"], me["platform"]) == ("member", tenant.slug)
        assert me["key"]["id"] == tenant.key.key_id
        assert me["account"]["id"] == tenant.account.account_id
        assert tenant.key.text not in str(me)


async def test_401_strangers_are_told_nothing(api: Api) -> None:
    assert (await api.stranger.get("/v1/me")).status == 401

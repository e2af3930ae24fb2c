"""Tokens of the API: made for one role and one place, shown once, over when they are revoked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.clock import now_ms
from gateway.operations.errors import UsageError
from gateway.operations.tokens import create_token, find_token, revoke_token
from policies.apikeys import TOKEN, compose_key, compose_token, well_formed
from tests.support.signed_in import everything_kept

if TYPE_CHECKING:
    from tests.support.deployment import Deployment


async def test_a_token_works_as_soon_as_it_is_made_and_is_known_by_its_ends(
    deployment: Deployment,
) -> None:
    ledger, maker, platform = deployment.ledger, deployment.maker, deployment.platform_id
    made = await create_token(ledger, maker, role="editor", name="ci", platform_id=platform)
    assert well_formed(made.text, TOKEN)
    found = await find_token(ledger, maker, made.text)
    assert found is not None
    assert (found.token_id, found.role, found.platform_slug) == (made.token_id, "editor", "demo")
    assert made.text.startswith(found.prefix)
    assert made.text.endswith(found.last4)
    assert made.text not in repr(made) + repr(found) + await everything_kept(
        deployment.postgres_url
    )


async def test_what_is_not_a_good_token_is_nobody(deployment: Deployment) -> None:
    ledger, maker = deployment.ledger, deployment.maker
    revoked = await create_token(ledger, maker, role="operator", name="a")
    await revoke_token(ledger, revoked.token_id)
    await revoke_token(ledger, revoked.token_id)
    short = await create_token(ledger, maker, role="operator", name="b", expires_ms=now_ms() + 50)
    assert await find_token(ledger, maker, short.text) is not None
    await deployment.damage("UPDATE api_tokens SET expires_at = now() WHERE name = 'b'")
    texts = [revoked.text, short.text, short.text[:-1], "", "tt_", "é" * 20]
    texts += [compose_token("dev", "a" * 22), compose_key("dev", "a" * 22)]
    assert [await find_token(ledger, maker, text) for text in texts] == [None] * len(texts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"role": "god"}, "is not a role: use one of operator, owner, editor, viewer, admin"),
        ({"role": "operator", "platform_id": 1}, "for all platforms"),
        ({"role": "owner"}, "for a whole platform"),
        ({"role": "viewer", "platform_id": 1, "account_id": 1}, "for a whole platform"),
        ({"role": "member", "platform_id": 1}, "for one account"),
        ({"role": "admin", "account_id": 1}, "for one account"),
        ({"role": "admin", "platform_id": 1, "account_id": 999}, "no such account"),
        ({"role": "operator", "name": ""}, "1 to 100 printable"),
        ({"role": "operator", "name": "n" * 101}, "1 to 100 printable"),
        ({"role": "operator", "name": "a\nb"}, "1 to 100 printable"),
        ({"role": "operator", "expires_ms": 1}, "in the past"),
    ],
)
async def test_what_can_not_be_is_said_and_nothing_is_made(
    deployment: Deployment, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        await create_token(deployment.ledger, deployment.maker, **{"name": "n", **wrong})  # type: ignore[arg-type]
    for platform_id in (None, deployment.platform_id):
        assert await deployment.ledger.tokens(platform_id, None, limit=9) == []


async def test_a_token_is_revoked_where_it_is(deployment: Deployment) -> None:
    ledger, maker, platform = deployment.ledger, deployment.maker, deployment.platform_id
    made = await create_token(ledger, maker, role="owner", name="o", platform_id=platform)
    for place in ({}, {"platform_id": platform + 1}, {"platform_id": platform, "account_id": 1}):
        with pytest.raises(UsageError, match=f"no token {made.token_id}"):
            await revoke_token(ledger, made.token_id, **place)
    await revoke_token(ledger, made.token_id, platform_id=platform)
    assert await find_token(ledger, maker, made.text) is None

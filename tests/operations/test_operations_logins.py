"""A login lasts while its token does; a refresh token is good once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.clock import now_ms
from gateway.identity.seal import NotConfiguredError, Sealer
from gateway.identity.tokens import ACCESS_TOKEN_S
from gateway.operations.logins import (
    LOGIN_S_MAX,
    Login,
    admin_token_id,
    end_old_admin_logins,
    log_in,
    log_out,
    refresh,
)
from gateway.operations.tokens import create_token, revoke_token
from policies.apikeys import compose_refresh, compose_token
from tests.support.signed_in import believed, everything_kept, signer

if TYPE_CHECKING:
    from tests.support.deployment import Deployment


async def token(deployment: Deployment) -> int:
    made = await create_token(
        deployment.ledger, deployment.maker, role="owner", name="o",
        platform_id=deployment.platform_id,
    )  # fmt: skip
    return made.token_id


async def login(deployment: Deployment, token_id: int, *, expires_ms_max: int = 0) -> Login:
    ledger = deployment.ledger
    return await log_in(
        ledger, signer(ledger), deployment.maker, token_id, expires_ms_max=expires_ms_max
    )


async def refreshed(deployment: Deployment, text: str) -> Login | None:
    return await refresh(deployment.ledger, signer(deployment.ledger), deployment.maker, text)


async def works(deployment: Deployment, login: Login | None) -> bool:
    assert login is not None
    return await believed(deployment.ledger, login.access_token) is not None


async def test_a_login_says_with_which_token_it_was_begun(deployment: Deployment) -> None:
    token_id = await token(deployment)
    begun = await login(deployment, token_id)
    found = await believed(deployment.ledger, begun.access_token)
    assert found is not None
    assert (found.session_id, found.token_id) == (begun.session_id, token_id)
    assert 0 <= now_ms() + ACCESS_TOKEN_S * 1000 - begun.access_expires_ms < 60_000
    assert 0 <= now_ms() + LOGIN_S_MAX * 1000 - begun.expires_ms < 60_000


async def test_a_login_ends_with_its_token_at_the_latest(deployment: Deployment) -> None:
    end_ms = now_ms() + 90_000
    begun = await login(deployment, await token(deployment), expires_ms_max=end_ms)
    assert begun.expires_ms == end_ms
    assert begun.access_expires_ms <= end_ms
    again = await refreshed(deployment, begun.refresh_token)
    assert again is not None
    assert again.expires_ms == end_ms
    assert again.access_expires_ms <= end_ms


async def test_a_refresh_gives_the_next_pair_of_the_same_login(deployment: Deployment) -> None:
    begun = await login(deployment, await token(deployment))
    texts = {begun.refresh_token}
    after: Login | None = begun
    for _ in range(3):
        assert after is not None
        after = await refreshed(deployment, after.refresh_token)
        assert after is not None
        texts.add(after.refresh_token)
        assert (after.session_id, after.expires_ms) == (begun.session_id, begun.expires_ms)
        assert await works(deployment, after)
        assert await works(deployment, begun), "what is out stays good for its minutes"
    assert len(texts) == 4


@pytest.mark.parametrize("generation", [0, 1, 2])
async def test_an_old_refresh_token_of_any_age_ends_the_login(
    deployment: Deployment, generation: int, caplog: pytest.LogCaptureFixture
) -> None:
    chain = [await login(deployment, await token(deployment))]
    for _ in range(3):
        following = await refreshed(deployment, chain[-1].refresh_token)
        assert following is not None
        chain.append(following)
    stolen = chain[generation].refresh_token
    assert await refreshed(deployment, stolen) is None
    assert not [one for one in chain if await works(deployment, one)]
    assert await refreshed(deployment, chain[-1].refresh_token) is None
    assert "an old refresh token was shown" in caplog.text
    assert not [one for one in chain if one.refresh_token in caplog.text]


async def test_what_was_never_a_refresh_token_ends_nothing(deployment: Deployment) -> None:
    begun = await login(deployment, await token(deployment))
    text = begun.refresh_token
    foreign = compose_refresh("dev", "0" * 32, "a" * 22)
    for wrong in ("", "tr_", text[:-1], text + "0", text.replace("tr_", "tt_"), text.upper(),
                  compose_token("dev", "a" * 22), begun.access_token, foreign):  # fmt: skip
        assert await refreshed(deployment, wrong) is None
    assert await works(deployment, begun)
    assert await refreshed(deployment, text) is not None


async def test_two_refreshes_at_once_can_not_both_go_on(deployment: Deployment) -> None:
    begun = await login(deployment, await token(deployment))
    both = await asyncio.gather(*(refreshed(deployment, begun.refresh_token) for _ in range(2)))
    assert sum(one is not None for one in both) <= 1
    assert not await works(deployment, begun)


async def test_who_logs_out_is_out_at_once(deployment: Deployment) -> None:
    token_id = await token(deployment)
    begun, other = await login(deployment, token_id), await login(deployment, token_id)
    await log_out(deployment.ledger, begun.session_id)
    await log_out(deployment.ledger, begun.session_id)
    assert not await works(deployment, begun)
    assert await refreshed(deployment, begun.refresh_token) is None
    assert await works(deployment, other)


async def test_revoking_a_token_ends_its_logins_at_once(deployment: Deployment) -> None:
    token_id = await token(deployment)
    begun = await login(deployment, token_id)
    await revoke_token(deployment.ledger, token_id, platform_id=deployment.platform_id)
    assert not await works(deployment, begun)
    assert await refreshed(deployment, begun.refresh_token) is None


async def test_another_admin_token_ends_the_logins_of_the_one_before(
    deployment: Deployment,
) -> None:
    ledger, maker = deployment.ledger, deployment.maker
    token_id = await admin_token_id(ledger, maker, "tka_one")
    assert await admin_token_id(ledger, maker, "tka_one") == token_id
    begun, other = (
        await login(deployment, token_id),
        await login(deployment, await token(deployment)),
    )
    found = await ledger.live_session(begun.session_id)
    assert found is not None
    assert (found.role, found.platform_id) == ("operator", None)

    assert await end_old_admin_logins(ledger, maker, "tka_one") == 0
    assert await works(deployment, begun)
    assert await end_old_admin_logins(ledger, maker, "tka_two") == 1
    assert not await works(deployment, begun)
    assert await works(deployment, other)
    begun = await login(deployment, await admin_token_id(ledger, maker, "tka_two"))
    assert await end_old_admin_logins(ledger, maker, None) == 1, "there is none any more"
    assert not await works(deployment, begun)
    assert "tka_" not in await everything_kept(deployment.postgres_url)


async def test_what_can_not_be_signed_uses_up_no_refresh_token(deployment: Deployment) -> None:
    ledger, maker = deployment.ledger, deployment.maker
    begun = await login(deployment, await token(deployment))
    with pytest.raises(NotConfiguredError):
        await refresh(ledger, signer(ledger, Sealer(())), maker, begun.refresh_token)
    assert await refreshed(deployment, begun.refresh_token) is not None


async def test_no_proof_of_a_login_is_kept_or_repeated(deployment: Deployment) -> None:
    begun = await login(deployment, await token(deployment))
    after = await refreshed(deployment, begun.refresh_token)
    assert after is not None
    kept = await everything_kept(deployment.postgres_url)
    for text in (begun.refresh_token, begun.access_token, after.refresh_token, after.access_token):
        assert text not in kept + repr(begun) + repr(after)
        assert text[-28:] not in kept

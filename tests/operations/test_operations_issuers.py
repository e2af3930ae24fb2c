"""Issuers of platforms: registered with care; a removed one's keys stop at the next call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.operations.errors import (
    AccountsNotToldError,
    ConflictError,
    NotToldError,
    UnknownError,
    UsageError,
)
from gateway.operations.issuers import (
    ISSUERS_MAX,
    Trust,
    change_issuer,
    register_issuer,
    remove_issuer,
)
from gateway.operations.publish import publish_account
from gateway.upstream import Networks
from policies.decision import Admitted, KeyRefused

if TYPE_CHECKING:
    from tests.support.deployment import Deployment

ISSUER = "https://id.example"
LOCAL = Networks.of(["127.0.0.0/8"])
TRUST = Trust("https://127.0.0.1:8443/jwks?tenant=1")


async def test_an_issuer_is_trusted_as_it_was_registered_and_then_changed(
    deployment: Deployment,
) -> None:
    ledger, platform = deployment.ledger, deployment.platform_id
    made = await register_issuer(ledger, platform, ISSUER, TRUST, LOCAL)
    (row,) = await ledger.issuers()
    assert (row.issuer_id, row.issuer, row.account_claim, row.algorithms) == (
        made.issuer_id, ISSUER, "sub", ("RS256",),
    )  # fmt: skip
    with pytest.raises(ConflictError, match="is registered"):
        await register_issuer(ledger, platform, ISSUER, TRUST, LOCAL)
    other = Trust("http://127.0.0.1:8080/jwks", "email", ("ES256", "EdDSA"))
    assert await change_issuer(ledger, platform, made.issuer_id, other, LOCAL) > made.version
    (row,) = await ledger.issuers(platform)
    assert (row.jwks_url, row.account_claim, row.algorithms) == other
    with pytest.raises(UnknownError, match="no issuer"):
        await change_issuer(ledger, platform + 1, made.issuer_id, other, LOCAL)
    with pytest.raises(UnknownError, match="no issuer"):
        await remove_issuer(ledger, deployment.counters, platform + 1, made.issuer_id)


@pytest.mark.parametrize(
    ("issuer", "trust", "messages"),
    [
        ("tollkeeper:" + "d" * 32, TRUST, ["issuer: can't begin"]),
        ("", TRUST, ["issuer: is 1 to"]),
        ("https://id example", TRUST, ["issuer: is 1 to"]),
        (ISSUER, TRUST._replace(algorithms=("HS256",)), ["algorithms: are some of"]),
        (ISSUER, TRUST._replace(algorithms=("none",)), ["algorithms: are some of"]),
        (ISSUER, TRUST._replace(algorithms=()), ["algorithms: are some of"]),
        (ISSUER, TRUST._replace(algorithms=("RS256", "RS256")), ["algorithms: are some of"]),
        (ISSUER, TRUST._replace(account_claim=""), ["account_claim: is 1 to"]),
        (ISSUER, Trust("ftp://127.0.0.1/jwks"), ["jwks_url: "]),
        (ISSUER, Trust("https://user:p@127.0.0.1/jwks"), ["jwks_url: "]),
        (ISSUER, Trust("https://127.0.0.1/jwks#x"), ["jwks_url: "]),
        (ISSUER, Trust("https://[::1"), ["jwks_url: "]),
        (ISSUER, Trust("https://10.0.0.1/jwks"), ["jwks_url: "]),
        (ISSUER, Trust("https://169.254.169.254/latest"), ["jwks_url: "]),
        (ISSUER, Trust("http://8.8.8.8/jwks"), ["jwks_url: "]),
        ("", Trust("x", "", ()), ["issuer: ", "jwks_url: ", "account_claim: ", "algorithms: "]),
    ],
)
async def test_what_can_not_be_trusted_is_refused_with_all_its_mistakes(
    deployment: Deployment, issuer: str, trust: Trust, messages: list[str]
) -> None:
    with pytest.raises(UsageError) as refusal:
        await register_issuer(deployment.ledger, deployment.platform_id, issuer, trust, LOCAL)
    assert [message for message in messages if message not in str(refusal.value)] == []
    assert await deployment.ledger.issuers() == []


async def test_a_platform_has_a_bounded_number_of_issuers(deployment: Deployment) -> None:
    ledger, platform = deployment.ledger, deployment.platform_id
    for number in range(ISSUERS_MAX):
        await register_issuer(ledger, platform, f"{ISSUER}/{number}", TRUST, LOCAL)
    with pytest.raises(UsageError, match="at most 20 issuers"):
        await register_issuer(ledger, platform, ISSUER, TRUST, LOCAL)


async def test_a_removed_issuer_s_keys_are_refused_on_the_very_next_call(
    deployment: Deployment,
) -> None:
    ledger, platform = deployment.ledger, deployment.platform_id
    made = await register_issuer(ledger, platform, ISSUER, TRUST, LOCAL)
    caller = await deployment.caller("alice")
    key = await ledger.issuer_key(platform, made.issuer_id, "alice")
    assert key is not None
    await publish_account(ledger, deployment.counters, key.account_id, "alice")
    assert isinstance(await deployment.admit(caller, key_id=key.key_id), Admitted)

    assert await remove_issuer(ledger, deployment.counters, platform, made.issuer_id) > made.version

    assert isinstance(await deployment.admit(caller, key_id=key.key_id), KeyRefused)
    assert isinstance(await deployment.admit(caller), Admitted), "the account's other keys work"
    assert await ledger.issuers() == []


async def test_removing_is_repeated_until_redis_was_told(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, platform, counters = deployment.ledger, deployment.platform_id, deployment.counters
    made = await register_issuer(ledger, platform, ISSUER, TRUST, LOCAL)
    caller = await deployment.caller("alice")
    key = await ledger.issuer_key(platform, made.issuer_id, "alice")
    assert key is not None
    await publish_account(ledger, counters, key.account_id, "alice")
    assert isinstance(await deployment.admit(caller, key_id=key.key_id), Admitted)

    async def away(*_: object) -> None:
        raise AccountsNotToldError

    with monkeypatch.context() as patch:
        patch.setattr("gateway.operations.issuers.publish_accounts", away)
        with pytest.raises(NotToldError):
            await remove_issuer(ledger, counters, platform, made.issuer_id)
    assert await ledger.issuers() == [], "workers refuse its tokens all the same"
    await remove_issuer(ledger, counters, platform, made.issuer_id)
    assert isinstance(await deployment.admit(caller, key_id=key.key_id), KeyRefused)

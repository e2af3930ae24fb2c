"""Secrets of owners: sealed before Postgres has them, never read back, moved to a new key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.identity.master_key import new_master_key
from gateway.identity.seal import CannotOpenError, NotConfiguredError, Sealer
from gateway.operations.errors import UsageError
from gateway.operations.secrets import (
    SECRET_BYTES_MAX,
    Resealed,
    delete_secret,
    reseal,
    set_secret,
)
from tests.support.signed_in import MASTER_KEY, SEALER, everything_kept, signer

if TYPE_CHECKING:
    from tests.support.deployment import Deployment


async def opened(deployment: Deployment, sealer: Sealer = SEALER) -> dict[str, bytes]:
    """What a worker has."""
    return {
        row.name: sealer.open(row.sealed)
        for row in await deployment.ledger.sealed_secrets()
        if row.platform_id == deployment.platform_id
    }


async def test_workers_get_a_secret_as_it_was_set_and_nobody_else_does(
    deployment: Deployment,
) -> None:
    ledger, platform = deployment.ledger, deployment.platform_id
    first = await set_secret(ledger, SEALER, platform, "openai", "Bearer canary-1")
    second = await set_secret(ledger, SEALER, platform, "openai", "Bearer canary-2")
    assert second == first + 1
    await set_secret(ledger, SEALER, platform, "longest", "x" * SECRET_BYTES_MAX)
    assert await opened(deployment) == {
        "openai": b"Bearer canary-2",
        "longest": b"x" * SECRET_BYTES_MAX,
    }
    assert [row.name for row in await ledger.secrets(platform)] == ["longest", "openai"]
    assert "canary" not in await everything_kept(deployment.postgres_url)
    assert await delete_secret(ledger, platform, "openai") == second + 2
    assert list(await opened(deployment)) == ["longest"]
    with pytest.raises(UsageError, match="no such secret"):
        await delete_secret(ledger, platform, "openai")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Canary", "v"),
        ("sk-canary!", "v"),
        ("", "v"),
        ("a" * 64, "v"),
        ("n", ""),
        ("n", " canary"),
        ("n", "canary "),
        ("n", "can\nary"),
        ("n", "canar\u00fd"),
        ("n", "canary" + "x" * SECRET_BYTES_MAX),
    ],
)
async def test_what_can_be_no_header_is_refused_without_being_repeated(
    deployment: Deployment, name: str, value: str
) -> None:
    with pytest.raises(UsageError) as refusal:
        await set_secret(deployment.ledger, SEALER, deployment.platform_id, name, value)
    assert "anar" not in str(refusal.value)
    assert await opened(deployment) == {}


async def test_a_platform_has_a_bounded_number_of_secrets(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.operations.secrets.SECRETS_MAX", 2)
    for name in ("a", "b"):
        await set_secret(deployment.ledger, SEALER, deployment.platform_id, name, "v")
    with pytest.raises(UsageError, match="at most 2 secrets"):
        await set_secret(deployment.ledger, SEALER, deployment.platform_id, "c", "v")
    await set_secret(deployment.ledger, SEALER, deployment.platform_id, "b", "another")
    assert (await opened(deployment))["b"] == b"another"


async def test_without_a_master_key_no_secret_is_kept(deployment: Deployment) -> None:
    with pytest.raises(NotConfiguredError):
        await set_secret(deployment.ledger, Sealer(()), deployment.platform_id, "n", "v")
    assert await deployment.ledger.sealed_secrets() == []


async def test_after_sealing_anew_the_old_master_key_is_not_needed(deployment: Deployment) -> None:
    ledger, new = deployment.ledger, new_master_key()
    assert await reseal(ledger, SEALER) == Resealed(0, 0)
    for name in ("a", "b"):
        await set_secret(ledger, SEALER, deployment.platform_id, name, f"value of {name}")
    await signer(ledger).start()
    only_new = Sealer([new])
    with pytest.raises(CannotOpenError):
        await signer(ledger, only_new).start()
    with pytest.raises(CannotOpenError):
        await reseal(ledger, only_new)

    assert await reseal(ledger, Sealer.of(f"{new} {MASTER_KEY}")) == Resealed(2, 1)

    assert await opened(deployment, only_new) == {"a": b"value of a", "b": b"value of b"}
    await signer(ledger, only_new).start()
    with pytest.raises(CannotOpenError):
        await opened(deployment)

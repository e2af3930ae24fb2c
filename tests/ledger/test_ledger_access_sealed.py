"""Secrets, signing keys and issuers: whose they are, and that workers hear of changes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from gateway.identity.master_key import new_master_key
from gateway.identity.seal import Sealer
from gateway.identity.signing import Signer, new_pair
from gateway.identity.tokens import RETIRED_KEPT_S, AccessToken, Verifier
from gateway.ledger import Ledger, Scope, Tenancy
from gateway.ledger.sealed import RETIRED_KEPT_MS
from policies.catalog import Platform

if TYPE_CHECKING:
    from gateway.ledger import AccountRow

SEALED = b"gAAAA-sealed-canary"
FACTS = {
    "jwks_url": "https://id.example/jwks",
    "account_claim": "sub",
    "algorithms": ("RS256", "ES256"),
}


async def asked(url: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def version(ledger: Ledger) -> int:
    async with ledger.transaction() as session:
        return int(await session.value("catalog_version"))


@pytest_asyncio.fixture
async def platform_id(ledger: Ledger) -> int:
    return (await ledger.apply_catalog(Platform("demo"), [], [])).platform_id


async def account(ledger: Ledger, platform_id: int, name: str) -> AccountRow:
    await ledger.create_account(platform_id, name, None)
    found = await ledger.find_account(platform_id, name)
    assert found is not None
    return found


async def test_a_secret_is_kept_replaced_and_deleted_and_workers_hear_of_each(
    ledger: Ledger, platform_id: int
) -> None:
    before = await version(ledger)
    assert await ledger.set_secret(platform_id, "openai", SEALED) == before + 1
    (first,) = await ledger.secrets(platform_id)
    assert await ledger.set_secret(platform_id, "openai", b"other") == before + 2
    second = await ledger.secret(platform_id, "openai")
    assert second is not None
    assert (second.name, second.created_ms) == ("openai", first.created_ms)
    assert [row[1:] for row in await ledger.sealed_secrets()] == [(platform_id, "openai", b"other")]
    assert await ledger.delete_secret(platform_id, "openai") == before + 3
    assert await ledger.delete_secret(platform_id, "openai") is None
    assert await version(ledger) == before + 3, "nothing happened, nothing is told"
    assert await ledger.sealed_secrets() == []


async def test_the_api_writes_its_tenant_s_secrets_and_reads_none_back(
    postgres_url: str, ledger: Ledger, platform_id: int
) -> None:
    other = (await ledger.apply_catalog(Platform("other"), [], [])).platform_id
    await ledger.set_secret(other, "theirs", SEALED)
    async with Tenancy(postgres_url) as tenancy:
        api = tenancy.ledger(Scope(platform_id, None, "token:1", "192.0.2.7", "req-1"))
        await api.set_secret(platform_id, "openai", SEALED)
        await api.set_secret(platform_id, "openai", b"other-canary")
        assert [row.name for row in await api.secrets(platform_id)] == ["openai"]
        assert await api.secrets(other) == []
        assert await api.delete_secret(other, "theirs") is None
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.sealed_secrets()
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await api.set_secret(other, "mine", SEALED)
        await api.delete_secret(platform_id, "openai")
    log = await asked(postgres_url, "SELECT * FROM audit_log WHERE resource = 'secret' ORDER BY id")
    assert [(row["action"], row["actor"], row["request_id"]) for row in log] == [
        (action, "token:1", "req-1") for action in ("create", "change", "delete")
    ]
    assert json.loads(log[-1]["before"])["name"] == "openai"
    assert "canary" not in repr([tuple(row) for row in log])


async def test_a_secret_is_sealed_anew_only_as_it_was(ledger: Ledger, platform_id: int) -> None:
    await ledger.set_secret(platform_id, "openai", SEALED)
    (row,) = await ledger.sealed_secrets()
    await ledger.set_secret(platform_id, "openai", b"changed meanwhile")
    assert not await ledger.reseal_secret(row.secret_id, row.sealed, b"anew")
    assert await ledger.reseal_secret(row.secret_id, b"changed meanwhile", b"anew")
    assert (await ledger.sealed_secrets())[0].sealed == b"anew"


async def test_nodes_that_start_at_once_sign_with_one_key(ledger: Ledger) -> None:
    sealer = Sealer([new_master_key()])
    nodes = [Signer(ledger, sealer, "d") for _ in range(8)]
    await asyncio.gather(*(node.start() for node in nodes))
    (key,) = await ledger.signing_keys()
    verifier = Verifier("d")
    verifier.replace_keys([key])
    for node in nodes:
        signed = await node.access_token("5" * 32, 5, expires_ms_max=2**52)
        assert isinstance(verifier.access(signed.text), AccessToken)


async def test_a_retired_key_can_never_sign_again_but_is_believed_for_its_tokens_lives(
    ledger: Ledger, postgres_url: str
) -> None:
    assert RETIRED_KEPT_MS == RETIRED_KEPT_S * 1000
    sealer = Sealer([new_master_key()])
    first, second, late = (new_pair(sealer) for _ in range(3))
    told = await ledger.add_first_signing_key(*first)
    assert told is not None
    assert await ledger.add_first_signing_key(*late) is None
    assert await ledger.replace_signing_key(*second) == told + 1
    signs = await ledger.signing_key()
    assert signs == (second.kid, second.sealed_private)
    assert [key.kid for key in await ledger.signing_keys()] == [second.kid, first.kid]
    assert [key.public_jwk for key in await ledger.signing_keys()] == [
        second.public_jwk,
        first.public_jwk,
    ]
    (gone,) = await asked(
        postgres_url, "SELECT sealed_private FROM signing_keys WHERE kid = $1", first.kid
    )
    assert gone[0] == b""
    moved = "UPDATE signing_keys SET retired_at = retired_at - $1 * interval '1 s' RETURNING kid"
    await asked(postgres_url, moved, RETIRED_KEPT_S)
    assert [key.kid for key in await ledger.signing_keys()] == [second.kid]


async def test_rotations_at_once_leave_one_key_that_signs(
    ledger: Ledger, postgres_url: str
) -> None:
    sealer = Sealer([new_master_key()])
    await asyncio.gather(*(Signer(ledger, sealer, "d").rotate() for _ in range(6)))
    signing = await asked(postgres_url, "SELECT kid FROM signing_keys WHERE retired_at IS NULL")
    assert len(signing) == 1
    assert len(await ledger.signing_keys()) == 6
    key = await ledger.signing_key()
    assert key is not None
    assert await ledger.reseal_signing_key(key.kid, key.sealed_private, b"anew")
    assert not await ledger.reseal_signing_key(key.kid, key.sealed_private, b"again")


async def test_an_issuer_is_registered_once_and_changed_where_it_is(
    ledger: Ledger, platform_id: int
) -> None:
    other = (await ledger.apply_catalog(Platform("other"), [], [])).platform_id
    before = await version(ledger)
    made = await ledger.add_issuer(platform_id, "https://id.example", **FACTS)  # type: ignore[arg-type]
    assert made is not None
    assert made[1] == before + 1
    assert await ledger.add_issuer(platform_id, "https://id.example", **FACTS) is None  # type: ignore[arg-type]
    assert await ledger.add_issuer(other, "https://id.example", **FACTS) is not None  # type: ignore[arg-type]
    found = await ledger.issuer(platform_id, made[0])
    assert found is not None
    assert found[1:7] == (
        platform_id, "demo", "https://id.example", *FACTS.values(),
    )  # fmt: skip
    changed = {**FACTS, "account_claim": "email"}
    assert await ledger.change_issuer(other, made[0], **changed) is None  # type: ignore[arg-type]
    assert await ledger.change_issuer(platform_id, made[0], **changed) == before + 3  # type: ignore[arg-type]
    assert [row.account_claim for row in await ledger.issuers(platform_id)] == ["email"]
    assert [row.platform_slug for row in await ledger.issuers()] == ["demo", "other"]
    assert await ledger.issuer(other, made[0]) is None


async def test_a_removed_issuer_s_keys_end_for_ever_also_if_it_comes_back(
    ledger: Ledger, platform_id: int
) -> None:
    alice, bob = [await account(ledger, platform_id, name) for name in ("alice", "bob")]
    first = await ledger.add_issuer(platform_id, "https://id.example", **FACTS)  # type: ignore[arg-type]
    assert first is not None
    keys = [await ledger.issuer_key(platform_id, first[0], name) for name in ("alice", "bob")]
    assert {key.key_status for key in keys if key} == {"active"}
    assert await ledger.remove_issuer(platform_id + 1, first[0]) is None

    removed = await ledger.remove_issuer(platform_id, first[0])

    assert removed is not None
    assert removed.account_ids == (alice.account_id, bob.account_id)
    assert await version(ledger) == removed.version
    again = await ledger.remove_issuer(platform_id, first[0])
    assert again is not None
    assert again.account_ids == removed.account_ids, "so that Redis can be told again"
    assert await ledger.issuers() == []
    old = await ledger.issuer_key(platform_id, first[0], "alice")
    assert old is not None
    assert old.key_status == "revoked"
    second = await ledger.add_issuer(platform_id, "https://id.example", **FACTS)  # type: ignore[arg-type]
    assert second is not None
    new = await ledger.issuer_key(platform_id, second[0], "alice")
    assert new is not None
    assert (new.key_status, new.key_id != old.key_id) == ("active", True)


async def test_no_key_of_an_issuer_that_is_removed_at_the_same_time_stays_active(
    ledger: Ledger, platform_id: int, postgres_url: str
) -> None:
    names = [(await account(ledger, platform_id, f"a{number}")).name for number in range(12)]
    made = await ledger.add_issuer(platform_id, "https://id.example", **FACTS)  # type: ignore[arg-type]
    assert made is not None
    async with Ledger(postgres_url, connections_max=13) as many:
        await asyncio.gather(
            *(many.issuer_key(platform_id, made[0], name) for name in names),
            many.remove_issuer(platform_id, made[0]),
        )
    left = await asked(
        postgres_url, "SELECT id FROM api_keys WHERE kind = 'issuer' AND status = 'active'"
    )
    assert left == []


async def test_the_api_sees_its_tenant_s_issuers_only_and_revokes_their_keys(
    postgres_url: str, ledger: Ledger, platform_id: int
) -> None:
    other = (await ledger.apply_catalog(Platform("other"), [], [])).platform_id
    theirs = await ledger.add_issuer(other, "https://id.example", **FACTS)  # type: ignore[arg-type]
    assert theirs is not None
    await account(ledger, platform_id, "alice")
    async with Tenancy(postgres_url) as tenancy:
        api = tenancy.ledger(Scope(platform_id, None, "token:1"))
        made = await api.add_issuer(platform_id, "https://id.example", **FACTS)  # type: ignore[arg-type]
        assert made is not None
        await ledger.issuer_key(platform_id, made[0], "alice")
        assert [row.issuer_id for row in await api.issuers()] == [made[0]]
        assert await api.remove_issuer(other, theirs[0]) is None
        removed = await api.remove_issuer(platform_id, made[0])
        assert removed is not None
        assert len(removed.account_ids) == 1
    assert [row.issuer_id for row in await ledger.issuers()] == [theirs[0]]

"""Accounts that a platform's own issuer names have a key each, made when they are first named."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from policies.catalog import Platform

if TYPE_CHECKING:
    from gateway.ledger import Ledger

ADD_ISSUER = """
INSERT INTO issuers (platform_id, issuer, jwks_url, account_claim, algorithms)
VALUES ($1, 'https://id.example', 'https://id.example/jwks', 'sub', '{EdDSA}') RETURNING id
"""


async def add_issuer(ledger: Ledger, platform_id: int) -> int:
    return int(await ledger._pool.fetchval(ADD_ISSUER, platform_id))


async def test_the_first_to_name_an_account_makes_its_key_however_many_do(ledger: Ledger) -> None:
    platform_id = (await ledger.apply_catalog(Platform("demo"), (), ())).platform_id
    account_id = await ledger.create_account(platform_id, "alice")
    issuer_id = await add_issuer(ledger, platform_id)
    found = await asyncio.gather(
        *(ledger.issuer_key(platform_id, issuer_id, "alice") for _ in range(8))
    )
    [key_id] = {row.key_id for row in found if row is not None}
    row = await ledger.issuer_key(platform_id, issuer_id, "alice")
    assert row is not None
    assert (row.key_id, row.kind, row.account_id) == (key_id, "issuer", account_id)
    assert (row.key_name, row.key_status, row.expires_ms) == ("https://id.example", "active", 0)
    assert await ledger.find_key(row.digest) == row


async def test_an_issuer_names_no_account_of_another_platform(ledger: Ledger) -> None:
    ours = (await ledger.apply_catalog(Platform("demo"), (), ())).platform_id
    theirs = (await ledger.apply_catalog(Platform("other"), (), ())).platform_id
    await ledger.create_account(ours, "alice")
    await ledger.create_account(theirs, "bob")
    issuer_id = await add_issuer(ledger, ours)
    assert await ledger.issuer_key(ours, issuer_id, "bob") is None
    assert await ledger.issuer_key(theirs, issuer_id, "bob") is None
    assert await ledger.issuer_key(ours, issuer_id, "nobody") is None


async def test_two_issuers_name_one_account_by_a_key_each(ledger: Ledger) -> None:
    platform_id = (await ledger.apply_catalog(Platform("demo"), (), ())).platform_id
    await ledger.create_account(platform_id, "alice")
    one = await add_issuer(ledger, platform_id)
    await ledger._pool.execute("UPDATE issuers SET issuer = 'https://before.example'")
    two = await add_issuer(ledger, platform_id)
    rows = [await ledger.issuer_key(platform_id, issuer, "alice") for issuer in (one, two)]
    assert len({row.key_id for row in rows if row is not None}) == 2


async def test_an_issuer_that_is_off_names_nobody_new(ledger: Ledger) -> None:
    platform_id = (await ledger.apply_catalog(Platform("demo"), (), ())).platform_id
    await ledger.create_account(platform_id, "alice")
    issuer_id = await add_issuer(ledger, platform_id)
    await ledger._pool.execute("UPDATE issuers SET active = false")
    assert await ledger.issuer_key(platform_id, issuer_id, "alice") is None

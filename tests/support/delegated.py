"""Delegated keys as rows of Postgres, for what reads them: nobody carves for them here."""

from __future__ import annotations

import secrets

import asyncpg

HOUR_MS = 3_600_000


async def delegate(
    postgres_url: str,
    parent_key_id: int,
    budget: int,
    *,
    expires_in_ms: int = HOUR_MS,
    spec: str = "{}",
    guard_version: int = 0,
) -> int:
    """The id of a new key that is to be carved out of another one."""
    connection = await asyncpg.connect(postgres_url)
    try:
        return int(
            await connection.fetchval(
                "INSERT INTO api_keys (platform_id, account_id, kind, parent_key_id, name, prefix,"
                " last4, pepper_version, digest, budget_microcredits, expires_at, spec,"
                " guard_version)"
                " SELECT platform_id, account_id, 'delegated', id, 'agent', '', '', 1, $2, $3,"
                " now() + $4 * interval '1 millisecond', $5, $6 FROM api_keys WHERE id = $1"
                " RETURNING id",
                parent_key_id,
                secrets.token_bytes(32),
                budget,
                expires_in_ms,
                spec,
                guard_version,
            )
        )
    finally:
        await connection.close()


async def change(postgres_url: str, key_id: int, assignment: str) -> None:
    """Set columns of a key, as in "closed = true"."""
    connection = await asyncpg.connect(postgres_url)
    try:
        await connection.execute(f"UPDATE api_keys SET {assignment} WHERE id = $1", key_id)
    finally:
        await connection.close()

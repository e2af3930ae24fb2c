"""Operations that sign and seal, on a deployment of the test's own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import asyncpg

from gateway.identity.master_key import new_master_key
from gateway.identity.seal import Sealer
from gateway.identity.signing import Signer
from gateway.identity.tokens import AccessToken, Verifier

if TYPE_CHECKING:
    from gateway.ledger import Ledger

KEEPING = ("api_tokens", "login_sessions", "secrets", "signing_keys", "issuers", "audit_log")
MASTER_KEY = new_master_key()
SEALER = Sealer([MASTER_KEY])
DEPLOYMENT = "d" * 32


def signer(ledger: Ledger, sealer: Sealer = SEALER) -> Signer:
    return Signer(ledger, sealer, DEPLOYMENT)


async def believed(ledger: Ledger, access_token: str) -> AccessToken | None:
    """Who shows an access token, if the signature, its time and its session are good."""
    verifier = Verifier(DEPLOYMENT)
    verifier.replace_keys(await ledger.signing_keys())
    token = verifier.access(access_token)
    if not isinstance(token, AccessToken) or await ledger.live_session(token.session_id) is None:
        return None
    return token


async def everything_kept(url: str) -> str:
    """All that Postgres has of what people gave or were given, bytes also as the text they are."""
    connection = await asyncpg.connect(url)
    kept = ""
    try:
        for table in KEEPING:
            kept += str(
                [str(row[0]) for row in await connection.fetch(f"SELECT t::text FROM {table} t")]
            )
    finally:
        await connection.close()
    return kept + "".join(
        bytes.fromhex(found).decode("latin-1") for found in re.findall(r"x((?:[0-9a-f]{2})+)", kept)
    )

"""Logins of people: a session in Postgres, proven by short-lived access tokens.

    log_in      the holder of an API token, or of the admin token, gets an access token, which is
                good for minutes, and a refresh token
    refresh     the refresh token, once, is worth the next pair
    log_out     ends the session

Whoever shows an old refresh token has one that somebody used before: two have it, and nobody knows
which of them is a thief, so the session ends. An access token counts only while its session does.
"""

from __future__ import annotations

import hmac
import logging
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.ledger.access import ReusedRefresh
from gateway.operations.tokens import random_text
from policies.apikeys import REFRESH, compose_refresh, digest, session_of, well_formed

if TYPE_CHECKING:
    from gateway.identity.signing import Signer
    from gateway.ledger import Ledger
    from gateway.operations.keys import KeyMaker

# However often it is refreshed.
LOGIN_S_MAX = 30 * 86_400
ADMIN_TOKEN_NAME = "admin token"  # noqa: S105 - what the list of tokens calls it

log = logging.getLogger("tollkeeper.logins")


@dataclass(frozen=True, slots=True)
class Login:
    """A session that begins or goes on, and its proofs: show them once, keep them nowhere."""

    session_id: str
    expires_ms: int
    access_expires_ms: int
    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)


async def log_in(
    ledger: Ledger, signer: Signer, maker: KeyMaker, token_id: int, *, expires_ms_max: int = 0
) -> Login:
    """A session of who has shown this token, over when the token is (`expires_ms_max`, 0: never).

    Raises: NotConfiguredError, CannotOpenError: nothing can be signed.
    """
    session_id = uuid.uuid4().hex
    expires_ms = now_ms() + LOGIN_S_MAX * 1000
    if expires_ms_max:
        expires_ms = min(expires_ms, expires_ms_max)
    access = await signer.access_token(session_id, token_id, expires_ms_max=expires_ms)
    refresh_token = compose_refresh(maker.env, session_id, random_text())
    await ledger.begin_session(
        session_id, token_id, digest(refresh_token, maker.pepper), expires_ms
    )
    return Login(session_id, expires_ms, access.expires_ms, access.text, refresh_token)


async def refresh(
    ledger: Ledger, signer: Signer, maker: KeyMaker, refresh_token: str
) -> Login | None:
    """The next pair of tokens of a session; None for whatever is no refresh token, or not any more.

    The new access token is signed before the old refresh token is used up: what can't be signed
    costs nobody a login.

    Raises: NotConfiguredError, CannotOpenError: nothing can be signed.
    """
    if not well_formed(refresh_token, REFRESH):
        return None
    session_id = session_of(refresh_token)
    live = await ledger.live_session(session_id)
    if live is None:
        return None
    following = compose_refresh(maker.env, session_id, random_text())
    at_most_ms = now_ms() + LOGIN_S_MAX * 1000  # for how long the session lasts is known below
    access = await signer.access_token(session_id, live.token_id, expires_ms_max=at_most_ms)
    refreshed = await ledger.refresh_session(
        session_id, digest(refresh_token, maker.pepper), digest(following, maker.pepper)
    )
    if refreshed is None:
        return None
    if isinstance(refreshed, ReusedRefresh):
        log.warning(
            "an old refresh token was shown: a login with token %d was ended", refreshed.token_id
        )
        return None
    access_ms = min(access.expires_ms, refreshed.expires_ms)
    return Login(session_id, refreshed.expires_ms, access_ms, access.text, following)


async def log_out(ledger: Ledger, session_id: str) -> None:
    """End a session, its access tokens included. Idempotent."""
    await ledger.end_session(session_id)


async def admin_token_id(ledger: Ledger, maker: KeyMaker, admin_token: str) -> int:
    """What to log in with for who has shown the admin token."""
    return await ledger.admin_token(_admin_digest(maker, admin_token), ADMIN_TOKEN_NAME)


async def end_old_admin_logins(ledger: Ledger, maker: KeyMaker, admin_token: str | None) -> int:
    """Have only the present admin token count; answers how many others did. For a node's start."""
    present = b"" if admin_token is None else _admin_digest(maker, admin_token)
    return await ledger.end_other_admin_tokens(present)


def _admin_digest(maker: KeyMaker, admin_token: str) -> bytes:
    """Apart from digests of other texts: an admin token may look like anything."""
    return hmac.digest(maker.pepper, b"admin token: " + admin_token.encode(), "sha256")

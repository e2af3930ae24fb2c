"""Tokens of the API: make, find, revoke. A token's text exists once, in the answer to its making.

A token has one role, and works where that role does: on all platforms (operator), on one (owner,
editor, viewer), or for one account (admin, member).
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.operations.errors import UsageError
from policies.apikeys import (
    ALPHABET,
    RANDOM_CHARACTERS,
    TOKEN,
    compose_token,
    digest,
    display,
    well_formed,
)

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from gateway.ledger.access import TokenRow
    from gateway.operations.keys import KeyMaker

TOKEN_NAME_CHARACTERS_MAX = 100
OPERATOR = "operator"
PLATFORM_ROLES = ("owner", "editor", "viewer")
ACCOUNT_ROLES = ("admin", "member")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made. `text` is the secret: show it once, keep it nowhere."""

    token_id: int
    role: str
    name: str
    expires_ms: int
    text: str = field(repr=False)


async def create_token(
    ledger: Ledger,
    maker: KeyMaker,
    *,
    role: str,
    name: str,
    platform_id: int | None = None,
    account_id: int | None = None,
    expires_ms: int = 0,
) -> NewToken:
    """A new token, which works from now on; `expires_ms` 0 for ever.

    Whether its maker may give this role is the caller's to know.

    Raises: UsageError for a role that does not go with platform and account, a bad name, a time
    that is over, or an account that is gone.
    """
    if wrong := _wrong_place(role, platform_id, account_id):
        raise UsageError(wrong)
    if not 0 < len(name) <= TOKEN_NAME_CHARACTERS_MAX or not name.isprintable():
        raise UsageError(f"a token's name is 1 to {TOKEN_NAME_CHARACTERS_MAX} printable characters")
    if expires_ms and expires_ms <= now_ms():
        raise UsageError("a token can't expire in the past")
    text = compose_token(maker.env, random_text())
    prefix, last4 = display(text)
    token_id = await ledger.create_token(
        platform_id,
        account_id,
        role=role,
        name=name,
        prefix=prefix,
        last4=last4,
        digest=digest(text, maker.pepper),
        expires_ms=expires_ms,
    )
    if token_id is None:
        raise UsageError("there is no such account")
    return NewToken(token_id, role, name, expires_ms, text)


async def find_token(ledger: Ledger, maker: KeyMaker, text: str) -> TokenRow | None:
    """The token that somebody shows, while it is good; a text that is none costs no look-up."""
    if not well_formed(text, TOKEN):
        return None
    row = await ledger.find_token(digest(text, maker.pepper))
    if row is None or row.revoked_ms or 0 < row.expires_ms <= now_ms():
        return None
    return row


async def revoke_token(
    ledger: Ledger, token_id: int, *, platform_id: int | None = None, account_id: int | None = None
) -> None:
    """End a token and every login with it, from the very next request. Idempotent.

    Raises: UsageError when there is no such token there.
    """
    if not await ledger.revoke_token(platform_id, account_id, token_id):
        raise UsageError(f"there is no token {token_id}")


def random_text() -> str:
    """The random part of a key, a token or a refresh token."""
    return "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))


def _wrong_place(role: str, platform_id: int | None, account_id: int | None) -> str:
    if role == OPERATOR:
        wrong = platform_id is not None or account_id is not None
        return "an operator's token is for all platforms" if wrong else ""
    if role in PLATFORM_ROLES:
        wrong = platform_id is None or account_id is not None
        return f'the role "{role}" is for a whole platform' if wrong else ""
    if role in ACCOUNT_ROLES:
        wrong = platform_id is None or account_id is None
        return f'the role "{role}" is for one account' if wrong else ""
    known = ", ".join((OPERATOR, *PLATFORM_ROLES, *ACCOUNT_ROLES))
    return f'"{role}" is not a role: use one of {known}'

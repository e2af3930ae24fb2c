"""Who am I."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.accounts.documents import account_document
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.roles import EVERYBODY
from gateway.control.keys.documents import key_document
from gateway.control.me.models import Me

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask


async def read(ask: Ask) -> Me:
    """Who asks, and for whom."""
    caller = ask.caller
    account = key = None
    if caller.account_id is not None:
        account = account_document(await ask.account())
    if caller.key_id is not None:
        row = await ask.ledger.key(ask.platform_id, caller.key_id)
        key = key_document(row) if row is not None else None
    return Me(
        role=caller.role.value,
        platform=caller.platform_slug,
        account=account,
        key=key,
        token_id=caller.token_id,
        logged_in=caller.session_id is not None,
    )


ENDPOINTS = (Endpoint("GET", "/v1/me", "Who I am", EVERYBODY, read, answers=Me),)

"""What can be done with tokens of the API. Nobody makes one that may more than he himself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.clock import now_ms
from gateway.control.api.cursors import read_id_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import or_never
from gateway.control.api.problems import FieldError, forbidden, invalid, not_found
from gateway.control.api.roles import ADMINS, OWNERS, Role
from gateway.control.tokens.models import (
    NewOwnToken,
    NewToken,
    OwnTokensQuery,
    Token,
    Tokens,
    TokensQuery,
    TokenStatus,
    TokenWithText,
)
from gateway.operations import tokens

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.control.api.ask import Ask
    from gateway.ledger import Ledger
    from gateway.ledger.access import TokenRow

PATH = "/v1/tokens"
ONE = f"{PATH}/{{token_id}}"
OWN = "/v1/me/tokens"
OWN_ONE = f"{OWN}/{{token_id}}"


class _Place(NamedTuple):
    """Where tokens are: a platform's or an account's, or operators' (no platform)."""

    ledger: Ledger
    platform_id: int | None
    account_id: int | None


async def create(ask: Ask, body: NewToken) -> TokenWithText:
    """Make one."""
    if body.role == tokens.OPERATOR and ask.caller.role is not Role.OPERATOR:
        raise forbidden("Only operators make operators.")
    wrong = [*_wrong(body), *_wrong_account(body)]
    if body.account_id is not None and not wrong:
        account = await ask.ledger.account(ask.platform_id, body.account_id)
        if account is None:
            wrong.append(FieldError("account_id", "There is no such account."))
    if wrong:
        raise invalid(*wrong)
    place = _operators(ask) if body.role == tokens.OPERATOR else _platforms(ask, body.account_id)
    return await _make(ask, place, body)


async def create_own(ask: Ask, body: NewOwnToken) -> TokenWithText:
    """Make one of the caller's account."""
    if wrong := list(_wrong(body)):
        raise invalid(*wrong)
    return await _make(ask, _platforms(ask, ask.caller.account_id), body)


async def read(ask: Ask) -> Token:
    """One of them."""
    return token_document((await _find(ask))[1])


async def read_list(ask: Ask, query: TokensQuery) -> Tokens:
    """All, oldest first."""
    if query.operators:
        if ask.caller.role is not Role.OPERATOR:
            raise forbidden("Operators are not of this platform.")
        return await _page(_operators(ask), query)
    return await _page(_platforms(ask, query.account_id), query)


async def read_own_list(ask: Ask, query: OwnTokensQuery) -> Tokens:
    """All of the caller's account, oldest first."""
    return await _page(_platforms(ask, ask.caller.account_id), query)


async def revoke(ask: Ask) -> Token:
    """End it with every login that was begun with it; again does no harm."""
    place, row = await _find(ask)
    await tokens.revoke_token(
        place.ledger, row.token_id, platform_id=place.platform_id, account_id=place.account_id
    )
    return await read(ask)


def token_document(row: TokenRow) -> Token:
    """A token's document."""
    return Token(
        id=row.token_id,
        role=row.role,  # type: ignore[arg-type] # the table's own check
        name=row.name,
        account_id=row.account_id,
        account=row.account_name,
        prefix=row.prefix,
        last4=row.last4,
        status=_status(row),
        expires_at=or_never(row.expires_ms),
        created_at=row.created_ms,
        revoked_at=or_never(row.revoked_ms),
    )


async def _make(ask: Ask, place: _Place, body: NewToken | NewOwnToken) -> TokenWithText:
    made = await tokens.create_token(
        place.ledger,
        ask.services.keys,
        role=body.role,
        name=body.name,
        platform_id=place.platform_id,
        account_id=place.account_id,
        expires_ms=body.expires_at or 0,
    )
    row = await place.ledger.token(place.platform_id, place.account_id, made.token_id)
    if row is None:
        raise not_found("token")
    return TokenWithText(**dict(token_document(row)), token=made.text)


async def _page(place: _Place, query: TokensQuery | OwnTokensQuery) -> Tokens:
    found = await place.ledger.tokens(
        place.platform_id,
        place.account_id,
        after=read_id_cursor(query.cursor) or 0,
        limit=query.limit + 1,
    )
    rows = found[: query.limit]
    return Tokens(
        data=[token_document(row) for row in rows],
        next_cursor=write_cursor(rows[-1].token_id) if len(found) > query.limit else None,
    )


async def _find(ask: Ask) -> tuple[_Place, TokenRow]:
    """The token that the path names, where the caller may see it."""
    places = [_platforms(ask, ask.caller.account_id)]
    if ask.caller.role is Role.OPERATOR:
        places.append(_operators(ask))
    for place in places:
        row = await place.ledger.token(place.platform_id, place.account_id, ask.id_of("token_id"))
        if row is not None:
            return place, row
    raise not_found("token")


def _platforms(ask: Ask, account_id: int | None) -> _Place:
    return _Place(ask.ledger, ask.platform_id, account_id)


def _operators(ask: Ask) -> _Place:
    return _Place(ask.deployment_ledger(), None, None)


def _wrong(body: NewToken | NewOwnToken) -> Iterator[FieldError]:
    if not body.name.isprintable():
        yield FieldError("name", "Only printable characters.")
    if body.expires_at is not None and body.expires_at <= now_ms():
        yield FieldError("expires_at", "This time has passed.")


def _wrong_account(body: NewToken) -> Iterator[FieldError]:
    if body.role in tokens.ACCOUNT_ROLES and body.account_id is None:
        yield FieldError("account_id", f'Say of which account: "{body.role}" is for one.')
    if body.role not in tokens.ACCOUNT_ROLES and body.account_id is not None:
        yield FieldError("account_id", f'Leave this out: "{body.role}" is for no single account.')


def _status(row: TokenRow) -> TokenStatus:
    if row.revoked_ms:
        return "revoked"
    return "expired" if 0 < row.expires_ms <= now_ms() else "active"


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Make a token of the API", OWNERS, create,
        body=NewToken, answers=TokenWithText, status=201, creates=True, guarded=True,
        description="Its text is in this answer and nowhere else.",
    ),
    Endpoint(
        "GET", PATH, "List tokens of the API", OWNERS, read_list,
        query=TokensQuery, answers=Tokens, exports=True,
    ),
    Endpoint("GET", ONE, "Read a token of the API", OWNERS, read, answers=Token),
    Endpoint("POST", f"{ONE}/revoke", "End a token of the API", OWNERS, revoke, answers=Token),
    Endpoint(
        "POST", OWN, "Make a token of my account", ADMINS, create_own,
        body=NewOwnToken, answers=TokenWithText, status=201, creates=True, guarded=True,
        description="Its text is in this answer and nowhere else.",
    ),
    Endpoint(
        "GET", OWN, "List my account's tokens", ADMINS, read_own_list,
        query=OwnTokensQuery, answers=Tokens, exports=True,
    ),
    Endpoint("GET", OWN_ONE, "Read a token of my account", ADMINS, read, answers=Token),
    Endpoint(
        "POST", f"{OWN_ONE}/revoke", "End a token of my account", ADMINS, revoke, answers=Token,
    ),
)  # fmt: skip

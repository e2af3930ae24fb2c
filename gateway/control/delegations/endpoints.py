"""What can be done with delegations: by who shows a key, of that; by admins, of their account's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.cursors import next_cursor, read_id_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import or_never
from gateway.control.api.problems import (
    forbidden,
    invalid,
    invalid_field,
    not_found,
    too_many,
    unavailable,
)
from gateway.control.api.roles import MEMBERS, Role
from gateway.control.delegations.models import (
    CLOCKS_DIFFER_S,
    LIFE_S_MAX,
    Delegated,
    Delegation,
    Delegations,
    DelegationsQuery,
    NewDelegation,
)
from gateway.control.keys.documents import status_of, wrong_metadata, wrong_routes
from gateway.identity.seal import NotConfiguredError
from gateway.operations import delegations
from gateway.operations.keys import revoke_key
from gateway.operations.standing import spent_of_key, standing_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.control.api.ask import Ask
    from gateway.ledger.rows import AccountRow, KeyListRow

PATH = "/v1/me/delegations"
ONE = f"{PATH}/{{key_id}}"
DELEGATED = "delegated"


async def create(ask: Ask, body: NewDelegation) -> Delegated:
    """A token for an agent, which works from now on."""
    if wait_ms := ask.services.delegating.take(ask.caller.actor):
        raise too_many(wait_ms, "Too many delegations at once.")
    account = await ask.account()
    parent = await _parent(ask, body)
    wrong = [*await wrong_routes(ask, body.routes or ()), *wrong_metadata(body.metadata)]
    if wrong:
        raise invalid(*wrong)
    if not ask.services.sealer.configured:
        raise NotConfiguredError
    life_s = min(body.expires_in_s, LIFE_S_MAX - CLOCKS_DIFFER_S)
    try:
        made = await delegations.delegate(
            ask.ledger,
            ask.counters,
            account,
            parent,
            pepper=ask.services.keys.pepper,
            budget_microcredits=body.credits,
            expires_ms=now_ms() + life_s * 1_000,
            routes=body.routes or (),
            name=body.name,
            metadata=body.metadata,
            ready=ask.services.shards.ready,
        )
    except delegations.NotDelegatedError as error:
        raise unavailable(f"{error}.") from None
    try:
        signed = await ask.services.signer.delegated_token(
            made.account_id,
            made.key_id,
            made.jti,
            expires_ms=made.expires_ms,
            routes=made.routes or None,
        )
    except BaseException:
        # Nobody has its token: its budget goes back.
        await ask.ledger.revoke_key(ask.platform_id, made.key_id)
        raise
    return Delegated(
        token=signed.text,
        key_id=made.key_id,
        parent_key_id=parent.key_id,
        expires_at=signed.expires_ms,
        credits=body.credits,
        routes=list(made.routes) or None,
    )


async def read(ask: Ask) -> Delegation:
    """One of them."""
    return (await _documents(ask, await ask.account(), [await _find(ask)]))[0]


async def read_list(ask: Ask, query: DelegationsQuery) -> Delegations:
    """What was delegated from the key that is shown; or of all the account, oldest first."""
    account = await ask.account()
    after = read_id_cursor(query.cursor)
    if ask.caller.key_id is not None:
        found = await ask.ledger.child_keys(
            ask.platform_id, ask.caller.key_id, after_id=after or 0, limit=query.limit + 1
        )
        rows = found[: query.limit]
        last = rows[-1].key_id if len(found) > query.limit else None
    else:
        rows, last = await ask.ledger.keys_page(
            ask.platform_id,
            account_id=account.account_id,
            after=after,
            limit=query.limit,
            kind=DELEGATED,
        )
    return Delegations(
        data=await _documents(ask, account, rows),
        next_cursor=next_cursor(last),
    )


async def revoke(ask: Ask) -> Delegation:
    """End it with all below it; what it has not used goes back to its parent."""
    key = await _find(ask)
    if ask.caller.key_id is None and ask.caller.role is not Role.ADMIN:
        raise forbidden("Show the key that it is a part of, or be the account's admin.")
    await revoke_key(ask.ledger, ask.counters, ask.platform_id, key)
    return await read(ask)


async def _parent(ask: Ask, body: NewDelegation) -> KeyListRow:
    """The key that a delegation is to be a part of."""
    own = ask.caller.key_id
    if own is None and ask.caller.role is not Role.ADMIN:
        raise forbidden("Show the key to delegate from, or be the account's admin.")
    if own is None and body.key_id is None:
        raise invalid_field("key_id", "Say which key of the account it is a part of.")
    if own is not None and body.key_id not in (None, own):
        raise invalid_field("key_id", "A key delegates from itself: leave this out.")
    key = await ask.ledger.key(ask.platform_id, own or body.key_id or 0)
    if key is None:
        raise not_found("key")
    return key


async def _find(ask: Ask) -> KeyListRow:
    """The delegation that the path names: of the account; for a key, one that comes from it."""
    key = await ask.ledger.key(ask.platform_id, ask.id_of("key_id"))
    if key is None or key.kind != DELEGATED or key.account_id != ask.caller.account_id:
        raise not_found("delegation")
    above: KeyListRow | None = key
    while ask.caller.key_id is not None and above is not None:
        if above.parent_key_id is None:
            raise not_found("delegation")
        if above.parent_key_id == ask.caller.key_id:
            break
        above = await ask.ledger.key(ask.platform_id, above.parent_key_id)
    return key


async def _documents(ask: Ask, account: AccountRow, rows: Sequence[KeyListRow]) -> list[Delegation]:
    fields = {}
    if any(status_of(row) == "active" for row in rows):
        fields = dict((await standing_of(ask.ledger, ask.counters, account)).fields)
    return [_document(row, spent_of_key(fields, row.key_id)) for row in rows]


def _document(row: KeyListRow, spent: int | None) -> Delegation:
    status = status_of(row)
    budget = row.budget_microcredits or 0
    used = spent if status == "active" else None
    return Delegation(
        key_id=row.key_id,
        parent_key_id=row.parent_key_id or 0,
        name=row.name,
        status=status,
        credits=budget,
        used_credits=used,
        left_credits=None if used is None else max(budget - used, 0),
        routes=list(row.guards.routes),
        expires_at=row.expires_ms,
        created_at=row.created_ms,
        revoked_at=or_never(row.revoked_ms),
        metadata=dict(row.metadata),
    )


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Delegate a part of a key", MEMBERS, create,
        body=NewDelegation, answers=Delegated, status=201, creates=True,
        description="A key, or a delegated token, is its own parent: a fan-out of agents can "
        "never spend more than what it was given.",
    ),
    Endpoint(
        "GET", PATH, "List delegations", MEMBERS, read_list,
        query=DelegationsQuery, answers=Delegations, exports=True,
        description="Of the key or token that is shown; with a token of the API, of all the "
        "account.",
    ),
    Endpoint("GET", ONE, "Read a delegation", MEMBERS, read, answers=Delegation),
    Endpoint("POST", f"{ONE}/revoke", "End a delegation", MEMBERS, revoke, answers=Delegation),
)  # fmt: skip

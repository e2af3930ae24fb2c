"""What can be done with keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.cursors import next_cursor, read_id_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.problems import conflict, not_found
from gateway.control.api.roles import ADMINS, EDITORS, MEMBERS, VIEWERS
from gateway.control.keys.documents import check_key, key_document, told_bounds
from gateway.control.keys.models import (
    Key,
    KeyPatch,
    Keys,
    KeysQuery,
    KeyWithSecret,
    NewKey,
    OwnKeysQuery,
    Rotation,
)
from gateway.ledger.rows import Guards
from gateway.operations import keys
from gateway.operations.bounds import change_bounds
from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from gateway.control.api.ask import Ask
    from gateway.ledger.rows import KeyListRow

PATH = "/v1/keys"
ONE = f"{PATH}/{{key_id}}"
OWN = "/v1/me/keys"
OWN_ONE = f"{OWN}/{{key_id}}"


async def create(ask: Ask, body: NewKey) -> KeyWithSecret:
    """Make one for the account; it works from now on."""
    account = await ask.account()
    await check_key(ask, body)
    limits, caps = change_bounds(Limits(), Caps(), told_bounds(body))
    new = await keys.create_key(
        ask.ledger,
        ask.counters,
        account,
        ask.services.keys,
        name=body.name,
        expires_ms=body.expires_at or 0,
        limits=limits,
        caps=caps,
        guards=Guards(tuple(body.routes), tuple(body.addresses)),
        metadata=body.metadata,
    )
    return await _with_secret(ask, new)


async def read(ask: Ask) -> Key:
    """One of them."""
    return key_document(await find_key(ask))


async def read_list(ask: Ask, query: OwnKeysQuery) -> Keys:
    """All, oldest first."""
    account_id = query.account_id if isinstance(query, KeysQuery) else ask.caller.account_id
    if query.prefix is not None:
        alike = await ask.ledger.keys_alike(ask.platform_id, query.prefix)
        return Keys(data=[*_chosen(map(key_document, alike), account_id, query)])
    page = await ask.ledger.keys_page(
        ask.platform_id,
        account_id=account_id,
        after=read_id_cursor(query.cursor),
        limit=query.limit,
        status=query.status,
        kind=query.kind,
    )
    return Keys(
        data=[key_document(row) for row in page.rows],
        next_cursor=next_cursor(page.after),
    )


async def change(ask: Ask, body: KeyPatch) -> Key:
    """Change it, from its very next call on."""
    old = await find_key(ask)
    await check_key(ask, body, old)
    told = keys.KeyChanges(
        name=body.name,
        expires_ms=(body.expires_at or 0) if "expires_at" in body.model_fields_set else None,
        bounds=told_bounds(body),
        routes=body.routes,
        addresses=body.addresses,
        metadata=body.metadata,
    )
    changed = await keys.change_key(ask.ledger, ask.counters, ask.platform_id, old.key_id, told)
    return key_document(changed)


async def rotate(ask: Ask, body: Rotation) -> KeyWithSecret:
    """A new one in its place, with the same limits; the old one ends now or after an overlap."""
    old = await find_key(ask)
    account = await ask.ledger.account(ask.platform_id, old.account_id)
    if account is None:
        raise not_found("key")
    if old.kind != "key":
        raise conflict("no_secret", f"This key is {old.kind}: it has no secret to replace.")
    if old.status == "revoked":
        raise conflict("revoked", "This key is revoked already: make a new one.")
    new = await keys.rotate_key(
        ask.ledger,
        ask.counters,
        account,
        old,
        ask.services.keys,
        old_expires_ms=now_ms() + body.overlap_s * 1_000 if body.overlap_s else 0,
    )
    return await _with_secret(ask, new)


async def revoke(ask: Ask) -> Key:
    """End it for ever, with all that was delegated from it; again does no harm."""
    key = await find_key(ask)
    await keys.revoke_key(ask.ledger, ask.counters, ask.platform_id, key)
    return await read(ask)


async def find_key(ask: Ask) -> KeyListRow:
    """The key that the path names. Raises: Problem (404) when the caller has no such."""
    key = await ask.ledger.key(ask.platform_id, ask.id_of("key_id"))
    if key is None or ask.caller.account_id not in (None, key.account_id):
        raise not_found("key")
    return key


def _chosen(keys: Iterable[Key], account_id: int | None, query: OwnKeysQuery) -> Iterator[Key]:
    """A few keys that begin alike: prefixes are long enough to be rare."""
    for key in keys:
        if (
            account_id in {None, key.account_id}
            and query.status in {None, key.status}
            and query.kind in {None, key.kind}
        ):
            yield key


async def _with_secret(ask: Ask, new: keys.NewKey) -> KeyWithSecret:
    row = await ask.ledger.key(ask.platform_id, new.key_id)
    if row is None:
        raise not_found("key")
    return KeyWithSecret(**dict(key_document(row)), secret=new.text)


ENDPOINTS = (
    Endpoint(
        "POST", "/v1/accounts/{account_id}/keys", "Make a key", EDITORS, create,
        body=NewKey, answers=KeyWithSecret, status=201, creates=True,
        description="The secret is in this answer and nowhere else.",
    ),
    Endpoint(
        "GET", PATH, "List keys", VIEWERS, read_list, query=KeysQuery, answers=Keys, exports=True,
    ),
    Endpoint("GET", ONE, "Read a key", VIEWERS, read, answers=Key),
    Endpoint(
        "PATCH", ONE, "Change a key", EDITORS, change, body=KeyPatch, answers=Key, reads=read,
    ),
    Endpoint(
        "POST", f"{ONE}/rotate", "Replace a key by a new one", EDITORS, rotate,
        body=Rotation, answers=KeyWithSecret, status=201, creates=True,
    ),
    Endpoint("POST", f"{ONE}/revoke", "End a key for ever", EDITORS, revoke, answers=Key),
    Endpoint(
        "GET", OWN, "List my account's keys", MEMBERS, read_list,
        query=OwnKeysQuery, answers=Keys, exports=True,
    ),
    Endpoint(
        "POST", OWN, "Make a key of my account", ADMINS, create,
        body=NewKey, answers=KeyWithSecret, status=201, creates=True,
        description="The secret is in this answer and nowhere else.",
    ),
    Endpoint("GET", OWN_ONE, "Read a key of my account", MEMBERS, read, answers=Key),
    Endpoint(
        "PATCH", OWN_ONE, "Change a key of my account", ADMINS, change,
        body=KeyPatch, answers=Key, reads=read,
    ),
    Endpoint(
        "POST", f"{OWN_ONE}/rotate", "Replace a key of my account", ADMINS, rotate,
        body=Rotation, answers=KeyWithSecret, status=201, creates=True,
    ),
    Endpoint(
        "POST", f"{OWN_ONE}/revoke", "End a key of my account", ADMINS, revoke, answers=Key,
    ),
)  # fmt: skip

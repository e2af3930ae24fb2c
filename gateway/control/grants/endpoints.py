"""What can be done with grants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.cursors import next_cursor, read_id_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import or_never
from gateway.control.api.problems import FieldError, conflict, invalid, invalid_field, not_found
from gateway.control.api.roles import EDITORS, MEMBERS, VIEWERS
from gateway.control.grants.models import (
    Adjustment,
    Grant,
    Grants,
    GrantsQuery,
    NewAdjustment,
    NewGrant,
)
from gateway.operations import grants

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.rows import GrantRow

PATH = "/v1/accounts/{account_id}/grants"
ONE = "/v1/grants/{grant_id}"


def grant_document(row: GrantRow) -> Grant:
    """A grant's document."""
    given = row.amount_microcredits + row.credited_microcredits
    gone = row.settled_microcredits + row.expired_microcredits + row.revoked_microcredits
    return Grant(
        id=row.grant_id,
        account_id=row.account_id,
        source=row.source,  # type: ignore[arg-type] # the table's own check
        granted_credits=row.amount_microcredits,
        credited_credits=row.credited_microcredits,
        settled_credits=row.settled_microcredits,
        expired_credits=row.expired_microcredits,
        revoked_credits=row.revoked_microcredits,
        left_credits=given - gone,
        priority=row.priority,
        effective_at=row.effective_ms,
        expires_at=or_never(row.expires_ms),
        revoked_at=or_never(row.revoked_ms),
        created_at=row.created_ms,
        note=row.note,
    )


async def create(ask: Ask, body: NewGrant) -> Grant:
    """Give credits: the very next call can use them."""
    account = await ask.account()
    _check_times(body)
    grant_id = await grants.add_grant(
        ask.ledger,
        ask.counters,
        account,
        body.credits,
        source=body.source,
        effective_ms=body.effective_at or 0,
        expires_ms=body.expires_at or 0,
        priority=body.priority,
        note=body.note,
        business_key=f"api:{ask.change_id}",
    )
    row = await ask.ledger.grant(ask.platform_id, grant_id)
    if row is None:
        raise not_found("grant")
    return grant_document(row)


async def read(ask: Ask) -> Grant:
    """One of them."""
    return grant_document((await _find(ask)).grant)


async def read_list(ask: Ask, query: GrantsQuery) -> Grants:
    """All that the account ever had, newest first."""
    account = await ask.account()
    page = await ask.ledger.grants_page(
        ask.platform_id,
        account.account_id,
        after=read_id_cursor(query.cursor),
        limit=query.limit,
    )
    return Grants(
        data=[grant_document(row) for row in page.rows],
        next_cursor=next_cursor(page.after),
    )


async def adjust(ask: Ask, body: NewAdjustment) -> Adjustment:
    """Add credits, or take what is there."""
    owned = await _find(ask)
    wrong = []
    if body.credits == 0:
        wrong.append(FieldError("credits", "This changes nothing."))
    if body.credits < 0 and body.note:
        wrong.append(FieldError("note", "Only credits that are added keep a note."))
    if wrong:
        raise invalid(*wrong)
    _refuse_overage(owned)
    if body.credits > 0 and _has_ended(owned.grant):
        raise conflict("grant_ended", "This grant has ended: give a new one.")
    came_to = await grants.adjust_grant(
        ask.ledger,
        ask.counters,
        owned,
        body.credits,
        body.note,
        change_id=ask.change_id,
        ready=ask.services.shards.ready,
    )
    return Adjustment(credits=came_to, grant=await read(ask))


async def revoke(ask: Ask) -> Grant:
    """End it now, with what it has left; again does no harm. What calls hold stays theirs."""
    owned = await _find(ask)
    _refuse_overage(owned)
    await grants.revoke_grant(ask.ledger, ask.counters, owned)
    return await read(ask)


async def _find(ask: Ask) -> grants.OwnedGrant:
    row = await ask.ledger.grant(ask.platform_id, ask.id_of("grant_id"))
    account = row and await ask.ledger.account(ask.platform_id, row.account_id)
    if row is None or account is None:
        raise not_found("grant")
    return grants.OwnedGrant(account, row)


def _check_times(body: NewGrant) -> None:
    begins_ms = max(body.effective_at or 0, now_ms())
    if body.expires_at is not None and body.expires_at <= begins_ms:
        raise invalid_field("expires_at", "This is before anybody could use it.")


def _has_ended(grant: GrantRow) -> bool:
    return bool(grant.revoked_ms) or 0 < grant.expires_ms <= now_ms()


def _refuse_overage(owned: grants.OwnedGrant) -> None:
    if owned.grant.source == grants.OVERAGE:
        raise conflict(
            "grant_is_overage", "This is a period's overage: its plan says how much there is."
        )


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Give credits", EDITORS, create,
        body=NewGrant, answers=Grant, status=201, creates=True,
    ),
    Endpoint(
        "GET", PATH, "List an account's grants", VIEWERS, read_list,
        query=GrantsQuery, answers=Grants, exports=True,
    ),
    Endpoint("GET", ONE, "Read a grant", VIEWERS, read, answers=Grant),
    Endpoint(
        "POST", f"{ONE}/adjust", "Add to a grant, or take from it", EDITORS, adjust,
        body=NewAdjustment, answers=Adjustment, creates=True,
    ),
    Endpoint("POST", f"{ONE}/revoke", "End a grant", EDITORS, revoke, answers=Grant),
    Endpoint(
        "GET", "/v1/me/grants", "List my account's grants", MEMBERS, read_list,
        query=GrantsQuery, answers=Grants, exports=True,
    ),
)  # fmt: skip

"""What can be done with settled calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.cursors import next_cursor, read_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import PageQuery
from gateway.control.api.problems import conflict, not_found
from gateway.control.api.roles import EDITORS, MEMBERS, VIEWERS
from gateway.control.settlements.models import (
    Following,
    MySettlementsQuery,
    Refund,
    RefundNote,
    Settlement,
    Settlements,
    SettlementsQuery,
)
from gateway.ledger.searching import CallFilter, SettledPlace
from gateway.operations.calls import refund_call
from gateway.operations.errors import UsageError
from gateway.operations.settlements import follow_settlements, search_settlements

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.rows import SettlementRow

PATH = "/v1/settlements"


def document(row: SettlementRow) -> Settlement:
    """The call's document. Places in tiers are the gateway's own affair, not units."""
    units = dict(part.split("=") for part in row.units.split(";") if part and "." not in part)
    return Settlement(
        request_id=row.call_id,
        account_id=row.account_id,
        key_id=row.key_id,
        route_id=row.route_id,
        price_version=row.price_version,
        admitted_at=row.admitted_ms,
        settled_at=row.settled_ms,
        ending=row.ending,
        status=row.status,
        units={name: int(count) for name, count in units.items()},
        flags=[flag for flag in row.flags.split(",") if flag],
        session=row.session or None,
        held_credits=row.held_microcredits,
        charged_credits=row.charged_microcredits,
        uncollected_credits=row.uncollected_microcredits,
    )


async def search(ask: Ask, query: SettlementsQuery) -> Settlements:
    """A platform's calls, newest first."""
    wanted = CallFilter(account_id=query.account_id, status=query.status)
    return await _search(ask, wanted, query, query.request_id)


async def search_own(ask: Ask, query: MySettlementsQuery) -> Settlements:
    """The account's own calls, newest first."""
    account = await ask.account()
    return await _search(ask, CallFilter(account_id=account.account_id), query)


async def _search(
    ask: Ask, wanted: CallFilter, query: MySettlementsQuery, request_id: str | None = None
) -> Settlements:
    route_id = None
    if query.route is not None:
        route_id = await ask.ledger.route_id(ask.platform_id, query.route)
        if route_id is None:
            return Settlements(data=[])
    wanted = wanted._replace(
        key_id=query.key_id,
        route_id=route_id,
        ending=query.ending,
        session=query.session,
        from_ms=query.from_,
        until_ms=query.until,
    )
    place = read_cursor(query.cursor, str)
    page = await search_settlements(
        ask.ledger,
        ask.platform_id,
        wanted,
        request_id=request_id,
        after=None if place is None else str(place[0]),
        limit=query.limit,
    )
    return Settlements(
        data=[document(row) for row in page.rows],
        next_cursor=next_cursor(page.after),
    )


async def follow(ask: Ask, query: PageQuery) -> Following:
    """Calls as they are settled."""
    place = read_cursor(query.cursor, int, str)
    after = None if place is None else SettledPlace(int(place[0]), str(place[1]))
    page = await follow_settlements(ask.ledger, ask.platform_id, after, limit=query.limit)
    return Following(
        data=[document(row) for row in page.rows],
        next_cursor=write_cursor(page.after.settled_ms, page.after.call_id),
        at_end=page.at_end,
    )


async def refund(ask: Ask, body: RefundNote) -> Refund:
    """Give back all that a call cost, once."""
    call_id = ask.path["call_id"]
    if await ask.ledger.account_of_call(ask.platform_id, call_id) is None:
        raise not_found("settled call")
    try:
        done = await refund_call(ask.ledger, ask.counters, ask.platform_id, call_id, note=body.note)
    except UsageError as refused:
        raise conflict("not_refundable", f"{refused}.") from None
    return Refund(
        request_id=call_id,
        account_id=done.account_id,
        restored_credits=done.restored_microcredits,
        granted_credits=done.granted_microcredits,
        forfeited_credits=done.forfeited_microcredits,
        grant_id=done.grant_id,
    )


ENDPOINTS = (
    Endpoint(
        "GET", PATH, "Search settled calls", VIEWERS, search,
        query=SettlementsQuery, answers=Settlements, exports=True,
        description="Newest first. A part looks at a bounded number of calls, so with a filter "
        "it may be short, or empty, and still have a `next_cursor`.",
    ),
    Endpoint(
        "GET", f"{PATH}/following", "Follow calls as they are settled", VIEWERS, follow,
        query=PageQuery, answers=Following,
        description="Without a cursor, from now on. Calls of the last seconds come again at the "
        "end of the list, because they become known in another order than they are settled in.",
    ),
    Endpoint(
        "POST", f"{PATH}/{{call_id}}/refund", "Refund a call", EDITORS, refund,
        body=RefundNote, answers=Refund, creates=True,
        description="All of it, once. What grants paid that have ended since comes back as the "
        "account's plan says.",
    ),
    Endpoint(
        "GET", "/v1/me/settlements", "Search my settled calls", MEMBERS, search_own,
        query=MySettlementsQuery, answers=Settlements, exports=True,
    ),
)  # fmt: skip

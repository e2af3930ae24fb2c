"""`tollkeeper calls`: what single calls cost, and giving that back."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import (
    AccountArgument,
    CallArgument,
    Common,
    NoteOption,
    command,
    new_app,
)
from gateway.cli.output import Column, print_json, print_rows, print_table, say
from gateway.cli.run import run
from gateway.cli.session import open_books, open_desk
from gateway.operations.moments import format_moment
from policies.units import format_credits

if TYPE_CHECKING:
    from gateway.ledger.changes import Refund
    from gateway.ledger.inquiries import CallEntry
    from gateway.ledger.rows import SettlementRow
    from gateway.operations.calls import CallReport

CALLS_MAX = 1_000

app = new_app("Settled calls: list, show, refund.")

COLUMNS = (
    Column("CALL", "id"),
    Column("SETTLED", "settled_at"),
    Column("ROUTE", "route"),
    Column("KEY", "key", figures=True),
    Column("ENDING", "ending"),
    Column("STATUS", "status", figures=True),
    Column("UNITS", "units"),
    Column("CHARGED", "charged", figures=True),
    Column("FLAGS", "flags"),
)
ENTRY_COLUMNS = (
    Column("WHEN", "created_at"),
    Column("WHAT", "kind"),
    Column("GRANT", "grant", figures=True),
    Column("CREDITS", "credits", figures=True),
    Column("NOTE", "note"),
)


@command(app, "tollkeeper calls list alice --limit 20", name="list")
def list_(
    common: Common,
    account: AccountArgument,
    limit: Annotated[int, typer.Option("--limit", min=1, max=CALLS_MAX, help="How many.")] = 50,
) -> None:
    """List an account's last settled calls, newest first."""

    async def work() -> "tuple[list[SettlementRow], dict[int, str]]":
        from gateway.operations.accounts import find_account

        async with open_books(common.config, common.data_dir) as books:
            owner = await find_account(books.ledger, books.platform_id, account)
            routes = await books.ledger.routes(books.platform_id)
            calls = await books.ledger.settlements(owner.account_id, limit=limit)
            return calls, {stored.route.id: stored.route.name for stored in routes}

    calls, routes = run(work())
    rows = [_document(call, routes.get(call.route_id)) for call in calls]
    print_rows("calls", COLUMNS, rows, as_json=common.as_json, empty="There are no calls yet.")


@command(app, "tollkeeper calls show 0190b2c5a4e17c3d8f21aa0b6d4c9e10")
def show(common: Common, call: CallArgument) -> None:
    """Show a settled call, what it took from which grants, and what came back."""

    async def work() -> "tuple[CallReport, str | None]":
        from gateway.operations.calls import show_call

        async with open_books(common.config, common.data_dir) as books:
            report = await show_call(books.ledger, books.platform_id, call)
            route_id = report.settlement.route_id
            routes = await books.ledger.routes(books.platform_id)
            return report, next((s.route.name for s in routes if s.route.id == route_id), None)

    report, route = run(work())
    document = _document(report.settlement, route) | {"account": report.account.name}
    entries = [_entry_document(entry) for entry in report.entries]
    if common.as_json:
        print_json({"call": document, "entries": entries})
        return
    units = f", {document['units']}" if document["units"] else ""
    flags = f" ({document['flags']})" if document["flags"] else ""
    say(f"{document['account']} on {route or 'a route that is gone'}: {document['ending']}, ")
    say(f"status {document['status']}{units}{flags}, {document['settled_at']}")
    say(f"Held {document['held']}, charged {document['charged']} credits.\n")
    if entries:
        print_table(ENTRY_COLUMNS, entries)


@command(app, "tollkeeper calls refund 0190b2c5a4e17c3d8f21aa0b6d4c9e10 --note 'Wrong answer'")
def refund(common: Common, call: CallArgument, note: NoteOption = "") -> None:
    """Give back all that a call cost, once, to the grants that paid.

    What grants paid that have ended since comes back as the account's plan says.
    """

    async def work() -> "Refund":
        from gateway.operations.calls import refund_call

        async with open_desk(common.config, common.data_dir) as desk:
            return await refund_call(desk.ledger, desk.counters, desk.platform_id, call, note=note)

    done = run(work())
    restored = format_credits(done.restored_microcredits)
    granted = format_credits(done.granted_microcredits)
    forfeited = format_credits(done.forfeited_microcredits)
    if common.as_json:
        amounts = {"restored": restored, "granted": granted, "forfeited": forfeited}
        print_json({"refund": amounts | {"grant": done.grant_id}})
        return
    say(f"Given back: {restored} credits to the grants that paid.")
    if done.granted_microcredits:
        say(f"Those of ended grants, {granted} credits, are a new grant ({done.grant_id}).")
    if done.forfeited_microcredits:
        say(f"Not given back: {forfeited} credits of ended grants, as the plan says.")


def _document(call: "SettlementRow", route: str | None) -> dict[str, Any]:
    return {
        "id": call.call_id,
        "route": route,
        "key": call.key_id,
        "session": call.session or None,
        "price_version": call.price_version,
        "admitted_at": format_moment(call.admitted_ms),
        "settled_at": format_moment(call.settled_ms),
        "ending": call.ending,
        "status": call.status,
        "units": call.units,
        "flags": call.flags,
        "held": format_credits(call.held_microcredits),
        "charged": format_credits(call.charged_microcredits),
        "uncollected": format_credits(call.uncollected_microcredits),
    }


def _entry_document(entry: "CallEntry") -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "grant": entry.grant_id,
        "credits": format_credits(entry.microcredits),
        "created_at": format_moment(entry.created_ms),
        "note": entry.note,
    }

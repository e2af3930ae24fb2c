"""`tollkeeper usage`: what was called and charged."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import Common, OneAccountArgument, command
from gateway.cli.output import Column, print_json, print_table, say
from gateway.cli.run import run
from gateway.cli.session import open_books
from gateway.clock import now_ms
from gateway.operations.moments import format_moment, parse_moment_ms
from policies.units import format_credits

if TYPE_CHECKING:
    from gateway.ledger.desk import UsageReportRow

# How far into the hour that runs a report reaches.
HOUR_MS = 3_600_000
DIMENSION_COLUMNS = {
    "hour": Column("HOUR", "since"),
    "day": Column("DAY", "since"),
    "month": Column("MONTH", "since"),
    "account": Column("ACCOUNT", "account"),
    "route": Column("ROUTE", "route"),
    "key": Column("KEY", "key", figures=True),
}
COLUMNS = (
    Column("CALLS", "calls", figures=True),
    Column("COMPLETED", "completed", figures=True),
    Column("CHARGED", "charged", figures=True),
    Column("UNCOLLECTED", "uncollected", figures=True),
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper usage alice --since 7d --by day --by route")(usage)


def usage(
    common: Common,
    account: OneAccountArgument = "",
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help='From when: "24h", "2026-12-01".')
    ] = "30d",
    until: Annotated[
        str, typer.Option("--until", metavar="WHEN", help="Until when; by default now.")
    ] = "",
    by: Annotated[
        list[str] | None,
        typer.Option(
            "--by", help="account, route, key, hour, day or month. Give several to combine."
        ),
    ] = None,
) -> None:
    """Report calls and credits charged.

    From the hourly sums: an hour (UTC) counts as a whole, a call when it was settled.
    """
    chosen = by or ["account", "route"]

    async def work() -> "list[UsageReportRow]":
        from gateway.operations.accounts import find_account
        from gateway.operations.usage import report_usage

        now = now_ms()
        since_ms = parse_moment_ms(since, now, past=True)
        until_ms = parse_moment_ms(until, now, past=True) if until else now + HOUR_MS
        async with open_books(common.config, common.data_dir) as books:
            owner = None
            if account:
                found = await find_account(books.ledger, books.platform_id, account)
                owner = found.account_id
            return await report_usage(
                books.ledger,
                books.platform_id,
                since_ms=since_ms,
                until_ms=until_ms,
                by=chosen,
                account_id=owner,
            )

    found = run(work())
    rows = [_document(row, chosen) for row in found]
    total = {
        "calls": sum(row.calls for row in found),
        "completed": sum(row.calls_completed for row in found),
        "charged": format_credits(sum(row.charged_microcredits for row in found)),
        "uncollected": format_credits(sum(row.uncollected_microcredits for row in found)),
    }
    if common.as_json:
        print_json({"usage": rows, "total": total})
        return
    if not rows:
        say("No call was settled in this time.")
        return
    shown = [DIMENSION_COLUMNS[word] for word in DIMENSION_COLUMNS if word in chosen]
    print_table((*shown, *COLUMNS), rows)
    say(f"\n{total['calls']} calls, {total['charged']} credits charged.")


def _document(row: "UsageReportRow", by: list[str]) -> dict[str, Any]:
    dimensions = {
        "since": format_moment(row.since_ms or 0) or None,
        "account": row.account_name,
        "route": row.route_name,
        "key": row.key_id,
    }
    asked = {DIMENSION_COLUMNS[word].field for word in by}
    return {name: value for name, value in dimensions.items() if name in asked} | {
        "calls": row.calls,
        "completed": row.calls_completed,
        "charged": format_credits(row.charged_microcredits),
        "uncollected": format_credits(row.uncollected_microcredits),
    }

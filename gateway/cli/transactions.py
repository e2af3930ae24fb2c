"""`tollkeeper transactions`: what accounts owe, pay and paid, and their months."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import OWN, account_base, account_names, ask, find_base, find_lists
from gateway.cli.csv_output import CsvOption, all_or_csv
from gateway.cli.options import Common, OneAccountArgument, command, new_app
from gateway.cli.output import Column, print_fields, print_json, print_rows, print_table, say
from gateway.cli.output import short_moment as short
from gateway.cli.standing import OwnAccountArgument
from gateway.cli.typed import moment
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

app = new_app("What accounts owe, pay and paid: list, show, statement.")

COLUMNS = (
    Column("PAYMENT", "id", figures=True),
    Column("DUE", "created_at"),
    Column("PAID", "paid_at"),
    Column("WHAT", "kind"),
    Column("STATUS", "status"),
    Column("AMOUNT", "amount", figures=True),
    Column("REFUNDED", "refunded", figures=True),
    Column("DISPUTED", "disputed", figures=True),
    Column("CURRENCY", "currency"),
    Column("STRIPE", "stripe"),
)
ACCOUNT_COLUMN = Column("ACCOUNT", "account")
LINE_COLUMNS = (
    Column("WHAT", "kind"),
    Column("NAME", "slug"),
    Column("QUANTITY", "quantity", figures=True),
    Column("AMOUNT", "amount", figures=True),
    Column("CURRENCY", "currency"),
)
ROUTE_COLUMNS = (
    Column("ROUTE", "route"),
    Column("CALLS", "calls", figures=True),
    Column("COMPLETED", "calls_completed", figures=True),
    Column("CHARGED", "charged_credits", figures=True),
)
TRANSACTIONS_MAX = 1_000


@command(app, "tollkeeper transactions list alice --status failed --since 30d", name="list")
def list_(
    common: Common,
    account: OneAccountArgument = "",
    status: Annotated[
        str,
        typer.Option(
            "--status", help="pending, processing, succeeded, failed, refunded or cancelled."
        ),
    ] = "",
    kind: Annotated[
        str,
        typer.Option("--kind", help="subscription, renewal, change, pack, overage or other."),
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help='Due since: "30d", "2026-12-01".')
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="Due before.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=TRANSACTIONS_MAX, help="How many.")
    ] = 50,
    as_csv: CsvOption = False,
) -> None:
    """List payments, newest first; with --csv all of them."""

    async def work(client: "ApiClient") -> tuple[list[Any], dict[int, str]]:
        base, whose = await find_lists(client, account)
        chosen: dict[str, Any] = {
            "status": status or None,
            "kind": kind or None,
            "from": moment(since, past=True) if since else None,
            "until": moment(until, past=True) if until else None,
            **whose,
        }
        path = f"{base}/transactions"
        found = await all_or_csv(client, path, as_csv=as_csv, limit=limit, **chosen)
        if common.as_json or base == OWN or account:
            return found, {}
        return found, await account_names(client, found)

    found, names = ask(common, work)
    if not as_csv:
        print_rows(
            "transactions",
            (COLUMNS[0], ACCOUNT_COLUMN, *COLUMNS[1:]) if names else COLUMNS,
            found,
            as_json=common.as_json,
            empty="There are no such payments.",
            shown=lambda payment: {**_row(payment), "account": names.get(payment["account_id"])},
        )


@command(app, "tollkeeper transactions show 12")
def show(
    common: Common,
    payment: Annotated[
        int, typer.Argument(metavar="PAYMENT", help='Its number, as in "transactions list".')
    ],
) -> None:
    """Show a payment: what it was for, which grants it gave, and what was taken back of them."""

    async def work(client: "ApiClient") -> Any:
        found = await client.find(f"{await find_base(client)}/transactions/{payment}")
        if found is None:
            raise UsageError(
                f'there is no payment {payment}: "tollkeeper transactions list" shows their numbers'
            )
        return found

    found = ask(common, work)
    if common.as_json:
        print_json({"transaction": found})
        return
    print_fields(found, without=("lines", "grants", "taken_back_credits"))
    say("")
    currency = found["currency"]
    print_table(LINE_COLUMNS, [{**line, "currency": currency} for line in found["lines"]])
    for grant in found["grants"]:
        say(f"It gave {grant['credits']} credits (grant {grant['grant_id']}).")
    if found["taken_back_credits"] != "0":
        say(f"{found['taken_back_credits']} credits went back with its money.")


@command(app, "tollkeeper transactions statement alice --month 2026-11")
def statement(
    common: Common,
    account: OwnAccountArgument = "",
    month: Annotated[
        str, typer.Option("--month", metavar="MONTH", help='As in "2026-11"; by default this one.')
    ] = "",
) -> None:
    """Show an account's month: calls by route, what was given, and what was paid."""

    async def work(client: "ApiClient") -> Any:
        chosen = month or moment("0s")[: len("2026-11")]
        base = await account_base(client, account)
        found = await client.find(f"{base}/invoices/{chosen}")
        if found is None:
            raise UsageError(f'"{chosen}" is no month that has begun: write it as "2026-11"')
        return found

    found = ask(common, work)
    if common.as_json:
        print_json({"statement": found})
    else:
        _print_statement(found)


def _print_statement(found: Mapping[str, Any]) -> None:
    so_far = "" if found["final"] else f", so far; plan: {found['plan'] or 'none'}"
    say(f"{found['account']}, {found['month']}{so_far}")
    say(f"{found['calls']} calls, {found['charged_credits']} credits charged.")
    if found["routes"]:
        print_table(
            ROUTE_COLUMNS,
            [{**use, "route": use["route"] or use["route_id"]} for use in found["routes"]],
        )
    for given in found["given"]:
        say(f"Given: {given['credits']} credits ({given['source']}){_since(given)}.")
    for use in found["overage"]:
        charged = f", charged {use['amount']} {use['currency']}" if use["currency"] else ""
        say(f"Overage since {short(use['from'])}: {use['used_credits']} credits{charged}.")
    if found["lines"]:
        say("")
        print_table(LINE_COLUMNS, found["lines"])
    for total in found["totals"]:
        say(
            f"Paid {total['paid']} {total['currency']}, of which tax {total['tax']}; "
            f"paid back {total['refunded']}; open {total['open']}."
        )


def _since(given: Mapping[str, Any]) -> str:
    """What became of given credits, but for what calls were charged."""
    became = (
        ("credited_credits", "added since"),
        ("taken_credits", "taken away since"),
        ("expired_credits", "expired unused"),
    )
    return "".join(f", {given[name]} {words}" for name, words in became if given[name] != "0")


def _row(payment: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **payment,
        "created_at": short(payment["created_at"]),
        "paid_at": short(payment["paid_at"]),
        "stripe": payment["invoice_id"] or payment["checkout_session_id"],
    }

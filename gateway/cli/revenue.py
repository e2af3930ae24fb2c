"""`tollkeeper revenue`: what came in, from what, and what that says."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import ask
from gateway.cli.csv_output import CsvOption, all_or_csv
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_json, print_rows, print_table, say, short_moment
from gateway.cli.typed import moment

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

app = new_app("What came in: show, products, metrics.")

SinceOption = Annotated[
    str, typer.Option("--since", metavar="WHEN", help='Since: "90d", "2026-12-01".')
]
UntilOption = Annotated[str, typer.Option("--until", metavar="WHEN", help="By default now.")]
ByOption = Annotated[str, typer.Option("--by", help="day or month.")]
CurrencyOption = Annotated[str, typer.Option("--currency", help='Only this one, as in "usd".')]
ModeOption = Annotated[
    str, typer.Option("--mode", help="live or test; by default that of the platform's key.")
]
COLUMNS = (
    Column("SINCE", "at"),
    Column("CURRENCY", "currency"),
    Column("PAYMENTS", "payments", figures=True),
    Column("GROSS", "gross", figures=True),
    Column("REFUNDS", "refunds", figures=True),
    Column("TAX", "tax", figures=True),
    Column("NET", "net", figures=True),
)
PRODUCT_COLUMNS = (
    Column("CURRENCY", "currency"),
    Column("WHAT", "kind"),
    Column("NAME", "slug"),
    Column("PAYMENTS", "payments", figures=True),
    Column("SOLD", "sold", figures=True),
    Column("REFUNDS", "refunds", figures=True),
    Column("NET", "net", figures=True),
)
METRIC_COLUMNS = (
    Column("FIGURE", "name"),
    Column("IS", "value", figures=True),
    Column("OF", "of"),
)
NOTHING = "Nothing was paid then, and nothing went back."


@command(app, "tollkeeper revenue show --by day --since 30d")
def show(
    common: Common,
    by: ByOption = "month",
    since: SinceOption = "",
    until: UntilOption = "",
    currency: CurrencyOption = "",
    mode: ModeOption = "",
    as_csv: CsvOption = False,
) -> None:
    """Show what came in by day or month: gross, refunds when they were made, tax, net. UTC."""
    query = _time(by, since, until, currency, mode)
    found = _read(common, "/v1/revenue", query, as_csv=as_csv)
    if not as_csv:
        print_rows(
            "revenue",
            COLUMNS,
            found,
            as_json=common.as_json,
            empty=NOTHING,
            shown=lambda point: {**point, "at": short_moment(point["at"])},
        )


@command(app, "tollkeeper revenue products --since 2026-11-01")
def products(
    common: Common,
    by: ByOption = "month",
    since: SinceOption = "",
    until: UntilOption = "",
    currency: CurrencyOption = "",
    mode: ModeOption = "",
    as_csv: CsvOption = False,
) -> None:
    """Show what came in for each plan and pack, and for overage; without tax."""
    query = _time(by, since, until, currency, mode)
    found = _read(common, "/v1/revenue/products", query, as_csv=as_csv)
    if not as_csv:
        print_rows("products", PRODUCT_COLUMNS, found, as_json=common.as_json, empty=NOTHING)


@command(app, "tollkeeper revenue metrics --month 2026-11")
def metrics(
    common: Common,
    month: Annotated[
        str, typer.Option("--month", help='As in "2026-11"; by default the last 30 days.')
    ] = "",
    currency: CurrencyOption = "",
    mode: ModeOption = "",
    as_csv: CsvOption = False,
) -> None:
    """Show MRR, customers, ARPU, churn, LTV and failed payments, each currency by itself."""
    query = {"month": month or None, "currency": currency or None, "mode": mode or None}
    found = _read(common, "/v1/revenue/metrics", query, as_csv=as_csv)
    if as_csv:
        return
    if common.as_json:
        print_json({"metrics": found})
        return
    if not found:
        say("Nobody pays for a subscription, and nothing fell due.")
    for one in found:
        since, until = short_moment(one["from"]), short_moment(one["until"])
        say(f"{one['currency']}, from {since} to {until}:")
        print_table(METRIC_COLUMNS, _figures(one))


def _read(common: Common, path: str, query: Mapping[str, Any], *, as_csv: bool) -> list[Any]:
    """The list; as CSV it is printed instead."""

    async def work(client: "ApiClient") -> list[Any]:
        return await all_or_csv(client, path, as_csv=as_csv, **query)

    return ask(common, work)


def _time(by: str, since: str, until: str, currency: str, mode: str) -> dict[str, Any]:
    return {
        "by": by,
        "from": moment(since, past=True) if since else None,
        "until": moment(until, past=True) if until else None,
        "currency": currency or None,
        "mode": mode or None,
    }


def _figures(one: Mapping[str, Any]) -> list[dict[str, Any]]:
    lost, begun = one["customers_lost"], one["customers_at_start"]
    tried, failed = one["payments_tried"], one["payments_failed"]
    figures = (
        ("MRR", one["mrr"], f"{one['customers']} customers"),
        ("ARPU", one["arpu"], ""),
        ("customer churn %", one["customer_churn_percent"], f"{lost} of {begun}"),
        (
            "revenue churn %",
            one["revenue_churn_percent"],
            f"{one['mrr_lost']} of {one['mrr_at_start']}",
        ),
        ("LTV", one["ltv"], ""),
        ("failed payments %", one["failed_payments_percent"], f"{failed} of {tried}"),
    )
    return [{"name": name, "value": value, "of": of} for name, value, of in figures]

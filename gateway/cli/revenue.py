"""`tollkeeper revenue`: what came in, from what, and what that says."""

from collections.abc import Callable, Mapping
from functools import partial
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
PATH = "/v1/revenue"
NOTHING = "Nothing was paid then, and nothing went back"
NOBODY = "Nobody pays for a subscription, and nothing fell due"
MODES = ("live", "test")


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
    query = partial(_time, by, since, until, currency, mode)
    found, elsewhere = _read(common, PATH, query, as_csv=as_csv)
    if not as_csv:
        print_rows(
            "revenue",
            COLUMNS,
            found,
            as_json=common.as_json,
            empty=NOTHING + elsewhere,
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
    query = partial(_time, by, since, until, currency, mode)
    found, elsewhere = _read(common, f"{PATH}/products", query, as_csv=as_csv)
    if not as_csv:
        print_rows(
            "products",
            PRODUCT_COLUMNS,
            found,
            as_json=common.as_json,
            empty=NOTHING + elsewhere,
        )


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
    found, elsewhere = _read(common, f"{PATH}/metrics", lambda: query, as_csv=as_csv)
    if as_csv:
        return
    if common.as_json:
        print_json({"metrics": found})
        return
    if not found:
        say(NOBODY + elsewhere)
    for one in found:
        since, until = short_moment(one["from"]), short_moment(one["until"])
        say(f"{one['currency']}, from {since} to {until}:")
        print_table(METRIC_COLUMNS, _figures(one))


def _read(
    common: Common, path: str, query: Callable[[], dict[str, Any]], *, as_csv: bool
) -> tuple[list[Any], str]:
    """The list, as CSV printed instead; and how the sentence ends that says that it is empty.

    `query` is made where a mistake in it is told to people.
    """

    async def work(client: "ApiClient") -> tuple[list[Any], str]:
        told = query()
        found = await all_or_csv(client, path, as_csv=as_csv, **told)
        if found or as_csv or common.as_json:
            return found, ""
        return found, await _elsewhere(client, path, told)

    return ask(common, work)


async def _elsewhere(client: "ApiClient", path: str, query: Mapping[str, Any]) -> str:
    """In which mode there is nothing; where the other one has something, how to see that."""
    here = query["mode"]
    for mode in MODES:
        if mode != here and await client.all(path, limit=1, **{**query, "mode": mode}):
            (looked,) = {*MODES} - {mode}
            return f", in {looked} mode. In {mode} mode there is something: --mode {mode}."
    return f", in {here} mode." if here else ", in live mode or in test mode."


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

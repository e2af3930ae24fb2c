"""`tollkeeper top`: what happens on each route at this moment."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import ask
from gateway.cli.options import Common, command
from gateway.cli.output import short_moment
from gateway.cli.watching import Patient, check_reader, ending_with_reader, print_line
from policies.units import format_credits, parse_credits

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.table import Table

    from gateway.cli.api import ApiClient

PATH = "/v1/traffic"
LOOK_S_DEFAULT = 2
LOOK_S_MAX = 5  # the API's own


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper top --once")(top)


def top(
    common: Common,
    seconds: Annotated[
        int,
        typer.Option("--seconds", min=1, max=LOOK_S_MAX, metavar="N", help="How long a look is."),
    ] = LOOK_S_DEFAULT,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
) -> None:
    """Show calls, credits and denials per second of each route, all workers together.

    On a terminal a table that is drawn anew for each look, until Ctrl-C; else a line for each
    route and look, or with --json a document for each look.
    """

    async def work(client: "ApiClient") -> None:
        looks = _looks(client, seconds, once=once)
        if common.as_json:
            async for look in looks:
                print_line(json.dumps(look, separators=(",", ":")))
        elif sys.stdout.isatty():
            await _draw(looks, once=once)
        else:
            async for look in looks:
                for row in _rows(look):
                    print_line(_line(look, row))

    with ending_with_reader():
        ask(common, work)


async def _looks(client: "ApiClient", seconds: int, *, once: bool) -> "AsyncIterator[Any]":
    patient = Patient(client)
    while True:
        yield await patient.get(PATH, seconds=seconds)
        if once:
            return
        check_reader()


async def _draw(looks: "AsyncIterator[Any]", *, once: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False, markup=False, emoji=False)
    if once:
        async for look in looks:
            console.print(_table(look))
        return
    with Live("Looking ...", console=console, auto_refresh=False) as live:
        async for look in looks:
            live.update(_table(look), refresh=True)


def _table(look: Any) -> "Table":
    from rich.table import Table

    title = f"{short_moment(look['at'])}, per second, over {look['seconds']} s"
    table = Table(box=None, header_style="bold", pad_edge=False, title=title, title_justify="left")
    table.add_column("ROUTE")
    for name in ("CALLS", "CREDITS", "DENIED"):
        table.add_column(name, justify="right")
    for row in (*_rows(look), _row("TOTAL", look["seconds"], look["routes"])):
        table.add_row(*row.values())
    return table


def _rows(look: Any) -> list[dict[str, str]]:
    """Of each route what there was per second, the busiest first."""
    busiest = sorted(look["routes"], key=lambda one: (-one["calls"] - one["denials"], one["route"]))
    return [_row(one["route"], look["seconds"], [one]) for one in busiest]


def _row(name: str, seconds: int, routes: list[Any]) -> dict[str, str]:
    microcredits = sum(parse_credits(one["charged_credits"]) for one in routes)
    return {
        "route": name,
        "calls": f"{sum(one['calls'] for one in routes) / seconds:.1f}",
        "credits": format_credits(microcredits // seconds),
        "denials": f"{sum(one['denials'] for one in routes) / seconds:.1f}",
    }


def _line(look: Any, row: dict[str, str]) -> str:
    return (
        f"{short_moment(look['at'])}  {row['route']:<16}  {row['calls']:>8} calls/s"
        f"  {row['credits']:>12} credits/s  {row['denials']:>8} denials/s"
    )

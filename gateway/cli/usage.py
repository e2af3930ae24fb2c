"""`tollkeeper usage`: what was called and charged, and what it will come to."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from gateway.cli.callers import find_lists
from gateway.cli.keys import find_key
from gateway.cli.options import Common, OneAccountArgument, command
from gateway.cli.output import Column, print_json, print_table, say, short_moment
from gateway.cli.run import run
from gateway.cli.typed import moment
from gateway.operations.errors import UsageError
from policies.units import format_credits, parse_credits

UNITS = ("hour", "day", "month")
PARTS = {
    "account": Column("ACCOUNT", "account"),
    "route": Column("ROUTE", "route"),
    "key": Column("KEY", "key_id", figures=True),
}
COLUMNS = (
    Column("CALLS", "calls", figures=True),
    Column("COMPLETED", "calls_completed", figures=True),
    Column("CHARGED", "charged_credits", figures=True),
    Column("UNCOLLECTED", "uncollected_credits", figures=True),
)
COUNTS = ("calls", "calls_completed")
AMOUNTS = ("charged_credits", "uncollected_credits")


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper usage alice --since 7d --by day --by route")(usage)


def usage(
    common: Common,
    account: OneAccountArgument = "",
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help='From when: "7d", "2026-12-01".')
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
    route: Annotated[str, typer.Option("--route", help="Only of this route.")] = "",
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help="Only with this key: number or prefix.")
    ] = "",
) -> None:
    """Report calls and credits charged, and what the period will come to.

    From sums: a day, or with --by hour an hour (UTC), counts as a whole, a call when it was
    settled. Keys, and hours and routes of accounts, are told apart within one account.
    """
    chosen = by or ["route"]

    async def work() -> Any:
        from gateway.cli.api import open_api

        unit, parts = _told_apart(chosen)
        query: dict[str, Any] = {
            "interval": unit or "day",
            "by": ",".join(parts) or None,
            "from": moment(since, past=True),
            "until": moment(until, past=True) if until else None,
            "route": route or None,
        }
        async with open_api(common, redis=False) as api:
            base, whose = await find_lists(api, account)
            query |= whose
            if key:
                query["key_id"] = (await find_key(api, key, base))["id"]
            return await api.get(f"{base}/usage", **query)

    series = run(work())
    if common.as_json:
        print_json({"usage": series})
        return
    unit, parts = _told_apart(chosen)
    if series["points"]:
        print_table([*_columns(unit, parts), *COLUMNS], _rows(series["points"], unit, parts))
        say("")
    say(_total_text(series))
    if series["projection"] is not None:
        say(_projection_text(series["projection"]))


def _told_apart(by: Sequence[str]) -> tuple[str, list[str]]:
    """The unit of time, "" for none, and the other words of `--by`. Raises: UsageError."""
    for word in by:
        if word not in (*PARTS, *UNITS):
            words = ", ".join((*PARTS, *UNITS))
            raise UsageError(f'usage is not told apart by "{word}": use {words}')
    units = [word for word in UNITS if word in by]
    if len(units) > 1:
        raise UsageError(f"choose one of {', '.join(UNITS)}, not {' and '.join(units)}")
    return "".join(units), [word for word in PARTS if word in by]


def _columns(unit: str, parts: Iterable[str]) -> list[Column]:
    time = [Column(unit.upper(), "at")] if unit else []
    return time + [PARTS[part] for part in parts]


def _rows(points: Iterable[Mapping[str, Any]], unit: str, parts: Sequence[str]) -> list[Any]:
    """The points as rows; without a unit of time their sums over all of it."""
    told = (["at"] if unit else []) + [PARTS[part].field for part in parts]
    sums: dict[tuple[Any, ...], dict[str, int]] = {}
    for point in points:
        place = tuple(point[field] for field in told)
        row = sums.setdefault(place, dict.fromkeys((*COUNTS, *AMOUNTS), 0))
        for field in COUNTS:
            row[field] += point[field]
        for field in AMOUNTS:
            row[field] += parse_credits(point[field])
    order = sums if unit else sorted(sums, key=lambda place: tuple(map(str, place)))
    return [_shown(dict(zip(told, place, strict=True)), sums[place]) for place in order]


def _shown(place: Mapping[str, Any], sums: Mapping[str, int]) -> dict[str, Any]:
    at = {"at": short_moment(place["at"])} if "at" in place else {}
    amounts = {field: format_credits(sums[field]) for field in AMOUNTS}
    return {**place, **at, **sums, **amounts}


def _total_text(series: Mapping[str, Any]) -> str:
    points = series["points"]
    time = f"from {short_moment(series['from'])} to {short_moment(series['until'])}"
    if not points:
        return f"No call was settled {time}."
    calls = sum(point["calls"] for point in points)
    charged = sum(parse_credits(point["charged_credits"]) for point in points)
    return f"{calls} calls, {format_credits(charged)} credits charged, {time}."


def _projection_text(projection: Mapping[str, Any]) -> str:
    period = projection["basis"].replace("_", " ")
    so_far = f"{projection['calls']} calls, {projection['charged_credits']} credits so far"
    calls, amount = projection["projected_calls"], projection["projected_credits"]
    until = short_moment(projection["until"])
    if calls is None:
        return f"This {period}: {so_far}; what it comes to by {until} can't be said yet."
    return f"This {period}: {so_far}; {calls} calls, {amount} credits by {until} at this rate."

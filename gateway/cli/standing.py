"""`tollkeeper balance` and `limits`: what an account has left."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import account_base, ask
from gateway.cli.grants import OVERAGE
from gateway.cli.options import Common, command
from gateway.cli.output import Column, print_json, print_table, say, short_moment
from policies.units import format_credits, parse_credits

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

OwnAccountArgument = Annotated[
    str, typer.Argument(metavar="ACCOUNT", help="The account's name; one's own is left out.")
]
LOT_COLUMNS = (
    Column("GRANT", "grant_id", figures=True),
    Column("SOURCE", "source"),
    Column("GRANTED", "granted_credits", figures=True),
    Column("CREDITED", "credited_credits", figures=True),
    Column("LEFT", "left_credits", figures=True),
    Column("HELD", "held_credits", figures=True),
    Column("EFFECTIVE", "effective_at"),
    Column("EXPIRES", "expires_at"),
)
BOUND_COLUMNS = (
    Column("LIMIT", "name"),
    Column("MOST", "most", figures=True),
    Column("USED", "used", figures=True),
    Column("LEFT", "left", figures=True),
    Column("RESETS", "resets_at"),
)
BEHIND = "This is what Postgres has, a moment behind: Redis does not know the account yet."


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    command(app, "tollkeeper balance alice")(balance)
    command(app, "tollkeeper limits alice --key 12")(limits)


def balance(common: Common, account: OwnAccountArgument = "") -> None:
    """Show what an account has at this moment, grant by grant as they pay."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(f"{await account_base(client, account)}/balance")

    found = ask(common, work)
    if common.as_json:
        print_json({"balance": found})
        return
    used = found["overage_credits"]
    also = f", {used} used in overage" if used != "0" else ""
    say(f"{found['available_credits']} credits available, {found['held_credits']} held{also}.")
    say_debt(found)
    _say_when_behind(found)
    if found["lots"]:
        say("")
        print_table(LOT_COLUMNS, [_shown_lot(lot) for lot in found["lots"]])
    for lot in found["lots"]:
        if lot["source"] == OVERAGE:
            say(f"Overage (grant {lot['grant_id']}) may take {lot['left_credits']} credits more.")


def limits(
    common: Common,
    account: OwnAccountArgument = "",
    key: Annotated[
        int | None,
        typer.Option("--key", metavar="KEY", help="Those of this key, by its number."),
    ] = None,
) -> None:
    """Show the limits and caps of an account, or of a key, and what they have left."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(f"{await account_base(client, account)}/limits", key_id=key)

    found = ask(common, work)
    if common.as_json:
        print_json({"limits": found})
        return
    rows = [*map(_shown_limit, found["limits"]), *map(_shown_cap, found["caps"])]
    if rows:
        print_table(BOUND_COLUMNS, rows)
    else:
        say("There is no limit and no cap.")
    _say_when_behind(found)


def say_debt(found: Mapping[str, Any]) -> None:
    """Whatever says of an account that it has a debt, in a line; nothing where it has none."""
    if (debt := found["debt_credits"]) != "0":
        say(f"{debt} credits of debt: spent although their payment went back. The next grant pays.")


def _say_when_behind(found: Mapping[str, Any]) -> None:
    if not found["live"]:
        say(BEHIND)


def _shown_lot(lot: Mapping[str, Any]) -> dict[str, Any]:
    """A lot as a row; of overage as `grant_row` has it: nothing was given, what it took is owed."""
    row = {
        **lot,
        "effective_at": short_moment(lot["effective_at"]),
        "expires_at": short_moment(lot["expires_at"]),
    }
    if lot["source"] == OVERAGE:
        granted, left, held = (
            parse_credits(lot[f"{name}_credits"]) for name in ("granted", "left", "held")
        )
        row |= {"granted_credits": "0", "left_credits": format_credits(left + held - granted)}
    return row


def _shown_limit(limit: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": limit["limit_kind"].replace("_", " "),
        "most": limit["limit"],
        "used": limit["used"],
        "left": limit["left"],
        "resets_at": short_moment(limit["resets_at"]),
    }


def _shown_cap(cap: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": f"credits per {cap['window']}" if cap["window"] != "total" else "credits in all",
        "most": cap["limit_credits"],
        "used": cap["used_credits"],
        "left": cap["left_credits"],
        "resets_at": short_moment(cap["resets_at"]),
    }

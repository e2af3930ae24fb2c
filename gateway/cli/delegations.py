"""`tollkeeper delegations`: parts of a key for agents, with a budget and an end."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import typed
from gateway.cli.callers import OWN, ask, own_account
from gateway.cli.keys import find_key
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_json, print_rows, say, short_moment
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

PATH = f"{OWN}/delegations"

app = new_app("Parts of a key for agents: create, list, revoke. For who shows a key of an account.")

COLUMNS = (
    Column("KEY", "key_id", figures=True),
    Column("OF", "parent_key_id", figures=True),
    Column("NAME", "name"),
    Column("STATUS", "status"),
    Column("CREDITS", "credits", figures=True),
    Column("USED", "used_credits", figures=True),
    Column("LEFT", "left_credits", figures=True),
    Column("ROUTES", "routes"),
    Column("EXPIRES", "expires_at"),
)


@command(app, "tollkeeper delegations create --credits 5 --expires 30m --route suggest")
def create(
    common: Common,
    amount: Annotated[str, typer.Option("--credits", metavar="N", help="Its budget.")],
    expires: Annotated[
        str,
        typer.Option("--expires", metavar="WHEN", help='As in "30m"; not after the key it is of.'),
    ],
    route: Annotated[
        list[str] | None,
        typer.Option("--route", help="It may call only this one; repeat it for several."),
    ] = None,
    key: Annotated[
        str,
        typer.Option("--key", metavar="KEY", help="For admins: of which key, number or prefix."),
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Whom or what it is for.")] = "",
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="NAME=VALUE", help="Your own notes; repeat it."),
    ] = None,
) -> None:
    """Create a token with a part of a key's credits, and print it, this once.

    The key is the one that is shown (in TOLLKEEPER_TOKEN, or logged in with), or that of --key.
    The token is used as a key is, and can be delegated from in its turn.
    """

    async def work(client: "ApiClient") -> Any:
        me = await own_account(client)
        body: dict[str, object] = {
            "credits": typed.amount(amount),
            "expires_in_s": typed.seconds(expires),
        }
        if route:
            body["routes"] = route
        if name:
            body["name"] = name
        if metadata:
            body["metadata"] = typed.metadata(metadata, {})
        if key:
            body["key_id"] = (await find_key(client, key, OWN))["id"]
        elif me["key"] is None:
            raise UsageError("say of which key: give --key, or show the key itself")
        return await client.post(PATH, body)

    made = ask(common, work)
    if common.as_json:
        print_json({"delegation": made})
        return
    until = short_moment(made["expires_at"])
    say(f"Key {made['key_id']}, a part of key {made['parent_key_id']}: {made['credits']} credits")
    say(f"until {until}. Keep it now, it is not shown again:\n")
    say(f"  {made['token']}")


@command(app, "tollkeeper delegations list", name="list")
def list_(common: Common) -> None:
    """List what was delegated from the key that is shown; for admins, all of their account."""

    async def work(client: "ApiClient") -> Any:
        await own_account(client)
        return await client.all(PATH)

    print_rows(
        "delegations",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="Nothing is delegated.",
        shown=_shown,
    )


@command(app, "tollkeeper delegations revoke 31")
def revoke(
    common: Common,
    key: Annotated[
        int, typer.Argument(metavar="KEY", help='Its number, as in "delegations list".')
    ],
) -> None:
    """End a delegation and all below it; what it has not used goes back."""

    async def work(client: "ApiClient") -> Any:
        await own_account(client)
        return await client.post(f"{PATH}/{key}/revoke")

    ended = ask(common, work)
    if common.as_json:
        print_json({"delegation": ended})
    else:
        say(f'Delegation {ended["key_id"]}, "{ended["name"]}", is revoked.')


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "routes": ", ".join(row["routes"]),
        "expires_at": short_moment(row["expires_at"]),
    }

"""`tollkeeper tokens`: tokens of the API, for people and machines that manage."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import typed
from gateway.cli.callers import ask, find_base, find_lists
from gateway.cli.options import Common, ExpiresOption, command, new_app
from gateway.cli.output import Column, print_json, print_rows, say, short_moment

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

app = new_app("Tokens of the API: create, list, revoke.")

COLUMNS = (
    Column("TOKEN", "id", figures=True),
    Column("ROLE", "role"),
    Column("ACCOUNT", "account"),
    Column("NAME", "name"),
    Column("SHOWN AS", "shown"),
    Column("STATUS", "status"),
    Column("EXPIRES", "expires_at"),
    Column("CREATED", "created_at"),
)


@command(app, "tollkeeper tokens create viewer --name dashboard --expires 90d")
def create(
    common: Common,
    role: Annotated[
        str,
        typer.Argument(metavar="ROLE", help="operator, owner, editor, viewer, admin or member."),
    ],
    name: Annotated[str, typer.Option("--name", help="Whom or what it is for.")],
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="Of an admin or member: whose.")
    ] = "",
    expires: ExpiresOption = "",
) -> None:
    """Create a token and print it, this once.

    Nobody makes one that may more than he may himself; admins make those of their account.
    """

    async def work(client: "ApiClient") -> Any:
        body: dict[str, object] = {"role": role, "name": name}
        if expires:
            body["expires_at"] = typed.expiry(expires)
        base, whose = await find_lists(client, account)
        return await client.post(f"{base}/tokens", body | whose)

    made = ask(common, work)
    if common.as_json:
        print_json({"token": made})
        return
    say(f"Token {made['id']}, {made['role']}. Keep it now, it is not shown again:\n")
    say(f"  {made['token']}")


@command(app, "tollkeeper tokens list --account alice", name="list")
def list_(
    common: Common,
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="Only those of this account.")
    ] = "",
    operators: Annotated[
        bool, typer.Option("--operators", help="For operators: those of operators.")
    ] = False,
) -> None:
    """List tokens; what they are is not shown again."""

    async def work(client: "ApiClient") -> Any:
        base, whose = await find_lists(client, account)
        wanted: dict[str, Any] = {**whose, "operators": "true" if operators else None}
        return await client.all(f"{base}/tokens", **wanted)

    print_rows(
        "tokens",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="There are no tokens yet.",
        shown=_shown,
    )


@command(app, "tollkeeper tokens revoke 7")
def revoke(
    common: Common,
    token: Annotated[
        int, typer.Argument(metavar="TOKEN", help='The token\'s number, as in "tokens list".')
    ],
) -> None:
    """End a token for ever, and every login that was begun with it."""

    async def work(client: "ApiClient") -> Any:
        return await client.post(f"{await find_base(client)}/tokens/{token}/revoke")

    ended = ask(common, work)
    if common.as_json:
        print_json({"token": ended})
    else:
        say(f'Token {ended["id"]}, "{ended["name"]}", is revoked.')


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "shown": f"{row['prefix']}…{row['last4']}",
        "expires_at": short_moment(row["expires_at"]),
        "created_at": short_moment(row["created_at"]),
    }

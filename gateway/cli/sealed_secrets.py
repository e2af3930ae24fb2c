"""`tollkeeper secrets`: what routes send to their agents in headers, and nothing shows again."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.callers import ask
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_json, print_rows, say, short_moment
from gateway.cli.prompts import read_hidden
from gateway.cli.run import run
from gateway.cli.session import open_desk, read_credentials
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient
    from gateway.operations.secrets import Resealed

app = new_app("Secrets that routes send to agents: set, list, delete, reseal.")

SecretArgument = Annotated[str, typer.Argument(metavar="NAME", help="The secret's name.")]
COLUMNS = (
    Column("SECRET", "name"),
    Column("CREATED", "created_at"),
    Column("CHANGED", "updated_at"),
)


@command(app, "tollkeeper secrets set openai < openai.txt", name="set")
def set_(common: Common, name: SecretArgument) -> None:
    """Keep a secret, or another value of it, which the very next call sends.

    Asks for the value without showing it, or reads it from stdin: all of a header's value, as in
    "Bearer sk-123". Routes name it in their headers: "secret:NAME".
    """

    async def work(client: "ApiClient") -> Any:
        return await client.put(_path(name), {"value": value})

    value = read_hidden("Value")
    secret = ask(common, work)
    if common.as_json:
        print_json({"secret": secret})
    else:
        say(f'Secret {secret["name"]} is set. Routes send it where they say "secret:{name}".')


@command(app, "tollkeeper secrets list", name="list")
def list_(common: Common) -> None:
    """List secrets, never their values."""

    async def work(client: "ApiClient") -> Any:
        return await client.all("/v1/secrets")

    print_rows(
        "secrets",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="There are no secrets yet.",
        shown=_shown,
    )


@command(app, "tollkeeper secrets delete openai")
def delete(common: Common, name: SecretArgument) -> None:
    """Delete a secret that no route sends."""

    async def work(client: "ApiClient") -> None:
        await client.delete(_path(name))

    ask(common, work)
    if common.as_json:
        print_json({"deleted": name})
    else:
        say(f"Secret {name} is deleted.")


@command(app, "tollkeeper secrets reseal --config /etc/tollkeeper.toml")
def reseal(common: Common) -> None:
    """Seal everything with the newest master key, on this deployment, so that old ones can go.

    Put the new key first in what gateway.master_key refers to, the old one behind it, restart all
    nodes, run this, and take the old one away.
    """

    async def work() -> "Resealed":
        from gateway.identity.seal import CannotOpenError, NotConfiguredError, Sealer
        from gateway.operations.secrets import reseal

        async with open_desk(common.config, common.data_dir, redis=False) as desk:
            known = read_credentials(desk.config, common.data_dir, admin_token="")
            try:
                return await reseal(desk.ledger, Sealer.of(known.master_key))
            except (CannotOpenError, NotConfiguredError, ValueError) as error:
                raise UsageError(str(error)) from None

    done = run(work())
    if common.as_json:
        print_json(done._asdict())
    else:
        say(f"Sealed anew: {done.secrets} secrets, {done.signing_keys} signing keys.")


def _path(name: str) -> str:
    return f"/v1/secrets/{quote(name, safe='')}"


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": row["name"],
        "created_at": short_moment(row["created_at"]),
        "updated_at": short_moment(row["updated_at"]),
    }

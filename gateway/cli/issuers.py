"""`tollkeeper issuers`: identity providers whose tokens are credentials of accounts."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import ask
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_json, print_rows, say, short_moment
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

PATH = "/v1/issuers"

app = new_app("Identity providers that are trusted: add, list, change, remove.")

IssuerArgument = Annotated[
    str, typer.Argument(metavar="ISSUER", help='Its number, as in "issuers list", or its "iss".')
]
JwksOption = Annotated[
    str, typer.Option("--jwks-url", metavar="URL", help="Where its keys are: https, public.")
]
ClaimOption = Annotated[
    str, typer.Option("--claim", metavar="CLAIM", help="Which has the account's name.")
]
AlgorithmOption = Annotated[
    list[str] | None,
    typer.Option("--algorithm", metavar="ALG", help="RS256, PS256, ES256 or EdDSA; repeat it."),
]
COLUMNS = (
    Column("ID", "id", figures=True),
    Column("ISSUER", "issuer"),
    Column("AUDIENCE", "audience"),
    Column("CLAIM", "account_claim"),
    Column("ALGORITHMS", "algorithms"),
    Column("KEYS", "jwks_url"),
    Column("CREATED", "created_at"),
)


@command(
    app,
    "tollkeeper issuers add https://login.example.com/ "
    "--jwks-url https://login.example.com/jwks.json",
)
def add(
    common: Common,
    issuer: Annotated[str, typer.Argument(metavar="ISSUER", help='The "iss" of its tokens.')],
    jwks_url: JwksOption,
    claim: ClaimOption = "",
    algorithm: AlgorithmOption = None,
) -> None:
    """Trust an issuer: its tokens are good from the next call on.

    They need the audience that "issuers list" shows, and name an account of the platform.
    """
    body = {"issuer": issuer, **_told(jwks_url, claim, algorithm)}

    async def work(client: "ApiClient") -> Any:
        return await client.post(PATH, body)

    made = ask(common, work)
    if common.as_json:
        print_json({"issuer": made})
    else:
        say(f"Issuer {made['issuer']} is trusted for tokens with audience {made['audience']}.")


@command(app, "tollkeeper issuers list", name="list")
def list_(common: Common) -> None:
    """List the issuers that are trusted."""

    async def work(client: "ApiClient") -> Any:
        return await client.all(PATH)

    print_rows(
        "issuers",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="No issuer is trusted.",
        shown=_shown,
    )


@command(app, "tollkeeper issuers change 3 --algorithm ES256")
def change(
    common: Common,
    issuer: IssuerArgument,
    jwks_url: JwksOption = "",
    claim: ClaimOption = "",
    algorithm: AlgorithmOption = None,
) -> None:
    """Believe an issuer by other keys, another claim, other algorithms; the rest stays."""

    async def work(client: "ApiClient") -> Any:
        body = _told(jwks_url, claim, algorithm)
        if not body:
            raise UsageError("nothing would change: say what, as in --algorithm ES256")
        return await client.patch(f"{PATH}/{await _find(client, issuer)}", body)

    changed = ask(common, work)
    if common.as_json:
        print_json({"issuer": changed})
    else:
        say(f"Issuer {changed['issuer']} is changed.")


@command(app, "tollkeeper issuers remove https://login.example.com/")
def remove(common: Common, issuer: IssuerArgument) -> None:
    """Trust an issuer no more: all that its tokens were used for ends."""

    async def work(client: "ApiClient") -> None:
        await client.delete(f"{PATH}/{await _find(client, issuer)}")

    ask(common, work)
    if common.as_json:
        print_json({"removed": issuer})
    else:
        say(f"Issuer {issuer} is not trusted any more.")


async def _find(client: "ApiClient", issuer: str) -> int:
    """Its id, also of one that is gone: who repeats a removal may have a reason."""
    if issuer.isascii() and issuer.isdecimal():
        return int(issuer)
    async for row in client.rows(PATH):
        if row["issuer"] == issuer:
            return int(row["id"])
    raise UsageError(f'there is no issuer "{issuer}": see "issuers list"')


def _told(jwks_url: str, claim: str, algorithm: list[str] | None) -> dict[str, object]:
    told = {"jwks_url": jwks_url, "account_claim": claim, "algorithms": algorithm}
    return {name: value for name, value in told.items() if value}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "algorithms": ", ".join(row["algorithms"]),
        "created_at": short_moment(row["created_at"]),
    }

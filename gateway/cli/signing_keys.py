"""`tollkeeper signing-keys`: what our own tokens are signed with."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.cli.callers import ask
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_rows

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

JWKS_PATH = "/.well-known/jwks.json"

app = new_app("Keys that our tokens are signed with, for operators: list, rotate.")

COLUMNS = (Column("KEY", "kid"), Column("ALGORITHM", "alg"), Column("SIGNS", "signs"))


@command(app, "tollkeeper signing-keys list", name="list")
def list_(common: Common) -> None:
    """List the public keys whose tokens may be good, the one that signs first."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(JWKS_PATH)

    _print(common, ask(common, work))


@command(app, "tollkeeper signing-keys rotate")
def rotate(common: Common) -> None:
    """Sign with a new key from now on; tokens of the old ones stay good until they expire."""

    async def work(client: "ApiClient") -> Any:
        return await client.post("/v1/signing-keys/rotate")

    _print(common, ask(common, work))


def _print(common: Common, jwks: Mapping[str, Any]) -> None:
    first = jwks["keys"][:1]
    print_rows(
        "keys",
        COLUMNS,
        jwks["keys"],
        as_json=common.as_json,
        empty="Nothing was signed yet.",
        shown=lambda key: {**key, "signs": "yes" if [key] == first else ""},
    )

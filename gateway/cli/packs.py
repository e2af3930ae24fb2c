"""`tollkeeper packs`: credits that are sold once; `tollkeeper offers`: all that can be bought."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.callers import ask
from gateway.cli.options import Common, FileOption, command, new_app
from gateway.cli.output import Column, print_fields, print_json, print_rows, print_table, say
from gateway.cli.typed import read_document

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

PATH = "/v1/packs"

app = new_app("Credits that are sold once: list, show, create, update, delete.")

PackArgument = Annotated[str, typer.Argument(metavar="PACK", help='As in "packs list".')]
COLUMNS = (
    Column("PACK", "slug"),
    Column("NAME", "name"),
    Column("CREDITS", "credits", figures=True),
    Column("DAYS", "validity_days", figures=True),
    Column("PRICE", "price"),
    Column("BY", "managed_by"),
)
OFFERS = (
    Column("OFFER", "offer"),
    Column("CREDITS", "credits", figures=True),
    Column("PRICES", "prices"),
)


def register(root: typer.Typer) -> None:
    """Add these commands to the command line."""
    command(root, "tollkeeper offers")(offers)


@command(app, "tollkeeper packs list", name="list")
def list_(common: Common) -> None:
    """List packs that are sold, as the database has them."""

    async def work(client: "ApiClient") -> Any:
        return await client.all(PATH)

    print_rows(
        "packs",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="There are no packs yet.",
        shown=_row,
    )


@command(app, "tollkeeper packs show big --json")
def show(common: Common, pack: PackArgument) -> None:
    """Show a pack; with --json as "packs update" takes it."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(_path(pack))

    _print(common, ask(common, work))


@command(app, "tollkeeper packs create --file big.toml")
def create(common: Common, file: FileOption) -> None:
    """Create a pack of a document with the keys of the config's [[packs]]."""

    async def work(client: "ApiClient") -> Any:
        return await client.post(PATH, read_document(file, "pack"))

    made = ask(common, work)
    _print(common, made, f"Pack {made['slug']} is there.")


@command(app, "tollkeeper packs update big --file big.toml")
def update(common: Common, pack: PackArgument, file: FileOption) -> None:
    """Change what a document names of a pack, for who buys it from now on; the rest stays."""

    async def work(client: "ApiClient") -> Any:
        return await client.patch(_path(pack), read_document(file, "pack"))

    changed = ask(common, work)
    _print(common, changed, f"Pack {changed['slug']} is changed.")


@command(app, "tollkeeper packs delete big")
def delete(common: Common, pack: PackArgument) -> None:
    """Sell a pack no more. What was bought stays."""

    async def work(client: "ApiClient") -> None:
        await client.delete(_path(pack))

    ask(common, work)
    if common.as_json:
        print_json({"deleted": pack})
    else:
        say(f"Pack {pack} is not sold any more.")


def offers(common: Common) -> None:
    """Show what can be bought: plans and packs, with their prices."""

    async def work(client: "ApiClient") -> Any:
        return await client.get("/v1/offers")

    found = ask(common, work)
    if common.as_json:
        print_json({"offers": found})
        return
    rows = [{**one, "offer": f"plan {one['plan']}"} for one in found["plans"]]
    rows += [{**one, "offer": f"pack {one['pack']}"} for one in found["packs"]]
    if rows:
        print_table(
            OFFERS, [{**row, "prices": ", ".join(map(price_text, row["prices"]))} for row in rows]
        )
    else:
        say("Nothing can be bought.")
    if found["mode"] is None:
        say('Nothing can be paid here: the platform has no Stripe ("tollkeeper stripe set").')


def _path(pack: str) -> str:
    return f"{PATH}/{quote(pack, safe='')}"


def _print(common: Common, pack: Mapping[str, Any], text: str = "") -> None:
    """What was done, or the pack itself."""
    if common.as_json:
        print_json({"pack": pack})
    elif text:
        say(text)
    else:
        print_fields(pack, without=("id",))


def _row(pack: Mapping[str, Any]) -> dict[str, Any]:
    return {**pack, "price": ", ".join(pack["price"] or [])}


def price_text(price: Mapping[str, Any]) -> str:
    """What something costs, as in "19.00 usd a month"."""
    months = price["months"]
    per = {None: "", 1: " a month", 12: " a year"}.get(months, f" for {months} months")
    return f"{price['amount']} {price['currency']}{per}"

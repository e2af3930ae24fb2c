"""`tollkeeper routes`: what is on offer and what it costs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli import typed
from gateway.cli.bounds import bounds_text
from gateway.cli.options import Common, FileOption, command, new_app
from gateway.cli.output import Column, print_fields, print_json, print_rows, say
from gateway.cli.price_text import price_text
from gateway.cli.run import FAILED, run
from gateway.cli.typed import read_document
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

PATH = "/v1/routes"

app = new_app(
    "What is on offer and what it costs: list, show, create, update, delete, dry-run, reach."
)

COLUMNS = (
    Column("ROUTE", "name"),
    Column("MATCH", "match"),
    Column("UPSTREAM", "upstream"),
    Column("PRICE", "price"),
    Column("VERSION", "price_version", figures=True),
    Column("LIMITED", "limited"),
    Column("STATUS", "status"),
    Column("BY", "managed_by"),
)

# What `show` says in words.
SHOWN_FIELDS = frozenset(
    {"name", "match", "upstream", "price", "free", "limits", "caps", "active", "id"}
)

RouteArgument = Annotated[
    str, typer.Argument(metavar="ROUTE", help='The route\'s name, as in "routes list".')
]


@command(app, "tollkeeper routes list", name="list")
def list_(common: Common) -> None:
    """List routes as the database has them, those out of service too."""

    async def work() -> list[Any]:
        from gateway.cli.api import open_api

        async with open_api(common, redis=False) as api:
            return await api.all(PATH)

    print_rows(
        "routes",
        COLUMNS,
        run(work()),
        as_json=common.as_json,
        empty="There are no routes yet.",
        shown=_row,
    )


@command(app, "tollkeeper routes show chat --json")
def show(common: Common, route: RouteArgument) -> None:
    """Show a route; with --json as "routes update" takes it."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        async with open_api(common, redis=False) as api:
            return await find_route(api, route)

    found = run(work())
    if common.as_json:
        print_json({"route": found})
        return
    row = _row(found)
    say(f"{row['name']}: {row['match']} to {row['upstream']}, {row['status']}")
    say(f"Price: {row['price']}" + (f", limited to {row['limited']}" if row["limited"] else ""))
    print_fields(found, without=SHOWN_FIELDS)


@command(app, "tollkeeper routes create --file chat.toml")
def create(common: Common, file: FileOption) -> None:
    """Put a route into service, by a document with the keys of the config's [[routes]].

    It serves from the next call on, on every worker.
    """

    async def work() -> Any:
        from gateway.cli.api import open_api

        document = read_document(file, "route")
        async with open_api(common) as api:
            return await api.post(PATH, document)

    _print(common, run(work()), "is in service")


@command(app, "tollkeeper routes update chat --file chat.toml")
def update(
    common: Common,
    route: RouteArgument,
    file: FileOption,
    replace: Annotated[
        bool, typer.Option("--replace", help="The document is all of it: nothing else stays.")
    ] = False,
) -> None:
    """Change what a document names of a route, from the next call on; the rest stays.

    In JSON, null takes something back to its default.
    """

    async def work() -> Any:
        from gateway.cli.api import open_api

        document = read_document(file, "route")
        async with open_api(common) as api:
            path = _path(await find_route(api, route))
            return await (api.put if replace else api.patch)(path, document)

    _print(common, run(work()), "is changed")


@command(app, "tollkeeper routes delete chat")
def delete(common: Common, route: RouteArgument) -> None:
    """Take a route out of service, from the next call on. It stays known by its calls."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        async with open_api(common) as api:
            path = _path(await find_route(api, route))
            await api.delete(path)
            return await api.get(path)

    _print(common, run(work()), "is out of service")


@command(
    app, "tollkeeper routes dry-run chat --body '{\"n\": 2}' --units token=1200", name="dry-run"
)
def dry_run(
    common: Common,
    route: Annotated[str, typer.Argument(metavar="ROUTE", help="Its name; or --file.")] = "",
    file: Annotated[
        str, typer.Option("--file", metavar="FILE", help="A route that is not there yet.")
    ] = "",
    sample: Annotated[
        str, typer.Option("--sample", metavar="FILE", help="The call, as the API's `sample`.")
    ] = "",
    path: Annotated[
        str, typer.Option("--path", help="The call's path; by default the route's.")
    ] = "",
    body: Annotated[str, typer.Option("--body", help="The call's body, JSON or text.")] = "",
    units: Annotated[
        list[str] | None,
        typer.Option("--units", metavar="UNIT=N", help="What the agent reports; or several."),
    ] = None,
    discount: Annotated[str, typer.Option("--discount", help="The account's, in percent.")] = "",
    max_credits: Annotated[
        str, typer.Option("--max-credits", help="The caller's own: X-Max-Credits.")
    ] = "",
    reach: Annotated[bool, typer.Option("--reach", help="Connect to the upstream, too.")] = False,
) -> None:
    """Price a call without making it, of a route that there is or of one in a file."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        if bool(route) == bool(file):
            raise UsageError("say either the name of a route, or --file with one that is to be")
        written = read_document(file, "route") if file else None
        told: dict[str, Any] = {
            "path": path or None,
            "body": typed.body(body) if body else None,
            "units": typed.units(units) if units else None,
            "discount_percent": discount or None,
            "max_credits": max_credits or None,
        }
        given = {name: value for name, value in told.items() if value is not None}
        given = (read_document(sample, "sample") if sample else {}) | given
        async with open_api(common) as api:
            found = written or await find_route(api, route)
            trial = {"sample": _example(found) | given, "reach": reach}
            if written is not None:
                return await api.post(f"{PATH}/dry-run", {"route": written, **trial})
            return await api.post(f"{_path(found)}/dry-run", trial)

    result = run(work())
    if common.as_json:
        print_json(result)
        return
    if result["charge"] is not None:
        _say_charge(result["charge"])
    if result["reach"] is not None:
        say(_reach_text(result["reach"]))


@command(app, "tollkeeper routes reach chat")
def reach(common: Common, route: RouteArgument) -> None:
    """Connect to a route's upstream, now and from where the gateway's API is.

    No agent runs by that. Exit code 1 when it can't be reached.
    """

    async def work() -> Any:
        from gateway.cli.api import open_api

        async with open_api(common) as api:
            return await api.post(f"{_path(await find_route(api, route))}/reach")

    found = run(work())
    if common.as_json:
        print_json({"reach": found})
    else:
        say(_reach_text(found))
    if not found["ok"]:
        raise typer.Exit(FAILED)


async def find_route(api: "ApiClient", name: str) -> Any:
    """The route of this name. Raises: UsageError when there is none; it names near ones."""
    from difflib import get_close_matches

    found = await api.find(_path({"name": name}))
    if found is not None:
        return found
    names = [row["name"] async for row in api.rows(PATH)]
    near = get_close_matches(name, names, n=1)
    hint = f': did you mean "{near[0]}"?' if near else ""
    raise UsageError(f'there is no route "{name}"{hint}')


def _path(route: Mapping[str, Any]) -> str:
    return f"{PATH}/{quote(route['name'], safe='')}"


def _example(route: Mapping[str, Any]) -> dict[str, str]:
    """A call that a route's `match` matches."""
    methods, _, pattern = str(route.get("match") or "").partition(" ")
    method = methods.partition("|")[0]
    parts = ["x" if part.startswith("{") or part == "**" else part for part in pattern.split("/")]
    return {"method": "POST" if method in {"", "*"} else method, "path": "/".join(parts) or "/"}


def _print(common: Common, route: Mapping[str, Any], what: str) -> None:
    if common.as_json:
        print_json({"route": route})
    else:
        say(f"Route {route['name']} {what}.")


def _row(route: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **route,
        "price": price_text(route["price"]),
        "limited": bounds_text(route["limits"], route["caps"]),
        "status": "active" if route["active"] else "inactive",
    }


def _say_charge(charge: Mapping[str, Any]) -> None:
    refused = charge["refused"]
    if refused is not None:
        say(f"Refused with {refused['status']} {refused['code']}: {refused['detail']}")
    elif charge["free"]:
        say("Free.")
    if charge["held_credits"] is not None:
        case = f" (priced as {charge['case']})" if charge["case"] else ""
        say(f"Held before the call: {charge['held_credits']} credits{case}.")
    if charge["charged_credits"] is not None:
        units = ", ".join(
            f"{unit}={'?' if count is None else count}" for unit, count in charge["units"].items()
        )
        flags = f" ({', '.join(charge['flags'])})" if charge["flags"] else ""
        read = f", with {units}" if units else ""
        say(f"Charged when {charge['ending']}{read}: {charge['charged_credits']} credits{flags}.")


def _reach_text(reach: Mapping[str, Any]) -> str:
    if not reach["ok"]:
        return f"The upstream can't be reached: {reach['problem']}"
    return f"The upstream is reached in {reach['ms']} ms, {reach['tls'] or 'without TLS'}."

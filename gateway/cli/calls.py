"""`tollkeeper calls`: what single calls cost, and giving that back."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import OWN, PLATFORM, account_names, find_base, find_lists
from gateway.cli.keys import find_key
from gateway.cli.options import (
    CallArgument,
    Common,
    NoteOption,
    OneAccountArgument,
    command,
    new_app,
)
from gateway.cli.output import Column, print_json, print_rows, print_table, say, short_moment
from gateway.cli.run import run
from gateway.cli.typed import moment
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

CALLS_MAX = 1_000

app = new_app("Settled calls: list, show, refund.")

COLUMNS = (
    Column("CALL", "request_id"),
    Column("SETTLED", "settled_at"),
    Column("ROUTE", "route"),
    Column("KEY", "key_id", figures=True),
    Column("ENDING", "ending"),
    Column("STATUS", "status", figures=True),
    Column("UNITS", "units"),
    Column("CHARGED", "charged_credits", figures=True),
    Column("FLAGS", "flags"),
)
ACCOUNT_COLUMN = Column("ACCOUNT", "account")
POSTING_COLUMNS = (
    Column("WHEN", "at"),
    Column("WHAT", "kind"),
    Column("GRANT", "grant_id", figures=True),
    Column("SOURCE", "source"),
    Column("CREDITS", "credits", figures=True),
    Column("NOTE", "note"),
)


@command(app, "tollkeeper calls list alice --route chat --since 24h --limit 20", name="list")
def list_(
    common: Common,
    account: OneAccountArgument = "",
    key: Annotated[
        str, typer.Option("--key", metavar="KEY", help="Only with this key: number or prefix.")
    ] = "",
    route: Annotated[str, typer.Option("--route", help="Only of this route.")] = "",
    ending: Annotated[
        str, typer.Option("--ending", help="Only those that ended so, as in upstream_error.")
    ] = "",
    status: Annotated[
        int | None, typer.Option("--status", help="Only those answered with this status.")
    ] = None,
    session: Annotated[
        str, typer.Option("--session", help="Only of this session (X-Session-Id).")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help='Begun since: "24h", "2026-12-01".')
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="Begun before.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=CALLS_MAX, help="How many.")] = 50,
) -> None:
    """List the last settled calls, newest first."""

    async def work() -> tuple[list[Any], dict[int, str], dict[int, str]]:
        from gateway.cli.api import open_api

        chosen: dict[str, Any] = {
            "route": route or None,
            "ending": ending or None,
            "status": status,
            "session": session or None,
            "from": moment(since, past=True) if since else None,
            "until": moment(until, past=True) if until else None,
        }
        async with open_api(common, redis=False) as api:
            base, whose = await find_lists(api, account)
            chosen |= whose
            if key:
                chosen["key_id"] = (await find_key(api, key, base))["id"]
            found = await api.all(f"{base}/settlements", limit=limit, **chosen)
            if common.as_json or base == OWN:
                return found, {}, {}
            owners = {} if account else await account_names(api, found)
            return found, owners, await _route_names(api)

    found, accounts, routes = run(work())
    columns = (COLUMNS[0], ACCOUNT_COLUMN, *COLUMNS[1:]) if accounts else COLUMNS
    print_rows(
        "calls",
        columns,
        found,
        as_json=common.as_json,
        empty="There are no such calls.",
        shown=lambda call: {
            **_row(call),
            "account": accounts.get(call["account_id"]),
            "route": routes.get(call["route_id"], call["route_id"]),
        },
    )


@command(app, "tollkeeper calls show 0190b2c5a4e17c3d8f21aa0b6d4c9e10")
def show(common: Common, call: CallArgument) -> None:
    """Show the receipt of a settled call: what it took from which grants, and what came back."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        call_id = _call_id(call)
        async with open_api(common, redis=False) as api:
            return await _receipt(api, await find_base(api), call_id)

    receipt = run(work())
    if common.as_json:
        print_json({"receipt": receipt})
        return
    row = _row(receipt["call"])
    units = f", {row['units']}" if row["units"] else ""
    flags = f" ({row['flags']})" if row["flags"] else ""
    route = receipt["route"] or "a route that is gone"
    key = _key_text(receipt["key"])
    say(f"{receipt['account']} on {route}, with key {key}, {row['settled_at']}")
    say(f"Ended {row['ending']}, status {row['status']}{units}{flags}.")
    changes = _changes_text(receipt)
    say(f"Held {row['held_credits']}, charged {receipt['charged_credits']} credits{changes}.\n")
    if receipt["postings"]:
        postings = [
            {**posting, "at": short_moment(posting["at"])} for posting in receipt["postings"]
        ]
        print_table(POSTING_COLUMNS, postings)


@command(app, "tollkeeper calls refund 0190b2c5a4e17c3d8f21aa0b6d4c9e10 --note 'Wrong answer'")
def refund(common: Common, call: CallArgument, note: NoteOption = "") -> None:
    """Give back all that a call cost, once, to the grants that paid.

    What grants paid that have ended since comes back as the account's plan says.
    """

    async def work() -> Any:
        from gateway.cli.api import open_api

        call_id = _call_id(call)
        async with open_api(common) as api:
            await _receipt(api, PLATFORM, call_id)
            return await api.post(f"/v1/settlements/{call_id}/refund", {"note": note})

    done = run(work())
    if common.as_json:
        print_json({"refund": done})
        return
    granted, forfeited = done["granted_credits"], done["forfeited_credits"]
    say(f"Given back: {done['restored_credits']} credits to the grants that paid.")
    if granted != "0":
        say(f"Those of ended grants, {granted} credits, are a new grant ({done['grant_id']}).")
    if forfeited != "0":
        say(f"Not given back: {forfeited} credits of ended grants, as the plan says.")


async def _receipt(api: "ApiClient", base: str, call_id: str) -> Any:
    receipt = await api.find(f"{base}/receipts/{call_id}")
    if receipt is None:
        raise UsageError(
            f"there is no settled call {call_id}: it never was, still runs, or is on its way"
        )
    return receipt


async def _route_names(api: "ApiClient") -> dict[int, str]:
    return {route["id"]: route["name"] async for route in api.rows("/v1/routes")}


def _call_id(text: str) -> str:
    from gateway.operations.calls import normal_call_id

    call_id = normal_call_id(text)
    if call_id is None:
        raise UsageError(
            f'"{text}" is no call: its id is the X-Request-Id of its answer, 32 of 0-9 and a-f'
        )
    return call_id


def _row(call: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **call,
        "settled_at": short_moment(call["settled_at"]),
        "units": ", ".join(f"{unit}={count}" for unit, count in call["units"].items()),
        "flags": ", ".join(call["flags"]),
    }


def _key_text(key: Mapping[str, Any]) -> str:
    name = key["name"]
    return f"{key['id']} ({name})" if name else str(key["id"])


def _changes_text(receipt: Mapping[str, Any]) -> str:
    """What became of the charge since."""
    corrected, refunded = receipt["corrected_credits"], receipt["refunded_credits"]
    parts = [
        f", corrected by {corrected}" if corrected != "0" else "",
        f", refunded {refunded}" if refunded != "0" else "",
        f": {receipt['net_credits']} in the end" if {corrected, refunded} != {"0"} else "",
    ]
    return "".join(parts)

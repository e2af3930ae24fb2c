"""`tollkeeper audit-log`: who changed what, and when."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import typed
from gateway.cli.callers import ask, find_lists
from gateway.cli.options import Common, command
from gateway.cli.output import Column, print_rows, short_moment

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

ENTRIES_DEFAULT = 50
# A cell of the table; all of a value is in the JSON.
VALUE_CHARACTERS_MAX = 40

COLUMNS = (
    Column("WHEN", "at"),
    Column("WHO", "actor"),
    Column("FROM", "address"),
    Column("DID", "action"),
    Column("WHAT", "what"),
    Column("ACCOUNT", "account_id", figures=True),
    Column("CHANGE", "change"),
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper audit-log --resource key --since 7d", name="audit-log")(audit_log)


def audit_log(
    common: Common,
    resource: Annotated[
        str, typer.Option("--resource", metavar="KIND", help='Such as "account", "key", "plan".')
    ] = "",
    resource_id: Annotated[
        str, typer.Option("--id", metavar="ID", help="Only of this one of them.")
    ] = "",
    actor: Annotated[str, typer.Option("--actor", help='Who: "token:7", "cli:alice".')] = "",
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="Only what was of this account.")
    ] = "",
    since: Annotated[
        str, typer.Option("--since", metavar="WHEN", help='From when: "24h", "2026-12-01".')
    ] = "",
    until: Annotated[str, typer.Option("--until", metavar="WHEN", help="Until when.")] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="At most so many, the newest.")
    ] = ENTRIES_DEFAULT,
) -> None:
    """List who changed what, newest first; admins see what was of their account."""

    async def work(client: "ApiClient") -> Any:
        base, whose = await find_lists(client, account)
        wanted: dict[str, Any] = {
            **whose,
            "resource": resource or None,
            "resource_id": resource_id or None,
            "actor": actor or None,
            "from": typed.moment(since, past=True) if since else None,
            "until": typed.moment(until, past=True) if until else None,
        }
        return await client.all(f"{base}/audit-log", limit=limit, **wanted)

    print_rows(
        "entries",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="Nothing was changed.",
        shown=_shown,
    )


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **row,
        "at": short_moment(row["at"]),
        "what": f"{row['resource']} {row['resource_id']}",
        "change": _change(row["action"], row["before"], row["after"]),
    }


def _change(action: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Such as "status: active -> suspended"; of what was made or deleted, its values."""
    if action != "change":
        return ", ".join(f"{name}: {_text(value)}" for name, value in (after or before).items())
    return ", ".join(
        f"{name}: {_text(before.get(name))} -> {_text(after.get(name))}"
        for name in sorted({*before, *after})
    )


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARACTERS_MAX else f"{text[: VALUE_CHARACTERS_MAX - 3]}..."

"""`tollkeeper events`: what accounts are told of."""

from typing import TYPE_CHECKING, Any

import typer

from gateway.cli.options import AccountArgument, Common, command
from gateway.cli.output import Column, print_rows
from gateway.cli.run import run
from gateway.cli.session import open_books
from gateway.operations.moments import format_moment
from policies.units import format_credits

if TYPE_CHECKING:
    from gateway.ledger.events import EventRow

COLUMNS = (
    Column("EVENT", "id", figures=True),
    Column("WHEN", "created_at"),
    Column("WHAT", "text"),
    Column("DELIVERED", "delivered_at"),
)
AMOUNT_SUFFIX = "_microcredits"
MOMENT_SUFFIX = "_ms"


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper events alice")(events)


def events(common: Common, account: AccountArgument) -> None:
    """List what happened to an account that it should know of, oldest first.

    Each crossing is recorded once: 70, 90 and 100 % of a period's credits used, and fewer credits
    left than the plan's low_credits.
    """

    async def work() -> "list[EventRow]":
        from gateway.operations.accounts import find_account

        async with open_books(common.config, common.data_dir) as books:
            owner = await find_account(books.ledger, books.platform_id, account)
            return await books.ledger.events(owner.account_id)

    rows = [_document(event) for event in run(work())]
    print_rows("events", COLUMNS, rows, as_json=common.as_json, empty="There are no events yet.")


def _document(event: "EventRow") -> dict[str, Any]:
    detail = dict(map(_shown, event.detail.items()))
    return {
        "id": event.event_id,
        "kind": event.kind,
        "text": _text(event.kind, detail),
        "detail": detail,
        "created_at": format_moment(event.created_ms),
        "delivered_at": format_moment(event.delivered_ms) or None,
    }


def _shown(item: tuple[str, Any]) -> tuple[str, Any]:
    """Amounts in credits, times as texts, as in every other document."""
    name, value = item
    if name.endswith(AMOUNT_SUFFIX):
        return name.removesuffix(AMOUNT_SUFFIX), format_credits(int(value))
    if name.endswith(MOMENT_SUFFIX):
        return f"{name.removesuffix(MOMENT_SUFFIX)}_at", format_moment(int(value))
    return name, value


def _text(kind: str, detail: dict[str, Any]) -> str:
    match kind:
        case "threshold":
            return f"{detail['percent']} % of this period's {detail['amount']} credits are used"
        case "low_credits":
            return f"{detail['available']} credits left, fewer than {detail['mark']}"
    return kind

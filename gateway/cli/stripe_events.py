"""`tollkeeper stripe events`, `tollkeeper stripe reconcile`: what Stripe said, and did not say."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.callers import ask
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_fields, print_json, print_rows, say, short_moment

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

EVENTS_DEFAULT = 50
REPLAYED_MAX = 1_000
PATH = "/v1/stripe/events"
COUNTS = ("events_seen", "events_added", "payments_seen", "payments_mended")

app = new_app("What Stripe said: list, show, replay.")

EventArgument = Annotated[str, typer.Argument(metavar="EVENT", help='As in "evt_123".')]
COLUMNS = (
    Column("EVENT", "id"),
    Column("RECEIVED", "received_at"),
    Column("TYPE", "type"),
    Column("ABOUT", "object_id"),
    Column("STATUS", "status"),
    Column("FAILED", "attempts", figures=True),
    Column("PROBLEM", "problem"),
)


def register(stripe: typer.Typer) -> None:
    """Add these to `tollkeeper stripe`."""
    stripe.add_typer(app, name="events")
    command(stripe, "tollkeeper stripe reconcile --days 60")(reconcile)


@command(app, "tollkeeper stripe events list --status parked", name="list")
def list_(
    common: Common,
    status: Annotated[str, typer.Option("--status", help="waiting, done, ignored or parked.")] = "",
    kind: Annotated[str, typer.Option("--type", help='Such as "invoice.paid".')] = "",
    about: Annotated[
        str, typer.Option("--about", metavar="ID", help='Stripe\'s id of what it is about: "in_1".')
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, metavar="N", help="At most so many, the newest.")
    ] = EVENTS_DEFAULT,
) -> None:
    """List what Stripe said, newest first, and what became of it."""

    async def work(client: "ApiClient") -> Any:
        wanted = {"status": status or None, "type": kind or None, "object_id": about or None}
        return await client.all(PATH, limit=limit, **wanted)

    print_rows(
        "events",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="Stripe said nothing of that kind.",
        shown=_shown,
    )


@command(app, "tollkeeper stripe events show evt_123")
def show(common: Common, event: EventArgument) -> None:
    """Show an event; with --json also what Stripe sent."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(_path(event))

    found = ask(common, work)
    if common.as_json:
        print_json({"event": found})
    else:
        print_fields(found, without=("payload",))


@command(app, "tollkeeper stripe events replay evt_123")
def replay(
    common: Common,
    event: Annotated[
        str, typer.Argument(metavar="[EVENT]", help='As in "evt_123".', show_default=False)
    ] = "",
    parked: Annotated[
        bool, typer.Option("--parked", help=f"All that are parked, {REPLAYED_MAX} at a time.")
    ] = False,
) -> None:
    """Work on an event once more, such as one that was parked, when what was wrong is mended."""
    if parked == bool(event):
        raise typer.BadParameter(
            "name one event, or say --parked for all that are", param_hint="EVENT"
        )

    async def work(client: "ApiClient") -> Any:
        names = [event]
        if parked:
            rows = await client.all(PATH, limit=REPLAYED_MAX, status="parked")
            names = [row["id"] for row in rows]
        return [await client.post(f"{_path(name)}/replay") for name in names]

    found = ask(common, work)
    if common.as_json:
        print_json({"events": found} if parked else {"event": found[0]})
    elif parked:
        say(f"Waiting again: {len(found)}. A running node works on what waits.")
    else:
        say(f"Event {found[0]['id']} ({found[0]['type']}) waits: a running node works on it.")


def reconcile(
    common: Common,
    days: Annotated[
        int,
        typer.Option("--days", min=1, metavar="N", help="Compare payments of so many days."),
    ] = 35,
) -> None:
    """Find what Stripe has and we have not: events that never came, payments not booked.

    Running nodes do this by themselves every hour. Twice changes nothing.
    """

    async def work(client: "ApiClient") -> Any:
        total: dict[str, Any] = {**dict.fromkeys(COUNTS, 0), "problems": []}
        cursor = None
        while True:
            wish = {"days": days} | ({} if cursor is None else {"cursor": cursor})
            part = await client.post("/v1/stripe/reconcile", wish)
            for count in COUNTS:
                total[count] += part[count]
            total["problems"] += part["problems"]
            cursor = part["next_cursor"]
            if cursor is None:
                return total

    done = ask(common, work)
    if common.as_json:
        print_json(done)
        return
    say(
        f"{done['events_added']} of {done['events_seen']} events had not come and are worked on "
        f"by running nodes; {done['payments_mended']} of {done['payments_seen']} payments were "
        "not booked and are now."
    )
    for problem in done["problems"]:
        say(f"{problem['object_id']} can't be booked: {problem['problem']}")


def _path(event: str) -> str:
    return f"{PATH}/{quote(event, safe='')}"


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "received_at": short_moment(row["received_at"])}

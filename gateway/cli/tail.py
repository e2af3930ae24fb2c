"""`tollkeeper tail`: calls as they are settled."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import ask
from gateway.cli.options import Common, command
from gateway.cli.output import complain
from gateway.cli.watching import Patient, check_reader, ending_with_reader, print_line
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable

    from gateway.cli.api import ApiClient

PATH = "/v1/settlements/following"
PAGE_ROWS = 200
LOOK_S = 1.0
# For how long after a call others that were settled before it may still turn up, and come again:
# a good deal longer than FOLLOW_OVERLAP_MS of gateway/operations/settlements.py.
SEEN_S = 30
# Names of accounts that are remembered.
NAMES_MAX = 100_000
NAMES_AT_ONCE = 8


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper tail --route suggest --json")(tail)


def tail(
    common: Common,
    route: Annotated[
        str, typer.Option("--route", metavar="ROUTE", help="Only calls of this route.")
    ] = "",
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="Only calls of this account.")
    ] = "",
) -> None:
    """Follow calls as they are settled, one a line, from the last seconds on.

    When, route, account, ending, status, units, credits charged. With --json a document a line.
    Ends with Ctrl-C; goes on by itself when the control plane was away.
    """

    async def work(client: "ApiClient") -> None:
        names = _Names(client)
        account_id = await client.account_id(account) if account else None
        if route:
            await names.check_route(route)
        async for rows in _following(client):
            chosen = [row for row in rows if account_id in {None, row["account_id"]}]
            for row in await names.added(chosen):
                if route in {"", row["route"]}:
                    print_line(_json(row) if common.as_json else _line(row))

    with ending_with_reader():
        ask(common, work)


async def _following(client: "ApiClient") -> Any:
    """Each call once, as they are settled; an empty part where there are none for now."""
    import asyncio

    from gateway.cli.api import RefusedError

    patient, seen = Patient(client), _Seen()
    cursor = None
    while True:
        try:
            page = await patient.get(PATH, limit=PAGE_ROWS, cursor=cursor)
        except RefusedError:
            if cursor is None:
                raise
            complain('tollkeeper: that was long: "calls list" has the calls that are missing here')
            cursor = None
            continue
        cursor = page["next_cursor"]
        yield seen.fresh(page["data"])
        if page["at_end"]:
            check_reader()
            await asyncio.sleep(LOOK_S)


class _Seen:
    """Which calls were there already, of those that may come again; by the second they ended in."""

    def __init__(self) -> None:
        self._calls: dict[int, set[str]] = {}

    def fresh(self, rows: "Iterable[Any]") -> list[Any]:
        """Those that were not."""
        found = []
        for row in rows:
            calls = self._calls.setdefault(_second(row["settled_at"]), set())
            if row["request_id"] not in calls:
                calls.add(row["request_id"])
                found.append(row)
        since = max(self._calls, default=0) - SEEN_S
        self._calls = {second: calls for second, calls in self._calls.items() if second >= since}
        return found


class _Names:
    """Names of routes and accounts, asked for when they are met first."""

    def __init__(self, client: "ApiClient") -> None:
        self._client = client
        self._patient = Patient(client)
        self._routes: dict[int, str] = {}
        self._accounts: dict[int, str] = {}

    async def check_route(self, name: str) -> None:
        """Raises: UsageError when there is no such route; it names a near one."""
        from difflib import get_close_matches

        await self._read_routes()
        if name not in self._routes.values():
            near = get_close_matches(name, self._routes.values(), n=1)
            hint = f': did you mean "{near[0]}"?' if near else ""
            raise UsageError(f'there is no route "{name}"{hint}')

    async def added(self, rows: list[Any]) -> list[Any]:
        """The calls with the names of their `route` and `account`."""
        import asyncio

        if len(self._accounts) > NAMES_MAX:
            self._accounts.clear()
        unknown = {row["account_id"] for row in rows} - self._accounts.keys()
        turn = asyncio.Semaphore(NAMES_AT_ONCE)
        await asyncio.gather(*(self._read_account(one, turn) for one in unknown))
        gone = {row["route_id"] for row in rows} - self._routes.keys()
        if gone:
            await self._read_routes()
            self._routes = {one: f"route {one}" for one in gone} | self._routes
        return [
            row
            | {
                "route": self._routes[row["route_id"]],
                "account": self._accounts[row["account_id"]],
            }
            for row in rows
        ]

    async def _read_account(self, account_id: int, turn: "asyncio.Semaphore") -> None:
        async with turn:
            found = await self._patient.get(f"/v1/accounts/{account_id}")
        self._accounts[account_id] = found["name"]

    async def _read_routes(self) -> None:
        async for row in self._client.rows("/v1/routes"):
            self._routes[row["id"]] = row["name"]


def _second(moment: str) -> int:
    from datetime import datetime

    return int(datetime.fromisoformat(moment).timestamp())


def _json(row: Any) -> str:
    return json.dumps(row, ensure_ascii=False, separators=(",", ":"))


def _line(row: Any) -> str:
    units = " ".join(f"{name}={count}" for name, count in row["units"].items()) or "-"
    return (
        f"{row['settled_at']}  {row['route']:<16}  {row['account']:<16}  {row['ending']:<17}"
        f"  {row['status'] or '-':>3}  {units:<16}  {row['charged_credits']}"
    )

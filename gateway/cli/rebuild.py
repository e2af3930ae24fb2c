"""`tollkeeper rebuild`: shards of Redis again from Postgres and the calls that run."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.options import Common, command
from gateway.cli.output import Column, print_rows, progress
from gateway.cli.run import run
from gateway.cli.session import Desk, open_desk
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gateway.recovery.rebuild import Rebuilt

COLUMNS = (
    Column("SHARD", "shard", figures=True),
    Column("EPOCH", "epoch", figures=True),
    Column("ACCOUNTS", "accounts", figures=True),
    Column("RUNNING CALLS", "calls", figures=True),
    Column("WORKERS THAT DID NOT REPORT", "silent_workers", figures=True),
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    command(app, "tollkeeper rebuild --account alice --yes")(rebuild)


def rebuild(
    common: Common,
    shard: Annotated[
        int | None, typer.Option("--shard", metavar="N", min=0, help="This shard.")
    ] = None,
    account: Annotated[
        str, typer.Option("--account", metavar="ACCOUNT", help="The shard of this account.")
    ] = "",
    every: Annotated[bool, typer.Option("--all", help="Every shard, one after the other.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Don't ask.")] = False,
) -> None:
    """Read shards of Redis again from Postgres.

    The gateway does this by itself when Redis has lost data; this is for when people doubt what is
    there. Nothing is lost: running calls keep their holds, and what they settle meanwhile waits.
    New calls of the shard are refused with 503 for that moment.
    """
    if [shard is not None, bool(account), every].count(True) != 1:
        raise typer.BadParameter("say one of --shard, --account and --all")
    if not yes:
        what = "every shard" if every else "this shard"
        typer.confirm(f"New calls of {what} are refused meanwhile. Rebuild?", abort=True, err=True)

    async def work() -> "Sequence[Rebuilt]":
        async with open_desk(common.config, common.data_dir) as desk:
            shards = await _chosen(desk, shard, account)
            with progress("Rebuilding shards", shown=not common.as_json) as report:
                return await _rebuild(desk, shards, report)

    rows = [_document(rebuilt) for rebuilt in run(work())]
    print_rows("shards", COLUMNS, rows, as_json=common.as_json, empty="No shard is in use yet.")


async def _chosen(desk: Desk, shard: int | None, account: str) -> "Sequence[int]":
    from gateway.operations.accounts import find_account

    if account:
        found = await find_account(desk.ledger, desk.platform_id, account)
        return [desk.counters.keys(found.account_id).shard]
    shards = range(desk.counters.shards)
    if shard is None:
        return shards
    if shard not in shards:
        raise UsageError(f"there are {len(shards)} shards, 0 to {len(shards) - 1}")
    return [shard]


async def _rebuild(
    desk: Desk, shards: "Sequence[int]", report: "Callable[[int, int], None]"
) -> "Sequence[Rebuilt]":
    from gateway.operations.lost_shards import rebuilder_of

    lease_s = desk.config.gateway.lease_s
    rebuilder = rebuilder_of(desk.ledger, desk.counters, lease_s=lease_s)
    rebuilt = []
    for done, shard in enumerate(shards):
        report(done, len(shards))
        if one := await rebuilder.rebuild_anyway(shard):
            rebuilt.append(one)
    return rebuilt


def _document(rebuilt: "Rebuilt") -> dict[str, Any]:
    return {
        "shard": rebuilt.shard,
        "epoch": rebuilt.epoch,
        "accounts": rebuilt.accounts,
        "calls": rebuilt.holds,
        "silent_workers": len(rebuilt.silent),
    }

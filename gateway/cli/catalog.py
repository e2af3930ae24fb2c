"""`tollkeeper apply`: offer what the config says."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.options import Common, command
from gateway.cli.output import print_json, progress, say
from gateway.cli.run import run
from gateway.cli.session import open_desk

if TYPE_CHECKING:
    from gateway.ledger import CatalogReport

# What changed, in the order in which people care.
CHANGES = (
    ("routes_created", "route", "added"),
    ("routes_changed", "route", "changed"),
    ("routes_deactivated", "route", "deactivated"),
    ("prices_created", "price", "new version, for route"),
    ("plans_created", "plan", "added"),
    ("plans_changed", "plan", "changed"),
    ("plans_retired", "plan", "left the config, without a price from now on"),
    ("packs_created", "pack", "added"),
    ("packs_changed", "pack", "changed"),
    ("packs_retired", "pack", "not sold any more"),
    ("stripe_changed", "Stripe settings", "changed, mode"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    command(app, "tollkeeper apply --config config.toml --dry-run")(apply)


def apply(
    common: Common,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change.")
    ] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Tell Redis of every account, not only of changes.")
    ] = False,
) -> None:
    """Offer what the config says from now on, on every worker.

    Works on this folder's config, also while you are logged in elsewhere.
    """

    async def work() -> "CatalogReport":
        from gateway.operations.catalog import apply_config, preview_config

        async with open_desk(common.config, common.data_dir, new_platform=True) as desk:
            if dry_run:
                return await preview_config(desk.ledger, desk.config)
            with progress("Telling accounts", shown=not common.as_json) as report:
                return await apply_config(
                    desk.ledger, desk.counters, desk.config, sync=sync, progress=report
                )

    report = run(work())
    changes = {field: list(getattr(report, field)) for field, _, _ in CHANGES}
    if common.as_json:
        print_json({"applied": not dry_run, **changes})
        return
    lines = [
        f"{what} {how}: {', '.join(changes[field])}"
        for field, what, how in CHANGES
        if changes[field]
    ]
    if not lines:
        say("Nothing changes: the database says what the config says.")
        return
    say("Would change:" if dry_run else "Changed:")
    for line in lines:
        say(f"  {line}")

"""`tollkeeper apply`, `routes list`, `plans list`: what the platform offers."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.bounds import bounds_text, caps_document, limits_document
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_json, print_rows, progress, say
from gateway.cli.price_text import price_text
from gateway.cli.run import run
from gateway.cli.session import open_books, open_desk
from policies.units import format_credits, format_percent

if TYPE_CHECKING:
    from gateway.ledger import CatalogReport, StoredRoute
    from policies.catalog import Plan

routes = new_app("What is on offer and what it costs: list.")
plans = new_app("What accounts can subscribe to: list.")

ROUTE_COLUMNS = (
    Column("ROUTE", "name"),
    Column("MATCH", "match"),
    Column("UPSTREAM", "upstream"),
    Column("PRICE", "price"),
    Column("VERSION", "price_version", figures=True),
    Column("LIMITED", "limited"),
    Column("STATUS", "status"),
)
PLAN_COLUMNS = (
    Column("PLAN", "slug"),
    Column("CREDITS", "credits", figures=True),
    Column("PERIOD", "period"),
    Column("LIMITED", "limited"),
    Column("DISCOUNT %", "discount", figures=True),
    Column("OVERAGE", "overage_cap", figures=True),
    Column("ROLLOVER", "rollover"),
)
# What changed, in the order in which people care.
CHANGES = (
    ("routes_created", "route", "added"),
    ("routes_changed", "route", "changed"),
    ("routes_deactivated", "route", "deactivated"),
    ("prices_created", "price", "new version, for route"),
    ("plans_created", "plan", "added"),
    ("plans_changed", "plan", "changed"),
)


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    command(app, "tollkeeper apply --config config.toml --dry-run")(apply)
    app.add_typer(routes, name="routes")
    app.add_typer(plans, name="plans")


def apply(
    common: Common,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change.")
    ] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Tell Redis of every account, not only of changes.")
    ] = False,
) -> None:
    """Offer what the config says from now on, on every worker."""

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


@command(routes, "tollkeeper routes list", name="list")
def list_routes(common: Common) -> None:
    """List routes as the database has them, those out of service too."""

    async def work() -> "list[StoredRoute]":
        async with open_books(common.config, common.data_dir) as books:
            return await books.ledger.routes(books.platform_id)

    rows = [_route_document(stored) for stored in run(work())]
    print_rows(
        "routes", ROUTE_COLUMNS, rows, as_json=common.as_json, empty="There are no routes yet."
    )


@command(plans, "tollkeeper plans list", name="list")
def list_plans(common: Common) -> None:
    """List plans as the database has them."""

    async def work() -> "list[Plan]":
        async with open_books(common.config, common.data_dir) as books:
            return await books.ledger.plans(books.platform_id)

    rows = [_plan_document(plan) for plan in run(work())]
    print_rows("plans", PLAN_COLUMNS, rows, as_json=common.as_json, empty="There are no plans yet.")


def _route_document(stored: "StoredRoute") -> dict[str, Any]:
    route = stored.route
    return {
        "id": route.id,
        "name": route.name,
        "match": f"{'|'.join(route.methods) or '*'} {route.pattern}",
        "upstream": route.upstream,
        "price": price_text(route.price),
        "price_version": route.price.version if route.price else None,
        "limited": bounds_text(route.limits, route.caps),
        "limits": limits_document(route.limits),
        "caps": caps_document(route.caps),
        "protocol": route.protocol.value,
        "trusted_without_redis": format_credits(route.trust_microcredits),
        "status": "active" if stored.active else "inactive",
    }


def _plan_document(plan: "Plan") -> dict[str, Any]:
    return {
        "slug": plan.slug,
        "credits": format_credits(plan.credits_microcredits),
        "period": plan.period,
        "requests_per_minute": plan.requests_per_minute or None,
        "requests_per_month": plan.requests_per_month or None,
        "concurrency": plan.concurrency or None,
        "requests_per_second": plan.requests_per_second or None,
        "burst": plan.burst or None,
        "quota_window": plan.quota_window.value,
        "limited": bounds_text(plan.limits, plan.caps),
        "caps": caps_document(plan.caps),
        "overage_cap": format_credits(plan.overage_cap_microcredits),
        "rollover": _rollover_text(plan),
        "rollover_periods": plan.rollover_periods,
        "low_credits": format_credits(plan.low_credits_microcredits),
        "refund_expired": plan.refund_expired.value,
        "discount": format_percent(plan.discount_basis_points),
    }


def _rollover_text(plan: "Plan") -> str:
    """As in the config: "none", "all", or the most that a period leaves."""
    most = plan.rollover_microcredits_max
    if most is None:
        return "all"
    return format_credits(most) if most else "none"

"""`tollkeeper plans`: what accounts can subscribe to."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gateway.cli.bounds import bounds_text
from gateway.cli.options import Common, FileOption, PlanArgument, command, new_app
from gateway.cli.output import Column, print_fields, print_json, print_rows, say
from gateway.cli.run import run
from gateway.cli.typed import read_document
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

app = new_app("What accounts can subscribe to: list, show, create, update, delete.")

COLUMNS = (
    Column("PLAN", "slug"),
    Column("CREDITS", "credits", figures=True),
    Column("PERIOD", "period"),
    Column("LIMITED", "limited"),
    Column("DISCOUNT %", "discount", figures=True),
    Column("OVERAGE", "overage_cap", figures=True),
    Column("ROLLOVER", "rollover"),
    Column("BY", "managed_by"),
)


@command(app, "tollkeeper plans list", name="list")
def list_(common: Common) -> None:
    """List plans as the database has them."""

    async def work() -> list[Any]:
        from gateway.cli.api import open_api

        async with open_api(common, redis=False) as api:
            return await api.all("/v1/plans")

    print_rows(
        "plans",
        COLUMNS,
        run(work()),
        as_json=common.as_json,
        empty="There are no plans yet.",
        shown=_row,
    )


@command(app, "tollkeeper plans show pro --json")
def show(common: Common, plan: PlanArgument) -> None:
    """Show a plan; with --json as "plans update" takes it."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        async with open_api(common, redis=False) as api:
            return await find_plan(api, plan)

    _print(common, run(work()))


@command(app, "tollkeeper plans create --file pro.toml")
def create(common: Common, file: FileOption) -> None:
    """Create a plan of a document with the keys of the config's [[plans]]."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        document = read_document(file, "plan")
        async with open_api(common) as api:
            return await api.post("/v1/plans", document)

    made = run(work())
    _print(common, made, f"Plan {made['slug']} is there.")


@command(app, "tollkeeper plans update pro --file pro.toml")
def update(common: Common, plan: PlanArgument, file: FileOption) -> None:
    """Change what a document names of a plan, for all accounts that have it; the rest stays.

    In JSON, null takes something back to its default.
    """

    async def work() -> Any:
        from gateway.cli.api import open_api

        document = read_document(file, "plan")
        async with open_api(common) as api:
            await find_plan(api, plan)
            return await api.patch(f"/v1/plans/{plan}", document)

    changed = run(work())
    _print(common, changed, f"Plan {changed['slug']} is changed.")


@command(app, "tollkeeper plans delete pro")
def delete(common: Common, plan: PlanArgument) -> None:
    """Delete a plan that no account has."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        async with open_api(common) as api:
            found = await find_plan(api, plan)
            await api.delete(f"/v1/plans/{plan}")
            return found

    deleted = run(work())
    _print(common, deleted, f"Plan {deleted['slug']} is deleted.")


async def find_plan(api: "ApiClient", slug: str) -> Any:
    """The plan of this name. Raises: UsageError when there is none; it names near ones."""
    from difflib import get_close_matches

    plans = {plan["slug"]: plan async for plan in api.rows("/v1/plans")}
    if slug not in plans:
        near = get_close_matches(slug, plans, n=1)
        hint = f': did you mean "{near[0]}"?' if near else ""
        raise UsageError(f'there is no plan "{slug}"{hint}')
    return plans[slug]


def _print(common: Common, plan: Mapping[str, Any], text: str = "") -> None:
    """What was done, or the plan itself."""
    if common.as_json:
        print_json({"plan": plan})
    elif text:
        say(text)
    else:
        print_fields(plan, without=("id",))


def _row(plan: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **plan,
        "limited": bounds_text(plan, plan["caps"]),
        "overage_cap": plan["overage_cap"] or "0",
    }

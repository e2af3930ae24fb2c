"""`tollkeeper platforms`: the tenants of a deployment."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from gateway.cli.callers import ask
from gateway.cli.options import Common, command, new_app
from gateway.cli.output import Column, print_json, print_rows, say, short_moment
from gateway.cli.typed import amount
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

PATH = "/v1/platforms"

app = new_app("Platforms, for operators: create, list, show, change.")

PlatformArgument = Annotated[str, typer.Argument(metavar="PLATFORM", help="The platform's slug.")]
NameOption = Annotated[str | None, typer.Option("--name", help="For people; by default its slug.")]
UpgradeOption = Annotated[
    str | None,
    typer.Option(
        "--upgrade-url",
        metavar="URL",
        help='Where clients without credits are sent; "" for nowhere.',
    ),
]
SignupOption = Annotated[
    str | None,
    typer.Option(
        "--signup-plan", metavar="PLAN", help='What new accounts are put on; "" for nothing.'
    ),
]
TrialOption = Annotated[
    str | None,
    typer.Option("--trial-credits", metavar="N", help='What they get beside it; "" for nothing.'),
]
TrialDaysOption = Annotated[int | None, typer.Option("--trial-days", help="How long these last.")]
COLUMNS = (
    Column("PLATFORM", "slug"),
    Column("NAME", "name"),
    Column("UPGRADE", "upgrade_url"),
    Column("SIGN-UP", "signup_plan"),
    Column("CREATED", "created_at"),
)


@command(app, "tollkeeper platforms create acme --name 'Acme Agents'")
def create(
    common: Common,
    platform: PlatformArgument,
    name: NameOption = None,
    upgrade_url: UpgradeOption = None,
    signup_plan: SignupOption = None,
    trial_credits: TrialOption = None,
    trial_days: TrialDaysOption = None,
) -> None:
    """Create a platform, with nothing for sale yet.

    Operators work on it with "tollkeeper login --platform"; "tokens create owner" makes an owner.
    """

    async def work(client: "ApiClient") -> Any:
        told = _told(name, upgrade_url, signup_plan, trial_credits, trial_days)
        said = {field: value for field, value in told.items() if value is not None}
        return await client.post(PATH, {"slug": platform, **said})

    made = ask(common, work)
    if common.as_json:
        print_json({"platform": made})
    else:
        say(f"Platform {made['slug']} is ready.")


@command(app, "tollkeeper platforms list --json", name="list")
def list_(common: Common) -> None:
    """List platforms."""

    async def work(client: "ApiClient") -> Any:
        return await client.all(PATH)

    print_rows(
        "platforms",
        COLUMNS,
        ask(common, work),
        as_json=common.as_json,
        empty="There are no platforms yet.",
        shown=_shown,
    )


@command(app, "tollkeeper platforms show acme")
def show(common: Common, platform: PlatformArgument) -> None:
    """Show a platform; owners may see their own."""

    async def work(client: "ApiClient") -> Any:
        return await client.get(_path(platform))

    row = ask(common, work)
    if common.as_json:
        print_json({"platform": row})
        return
    say(f"{row['slug']}: {row['name']}, since {short_moment(row['created_at'])}")
    say(f"Clients without credits are sent {row['upgrade_url'] or 'nowhere'}.")
    if row["signup_plan"] is None:
        say("New accounts have no plan.")
        return
    trial = f", with {row['trial_credits']} credits for {row['trial_days']} days"
    given = trial if row["trial_credits"] != "0" else ""
    say(f"New accounts begin on the plan {row['signup_plan']}{given}.")


@command(app, "tollkeeper platforms change acme --upgrade-url https://acme.example/buy")
def change(
    common: Common,
    platform: PlatformArgument,
    name: NameOption = None,
    upgrade_url: UpgradeOption = None,
    signup_plan: SignupOption = None,
    trial_credits: TrialOption = None,
    trial_days: TrialDaysOption = None,
) -> None:
    """Change a platform; that of the config file is changed there."""

    async def work(client: "ApiClient") -> Any:
        body = _told(name, upgrade_url, signup_plan, trial_credits, trial_days)
        if not body:
            raise UsageError("nothing would change: say what, as in --name")
        return await client.patch(_path(platform), body)

    changed = ask(common, work)
    if common.as_json:
        print_json({"platform": changed})
    else:
        say(f"Platform {changed['slug']} is changed.")


def _path(platform: str) -> str:
    return f"{PATH}/{quote(platform, safe='')}"


def _told(
    name: str | None,
    upgrade_url: str | None,
    signup_plan: str | None,
    trial_credits: str | None,
    trial_days: int | None,
) -> dict[str, str | int | None]:
    """What was said; "" says that there is to be none."""
    told = {
        "name": name,
        "upgrade_url": upgrade_url,
        "signup_plan": signup_plan,
        "trial_credits": amount(trial_credits, zero=True) if trial_credits else trial_credits,
        "trial_days": trial_days,
    }
    return {field: value or None for field, value in told.items() if value is not None}


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "created_at": short_moment(row["created_at"])}

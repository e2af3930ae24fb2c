"""`tollkeeper grants`: credits for accounts."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.callers import account_base
from gateway.cli.options import (
    AccountArgument,
    Common,
    ExpiresOption,
    GrantArgument,
    NoteOption,
    command,
    new_app,
)
from gateway.cli.output import Column, print_json, print_rows, say, short_moment
from gateway.cli.run import run
from gateway.cli.typed import amount as amount_
from gateway.cli.typed import expiry, moment
from gateway.operations.errors import UsageError
from policies.units import format_credits, parse_credits

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

OVERAGE = "overage"

app = new_app("Credits for accounts: add, list, adjust, revoke.")

GRANT_COLUMNS = (
    Column("GRANT", "id", figures=True),
    Column("SOURCE", "source"),
    Column("GRANTED", "granted_credits", figures=True),
    Column("CREDITED", "credited_credits", figures=True),
    Column("SETTLED", "settled_credits", figures=True),
    Column("EXPIRED", "expired_credits", figures=True),
    Column("REVOKED", "revoked_credits", figures=True),
    Column("LEFT", "left_credits", figures=True),
    Column("PRIORITY", "priority", figures=True),
    Column("EFFECTIVE", "effective_at"),
    Column("EXPIRES", "expires_at"),
    Column("NOTE", "note"),
)


@command(app, "tollkeeper grants add alice 500 --expires 90d --note 'Goodwill'")
def add(
    common: Common,
    account: AccountArgument,
    amount: Annotated[str, typer.Argument(metavar="CREDITS", help='How many, such as "12.5".')],
    source: Annotated[
        str, typer.Option("--source", help="plan, pack, trial, coupon, manual or rollover.")
    ] = "manual",
    expires: ExpiresOption = "",
    effective: Annotated[
        str, typer.Option("--effective", metavar="WHEN", help="From when on; by default now.")
    ] = "",
    priority: Annotated[int, typer.Option("--priority", help="Lower ones pay first.")] = 0,
    note: NoteOption = "",
) -> None:
    """Give credits to an account. Each call of this command gives again."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        body = {
            "credits": amount_(amount),
            "source": source,
            "effective_at": moment(effective) if effective else None,
            "expires_at": expiry(expires) if expires else None,
            "priority": priority,
            "note": note,
        }
        async with open_api(common) as api:
            return await api.post(f"/v1/accounts/{await api.account_id(account)}/grants", body)

    grant = run(work())
    if common.as_json:
        print_json({"grant": grant})
    else:
        left, paid = grant["left_credits"], grant["revoked_credits"]
        debt = f": {paid} of the {grant['granted_credits']} paid its debt" if paid != "0" else ""
        say(f"Account {account} has {left} credits more (grant {grant['id']}){debt}.")


@command(app, "tollkeeper grants adjust 12 --add 50 --note 'Was late'")
def adjust(
    common: Common,
    grant: GrantArgument,
    add: Annotated[str, typer.Option("--add", metavar="CREDITS", help="To give more.")] = "",
    take: Annotated[str, typer.Option("--take", metavar="CREDITS", help="To take away.")] = "",
    note: NoteOption = "",
) -> None:
    """Add credits to a grant, or take some that are available. Each call does it again."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        if bool(add) == bool(take):
            raise UsageError("say either --add or --take, with how many credits")
        asked = amount_(add) if add else f"-{amount_(take)}"
        async with open_api(common) as api:
            await find_grant(api, grant)
            return await api.post(f"/v1/grants/{grant}/adjust", {"credits": asked, "note": note})

    done = run(work())
    if common.as_json:
        print_json({"adjustment": done})
        return
    came_to = done["credits"]
    if add:
        say(f"Grant {grant} has {came_to} credits more.")
    else:
        say(f"Taken {came_to.removeprefix('-')} credits from grant {grant}.")


@command(app, "tollkeeper grants revoke 12")
def revoke(common: Common, grant: GrantArgument) -> None:
    """End a grant now and take what it has left; calls that hold some of it finish on it."""

    async def work() -> tuple[Any, Any]:
        from gateway.cli.api import open_api

        async with open_api(common) as api:
            before = await find_grant(api, grant)
            return before, await api.post(f"/v1/grants/{grant}/revoke")

    before, revoked = run(work())
    if common.as_json:
        print_json({"grant": revoked})
        return
    taken = parse_credits(revoked["revoked_credits"]) - parse_credits(before["revoked_credits"])
    left = revoked["left_credits"]
    rest = "" if left == "0" else f"; {left} are held by calls, or leave the books soon"
    say(f"Grant {grant} is revoked, with {format_credits(taken)} credits left in it{rest}.")


@command(app, "tollkeeper grants list alice", name="list")
def list_(
    common: Common,
    account: AccountArgument,
) -> None:
    """List an account's grants in the order in which they pay, spent ones too."""

    async def work() -> list[Any]:
        from gateway.cli.api import open_api

        async with open_api(common, redis=False) as api:
            return await api.all(f"{await account_base(api, account)}/grants")

    rows = burn_down(run(work()))
    print_rows(
        "grants",
        GRANT_COLUMNS,
        rows,
        as_json=common.as_json,
        empty="There are no grants yet.",
        shown=grant_row,
    )


async def find_grant(api: "ApiClient", number: int) -> Any:
    """The grant of this number. Raises: UsageError, which says how to find it."""
    found = await api.find(f"/v1/grants/{number}")
    if found is None:
        raise UsageError(
            f'there is no grant {number}: "tollkeeper grants list ACCOUNT" shows their numbers'
        )
    return found


def burn_down(grants: Iterable[Any]) -> list[Any]:
    """Grants in the order in which they pay, overage last."""

    def place(grant: Mapping[str, Any]) -> tuple[object, ...]:
        expires = grant["expires_at"]
        ends = (expires is None, expires or "")
        return (
            grant["source"] == OVERAGE,
            grant["priority"],
            *ends,
            grant["created_at"],
            grant["id"],
        )

    return sorted(grants, key=place)


def grant_row(grant: Mapping[str, Any]) -> dict[str, Any]:
    """A grant as a row of GRANT_COLUMNS.

    A period's overage was not given: of it nothing was granted, and what is left is what is owed,
    below 0.
    """
    row = {
        **grant,
        "effective_at": short_moment(grant["effective_at"]),
        "expires_at": short_moment(grant["expires_at"]),
    }
    if grant["source"] == OVERAGE:
        owed = parse_credits(grant["settled_credits"]) - parse_credits(grant["credited_credits"])
        row |= {
            "granted_credits": "0",
            "expired_credits": "0",
            "revoked_credits": "0",
            "left_credits": format_credits(-owed),
        }
    return row

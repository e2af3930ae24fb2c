"""`tollkeeper grants`: credits for accounts."""

from typing import TYPE_CHECKING, Annotated

import typer

from gateway.cli.accounts import GRANT_COLUMNS, grant_document
from gateway.cli.options import (
    AccountArgument,
    Common,
    ExpiresOption,
    GrantArgument,
    NoteOption,
    command,
    new_app,
)
from gateway.cli.output import print_json, print_rows, say
from gateway.cli.run import run
from gateway.cli.session import open_books, open_desk
from gateway.clock import now_ms
from gateway.operations.amounts import parse_amount
from gateway.operations.errors import UsageError
from gateway.operations.moments import parse_moment_ms
from policies.units import format_credits

if TYPE_CHECKING:
    from gateway.ledger import GrantRow
    from gateway.operations.grants import OwnedGrant

app = new_app("Credits for accounts: add, list, adjust, revoke.")


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

    async def work() -> "GrantRow":
        from gateway.operations.accounts import find_account
        from gateway.operations.grants import add_grant

        microcredits, now = parse_amount(amount), now_ms()
        effective_ms = parse_moment_ms(effective, now) if effective else 0
        expires_ms = parse_moment_ms(expires, now) if expires else 0
        async with open_desk(common.config, common.data_dir) as desk:
            owner = await find_account(desk.ledger, desk.platform_id, account)
            grant_id = await add_grant(
                desk.ledger,
                desk.counters,
                owner,
                microcredits,
                source=source,
                effective_ms=effective_ms,
                expires_ms=expires_ms,
                priority=priority,
                note=note,
            )
            grants = await desk.ledger.grants(owner.account_id)
            return next(grant for grant in grants if grant.grant_id == grant_id)

    grant = run(work())
    if common.as_json:
        print_json({"grant": grant_document(grant)})
    else:
        credits_ = format_credits(grant.amount_microcredits)
        say(f"Account {account} has {credits_} credits more (grant {grant.grant_id}).")


@command(app, "tollkeeper grants adjust 12 --add 50 --note 'Was late'")
def adjust(
    common: Common,
    grant: GrantArgument,
    add: Annotated[str, typer.Option("--add", metavar="CREDITS", help="To give more.")] = "",
    take: Annotated[str, typer.Option("--take", metavar="CREDITS", help="To take away.")] = "",
    note: NoteOption = "",
) -> None:
    """Add credits to a grant, or take some that are available. Each call does it again."""

    async def work() -> "tuple[OwnedGrant, int]":
        from gateway.operations.grants import adjust_grant, find_grant

        if bool(add) == bool(take):
            raise UsageError("say either --add or --take, with how many credits")
        asked = parse_amount(add) if add else -parse_amount(take)
        async with open_desk(common.config, common.data_dir) as desk:
            owned = await find_grant(desk.ledger, desk.platform_id, grant)
            came_to = await adjust_grant(desk.ledger, desk.counters, owned, asked, note)
            return await find_grant(desk.ledger, desk.platform_id, grant), came_to

    owned, came_to = run(work())
    if common.as_json:
        print_json({"grant": grant_document(owned.grant), "adjusted": format_credits(came_to)})
    elif came_to > 0:
        say(f"Grant {grant} of {owned.account.name} has {format_credits(came_to)} credits more.")
    else:
        say(f"Taken {format_credits(-came_to)} credits from grant {grant} of {owned.account.name}.")


@command(app, "tollkeeper grants revoke 12")
def revoke(common: Common, grant: GrantArgument) -> None:
    """End a grant now and take what it has left; calls that hold some of it finish on it."""

    async def work() -> "tuple[OwnedGrant, int | None]":
        from gateway.operations.grants import find_grant, revoke_grant

        async with open_desk(common.config, common.data_dir) as desk:
            owned = await find_grant(desk.ledger, desk.platform_id, grant)
            taken = await revoke_grant(desk.ledger, desk.counters, owned)
            return await find_grant(desk.ledger, desk.platform_id, grant), taken

    owned, taken = run(work())
    if common.as_json:
        amount = None if taken is None else format_credits(taken)
        print_json({"grant": grant_document(owned.grant), "revoked": amount})
    elif taken is None:
        say(f"Grant {grant} of {owned.account.name} is revoked; its rest leaves the books soon.")
    else:
        amount = format_credits(taken)
        say(f"Grant {grant} of {owned.account.name} is revoked, with {amount} credits left in it.")


@command(app, "tollkeeper grants list alice", name="list")
def list_(
    common: Common,
    account: AccountArgument,
) -> None:
    """List an account's grants in the order in which they pay, spent ones too."""

    async def work() -> "list[GrantRow]":
        from gateway.operations.accounts import find_account

        async with open_books(common.config, common.data_dir) as books:
            owner = await find_account(books.ledger, books.platform_id, account)
            return await books.ledger.grants(owner.account_id)

    rows = [grant_document(grant) for grant in run(work())]
    print_rows(
        "grants", GRANT_COLUMNS, rows, as_json=common.as_json, empty="There are no grants yet."
    )

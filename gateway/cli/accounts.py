"""`tollkeeper accounts`: customers of the platform."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.keys import COLUMNS as KEY_COLUMNS
from gateway.cli.keys import key_document, new_key_document, print_new_key
from gateway.cli.options import AccountArgument, Common, command, new_app
from gateway.cli.output import Column, print_json, print_rows, print_table, say
from gateway.cli.run import run
from gateway.cli.session import open_books, open_desk, read_key_maker
from gateway.operations.amounts import parse_amount_or_zero, parse_discount
from gateway.operations.moments import format_moment
from policies.units import format_credits, format_percent

if TYPE_CHECKING:
    from gateway.ledger import AccountRow, GrantRow
    from gateway.ledger.desk import BalanceRow
    from gateway.operations.accounts import AccountReport, NewAccount
    from gateway.operations.keys import NewKey

# Instead of a percentage: the account has its plan's.
PLANS_DISCOUNT = "plan"

app = new_app("Customers: create, list, show, set-plan, set-discount, suspend, resume, sync.")

COLUMNS = (
    Column("ACCOUNT", "name"),
    Column("PLAN", "plan"),
    Column("STATUS", "status"),
    Column("GRANTED", "granted", figures=True),
    Column("SETTLED", "settled", figures=True),
    Column("LEFT", "left", figures=True),
    Column("CREATED", "created_at"),
)
GRANT_COLUMNS = (
    Column("GRANT", "id", figures=True),
    Column("SOURCE", "source"),
    Column("GRANTED", "granted", figures=True),
    Column("CREDITED", "credited", figures=True),
    Column("SETTLED", "settled", figures=True),
    Column("EXPIRED", "expired", figures=True),
    Column("REVOKED", "revoked", figures=True),
    Column("LEFT", "left", figures=True),
    Column("PRIORITY", "priority", figures=True),
    Column("EFFECTIVE", "effective_at"),
    Column("EXPIRES", "expires_at"),
    Column("NOTE", "note"),
)


@command(app, "tollkeeper accounts create alice --plan free --credits 50 --key")
def create(
    common: Common,
    name: AccountArgument,
    plan: Annotated[str, typer.Option("--plan", help="The plan whose limits apply.")] = "",
    amount: Annotated[
        str,
        typer.Option("--credits", metavar="N", help="To begin with; without it, the plan's."),
    ] = "",
    key: Annotated[bool, typer.Option("--key", help="Create a key too, and print it.")] = False,
) -> None:
    """Create an account."""

    async def work() -> "tuple[NewAccount, NewKey | None]":
        from gateway.operations.accounts import create_account
        from gateway.operations.keys import create_key

        microcredits = parse_amount_or_zero(amount) if amount else None
        async with open_desk(common.config, common.data_dir) as desk:
            maker = read_key_maker(desk.config, common.data_dir) if key else None
            made = await create_account(
                desk.ledger, desk.platform_id, name, plan=plan or None, microcredits=microcredits
            )
            if maker is None:
                return made, None
            return made, await create_key(desk.ledger, desk.counters, made.account, maker)

    made, new_key = run(work())
    granted = format_credits(made.granted_microcredits)
    if common.as_json:
        document = {"account": _account_document(made.account) | {"granted": granted}}
        print_json(document | ({"key": new_key_document(new_key)} if new_key else {}))
        return
    say(f"Account {made.account.name} is ready, with {granted} credits.")
    if new_key:
        print_new_key(new_key, as_json=False)


@command(app, "tollkeeper accounts list --json", name="list")
def list_(common: Common) -> None:
    """List accounts with their credits as Postgres has them, a moment behind."""

    async def work() -> "tuple[list[AccountRow], dict[int, BalanceRow]]":
        async with open_books(common.config, common.data_dir) as books:
            return (
                await books.ledger.accounts(books.platform_id),
                await books.ledger.balances(books.platform_id),
            )

    accounts, balances = run(work())
    rows = [
        _account_document(account) | _balance_document(balances[account.account_id])
        for account in accounts
        if account.account_id in balances
    ]
    print_rows(
        "accounts", COLUMNS, rows, as_json=common.as_json, empty="There are no accounts yet."
    )


@command(app, "tollkeeper accounts show alice")
def show(
    common: Common,
    name: AccountArgument,
) -> None:
    """Show an account, its grants and keys, and what it has at this moment."""

    async def work() -> "AccountReport":
        from gateway.operations.accounts import show_account

        async with open_desk(common.config, common.data_dir) as desk:
            return await show_account(desk.ledger, desk.counters, desk.platform_id, name)

    report = run(work())
    account = _account_document(report.account)
    grants = [grant_document(grant) for grant in report.grants]
    keys = [key_document(key) for key in report.keys]
    live = _live_document(report)
    if common.as_json:
        print_json({"account": account, "live": live, "grants": grants, "keys": keys})
        return
    plan = account["plan"] or "no plan"
    say(f"{account['name']}: {account['status']}, {plan}, since {account['created_at']}")
    if account["discount"] != "0":
        say(f"Discount {account['discount']}%, of its {account['discount_of']}.")
    if live is None:
        say("Redis has not needed this account yet: no call was made.\n")
    else:
        say(f"Now {_now_text(live)}, {live['held']} held by {live['running']} running calls.\n")
    if grants:
        print_table(GRANT_COLUMNS, grants)
        say("")
    if keys:
        print_table(KEY_COLUMNS, keys)


@command(app, "tollkeeper accounts set-plan alice pro", name="set-plan")
def set_plan(
    common: Common,
    name: AccountArgument,
    plan: Annotated[str, typer.Argument(metavar="PLAN", help='As in "plans list".')],
) -> None:
    """Put an account on a plan: a new period with its credits, and its limits from now on.

    What the account had before stays until it ends. An account that is on the plan keeps its
    period.
    """

    async def work() -> "AccountRow":
        from gateway.operations.accounts import find_account
        from gateway.operations.accounts import set_plan as put_on_plan

        async with open_desk(common.config, common.data_dir) as desk:
            account = await find_account(desk.ledger, desk.platform_id, name)
            return await put_on_plan(desk.ledger, desk.counters, account, plan)

    account = run(work())
    if common.as_json:
        print_json({"account": _account_document(account)})
    else:
        say(f"Account {account.name} is on plan {account.plan_slug}.")


@command(app, "tollkeeper accounts set-discount alice 15", name="set-discount")
def set_discount(
    common: Common,
    name: AccountArgument,
    percent: Annotated[
        str,
        typer.Argument(metavar="PERCENT", help='Such as 15, or 0; "plan": what the plan says.'),
    ],
) -> None:
    """Take a part off every price for an account, from its next call on; those running go on."""

    async def work() -> "AccountRow":
        from gateway.operations.accounts import find_account
        from gateway.operations.accounts import set_discount as give_discount

        basis_points = None if percent == PLANS_DISCOUNT else parse_discount(percent)
        async with open_desk(common.config, common.data_dir) as desk:
            account = await find_account(desk.ledger, desk.platform_id, name)
            return await give_discount(desk.ledger, desk.counters, account, basis_points)

    account = run(work())
    if common.as_json:
        print_json({"account": _account_document(account)})
        return
    document = _account_document(account)
    whose = "its plan's" if document["discount_of"] == "plan" else "its own"
    say(f"Account {account.name} has a discount of {document['discount']}%, {whose}.")


@command(app, "tollkeeper accounts suspend alice")
def suspend(
    common: Common,
    name: AccountArgument,
) -> None:
    """Refuse an account's calls from now on; those running end as usual."""
    _set_status(common, name, "suspended")


@command(app, "tollkeeper accounts resume alice")
def resume(
    common: Common,
    name: AccountArgument,
) -> None:
    """Let a suspended account call again."""
    _set_status(common, name, "active")


@command(app, "tollkeeper accounts sync alice")
def sync(
    common: Common,
    name: AccountArgument,
) -> None:
    """Tell Redis what Postgres says of an account, after a command that could not."""

    async def work() -> "AccountRow":
        from gateway.operations.accounts import find_account
        from gateway.operations.publish import publish_account

        async with open_desk(common.config, common.data_dir) as desk:
            account = await find_account(desk.ledger, desk.platform_id, name)
            await publish_account(desk.ledger, desk.counters, account.account_id, name)
            return account

    account = run(work())
    if common.as_json:
        print_json({"account": _account_document(account)})
    else:
        say(f"Redis follows Postgres for account {account.name}.")


def grant_document(grant: "GrantRow") -> dict[str, Any]:
    """A grant as lists show it; amounts are Postgres', a moment behind.

    A period's overage was not given: `granted` is 0, `overage_cap` how much it may become, and
    `left` what is owed, below 0.
    """
    overage = grant.source == "overage"
    given = 0 if overage else grant.amount_microcredits
    withdrawn = 0 if overage else grant.expired_microcredits + grant.revoked_microcredits
    left = given + grant.credited_microcredits - grant.settled_microcredits - withdrawn
    return {
        "id": grant.grant_id,
        "source": grant.source,
        "granted": format_credits(given),
        "overage_cap": format_credits(grant.amount_microcredits) if overage else None,
        "credited": format_credits(grant.credited_microcredits),
        "settled": format_credits(grant.settled_microcredits),
        "expired": format_credits(grant.expired_microcredits),
        "revoked": format_credits(grant.revoked_microcredits),
        "left": format_credits(left),
        "priority": grant.priority,
        "effective_at": format_moment(grant.effective_ms),
        "expires_at": format_moment(grant.expires_ms) or None,
        "revoked_at": format_moment(grant.revoked_ms) or None,
        "created_at": format_moment(grant.created_ms),
        "note": grant.note,
    }


def _set_status(common: Common, name: str, status: str) -> None:
    async def work() -> "AccountRow":
        from gateway.operations.accounts import find_account, set_status

        async with open_desk(common.config, common.data_dir) as desk:
            account = await find_account(desk.ledger, desk.platform_id, name)
            await set_status(desk.ledger, desk.counters, account, status)
            return account._replace(status=status)

    account = run(work())
    if common.as_json:
        print_json({"account": _account_document(account)})
    else:
        say(f"Account {account.name} is {account.status}.")


def _account_document(account: "AccountRow") -> dict[str, Any]:
    discount = account.discount_basis_points
    return {
        "id": account.account_id,
        "name": account.name,
        "plan": account.plan_slug,
        "status": account.status,
        "discount": format_percent(
            account.plan_discount_basis_points if discount is None else discount
        ),
        "discount_of": "plan" if discount is None else "account",
        "created_at": format_moment(account.created_ms),
    }


def _balance_document(balance: "BalanceRow") -> dict[str, Any]:
    return {
        "granted": format_credits(balance.granted_microcredits),
        "settled": format_credits(balance.settled_microcredits),
        "left": format_credits(balance.left_microcredits),
    }


def _now_text(live: Mapping[str, Any]) -> str:
    available = str(live["available"])
    owed = available.removeprefix("-")
    return f"{owed} credits owed" if owed != available else f"{available} credits available"


def _live_document(report: "AccountReport") -> dict[str, Any] | None:
    if report.live is None:
        return None
    return {
        "available": format_credits(report.live.available_microcredits),
        "held": format_credits(report.live.held_microcredits),
        "settled": format_credits(report.live.settled_microcredits),
        "running": report.live.running,
    }

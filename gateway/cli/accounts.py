"""`tollkeeper accounts`: customers of the platform."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli import keys
from gateway.cli.callers import OWN, account_base, lists_of
from gateway.cli.grants import GRANT_COLUMNS, burn_down, grant_row
from gateway.cli.options import AccountArgument, Common, PlanArgument, command, new_app
from gateway.cli.output import Column, print_json, print_rows, print_table, say, short_moment
from gateway.cli.run import run
from gateway.cli.standing import say_debt
from gateway.cli.typed import amount
from gateway.operations.errors import OperationError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient
    from gateway.ledger import AccountRow

# Instead of a percentage: the account has its plan's.
PLANS_DISCOUNT = "plan"
# Of an account's keys; "keys list" shows the others.
KEYS_SHOWN_MAX = 50

app = new_app(
    "Customers: create, list, show, rename, set-plan, set-discount, suspend, resume, sync."
)

COLUMNS = (
    Column("ACCOUNT", "name"),
    Column("PLAN", "plan"),
    Column("STATUS", "status"),
    Column("DISCOUNT %", "discount_percent", figures=True),
    Column("CREATED", "created_at"),
)


@command(app, "tollkeeper accounts create alice --plan free --credits 50 --key")
def create(
    common: Common,
    name: AccountArgument,
    plan: Annotated[str, typer.Option("--plan", help="By default that of new accounts.")] = "",
    credits_: Annotated[
        str,
        typer.Option("--credits", metavar="N", help="To begin with; without it, the plan's."),
    ] = "",
    key: Annotated[bool, typer.Option("--key", help="Create a key too, and print it.")] = False,
) -> None:
    """Create an account."""

    async def work() -> tuple[Any, Any, Any]:
        from gateway.cli.api import open_api

        told = {"credits": amount(credits_, zero=True)} if credits_ else {}
        body = {"name": name} | told | ({"plan": plan} if plan else {})
        async with open_api(common, pepper=key) as api:
            account = await api.post("/v1/accounts", body)
            balance = await api.get(f"/v1/accounts/{account['id']}/balance")
            return account, balance, await _first_key(api, account) if key else None

    account, balance, new_key = run(work())
    if common.as_json:
        print_json({"account": account} | ({"key": new_key} if new_key else {}))
        return
    say(f"Account {account['name']} is ready, with {balance['available_credits']} credits.")
    if new_key:
        keys.print_new_key(new_key, as_json=False)


@command(app, "tollkeeper accounts list --plan free --json", name="list")
def list_(
    common: Common,
    plan: Annotated[str, typer.Option("--plan", help="Only those on this plan.")] = "",
    status: Annotated[str, typer.Option("--status", help="active or suspended.")] = "",
    name: Annotated[str, typer.Option("--name", help="How their names begin.")] = "",
) -> None:
    """List accounts, oldest first. What one has left, "accounts show" tells."""

    async def work() -> list[Any]:
        from gateway.cli.api import open_api

        async with open_api(common, redis=False) as api:
            return await api.all(
                "/v1/accounts", plan=plan or None, status=status or None, name=name or None
            )

    rows = run(work())
    empty = (
        "There are no such accounts." if plan or status or name else "There are no accounts yet."
    )
    print_rows("accounts", COLUMNS, rows, as_json=common.as_json, empty=empty, shown=_row)


@command(app, "tollkeeper accounts show alice")
def show(
    common: Common,
    name: AccountArgument,
) -> None:
    """Show an account, its grants and keys, and what it has at this moment."""

    async def work() -> dict[str, Any]:
        from gateway.cli.api import open_api

        async with open_api(common) as api:
            base = await account_base(api, name)
            lists, chosen = lists_of(base)
            account = (await api.get(OWN))["account"] if base == OWN else await api.get(base)
            return {
                "account": account,
                "balance": await api.get(f"{base}/balance"),
                "grants": burn_down(await api.all(f"{base}/grants")),
                "keys": await api.all(f"{lists}/keys", limit=KEYS_SHOWN_MAX, kind="key", **chosen),
                "plan": await _plan(api, account),
            }

    found = run(work())
    plan = found.pop("plan")
    if common.as_json:
        print_json(found)
        return
    account, balance = found["account"], found["balance"]
    since = short_moment(account["created_at"])
    say(f"{account['name']}: {account['status']}, {account['plan'] or 'no plan'}, since {since}")
    if account["payment_suspended"]:
        say("Its calls are refused until its subscription is paid for.")
    percent, whose = _discount(account, plan)
    if percent != "0":
        say(f"Discount {percent}%, {whose}.")
    say_debt(account)
    say(_now_text(balance) + "\n")
    if found["grants"]:
        print_table(GRANT_COLUMNS, list(map(grant_row, found["grants"])))
        say("")
    if found["keys"]:
        print_table(keys.COLUMNS, list(map(keys.key_row, found["keys"])))


@command(app, "tollkeeper accounts set-plan alice pro", name="set-plan")
def set_plan(
    common: Common,
    name: AccountArgument,
    plan: PlanArgument,
) -> None:
    """Put an account on a plan: a new period with its credits, and its limits from now on.

    What the account had before stays until it ends. An account that is on the plan keeps its
    period.
    """
    account = run(_changed(common, name, {"plan": plan}))
    _print(common, account, f"Account {account['name']} is on plan {account['plan']}.")


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

    async def work() -> tuple[Any, Any]:
        from gateway.cli.api import open_api
        from gateway.operations.amounts import parse_discount
        from policies.units import format_percent

        told = None if percent == PLANS_DISCOUNT else format_percent(parse_discount(percent))
        async with open_api(common) as api:
            account_id = await api.account_id(name)
            change = {"discount_percent": told}
            account = await api.patch(f"/v1/accounts/{account_id}", change)
            return account, await _plan(api, account)

    account, plan = run(work())
    text, whose = _discount(account, plan)
    whose = "its plan's" if whose == "of its plan" else "its own"
    _print(common, account, f"Account {account['name']} has a discount of {text}%, {whose}.")


@command(app, "tollkeeper accounts rename alice alice-and-sons")
def rename(
    common: Common,
    name: AccountArgument,
    new_name: Annotated[str, typer.Argument(metavar="NEW_NAME", help="What it is called then.")],
) -> None:
    """Call an account something else. Its keys, credits and calls stay its own."""
    account = run(_changed(common, name, {"name": new_name}))
    _print(common, account, f"Account {name} is called {account['name']} now.")


@command(app, "tollkeeper accounts suspend alice")
def suspend(
    common: Common,
    name: AccountArgument,
) -> None:
    """Refuse an account's calls from now on; those running end as usual."""
    account = run(_changed(common, name, {"status": "suspended"}))
    _print(common, account, f"Account {account['name']} is suspended.")


@command(app, "tollkeeper accounts resume alice")
def resume(
    common: Common,
    name: AccountArgument,
) -> None:
    """Let a suspended account call again."""
    account = run(_changed(common, name, {"status": "active"}))
    _print(common, account, f"Account {account['name']} is active.")


@command(app, "tollkeeper accounts sync alice")
def sync(
    common: Common,
    name: AccountArgument,
) -> None:
    """Tell Redis what Postgres says of an account, after a command that could not.

    Works on this folder's config, also while you are logged in elsewhere.
    """

    async def work() -> "AccountRow":
        from gateway.cli.session import open_desk
        from gateway.operations.accounts import find_account
        from gateway.operations.publish import publish_account

        async with open_desk(common.config, common.data_dir) as desk:
            account = await find_account(desk.ledger, desk.platform_id, name)
            await publish_account(desk.ledger, desk.counters, account.account_id, name)
            return account

    account = run(work())
    if common.as_json:
        print_json({"account": {"id": account.account_id, "name": account.name}})
    else:
        say(f"Redis follows Postgres for account {account.name}.")


async def _changed(common: Common, name: str, change: Mapping[str, Any]) -> Any:
    """An account after a change."""
    from gateway.cli.api import open_api

    async with open_api(common) as api:
        return await api.patch(f"/v1/accounts/{await api.account_id(name)}", change)


async def _plan(api: "ApiClient", account: Mapping[str, Any]) -> Any:
    """The account's plan; None if it has none."""
    slug = account["plan"]
    return None if slug is None else await api.get(f"/v1/plans/{slug}")


async def _first_key(api: "ApiClient", account: Mapping[str, Any]) -> Any:
    try:
        return await api.post(f"/v1/accounts/{account['id']}/keys", {})
    except OperationError as error:
        name = account["name"]
        raise OperationError(
            f'account {name} is there, but its key could not be made: {error}; run "tollkeeper '
            f'keys create {name}"'
        ) from None


def _print(common: Common, account: Mapping[str, Any], text: str) -> None:
    if common.as_json:
        print_json({"account": account})
    else:
        say(text)


def _row(account: Mapping[str, Any]) -> dict[str, Any]:
    discount = account["discount_percent"]
    return {
        **account,
        "discount_percent": PLANS_DISCOUNT if discount is None and account["plan"] else discount,
        "created_at": short_moment(account["created_at"]),
    }


def _discount(account: Mapping[str, Any], plan: Mapping[str, Any] | None) -> tuple[str, str]:
    """Percent off every price, and whose word it is."""
    own = account["discount_percent"]
    if own is not None:
        return own, "of its own"
    return (plan and plan["discount"]) or "0", "of its plan"


def _now_text(balance: Mapping[str, Any]) -> str:
    available, held = str(balance["available_credits"]), balance["held_credits"]
    used = available.removeprefix("-")
    text = f"{available} credits available"
    if used != available:
        text = f"{used} credits below zero by overage"
    if balance["live"]:
        return f"Now {text}, {held} held by running calls."
    return f"By the books {text}: Redis has not needed this account yet, no call was made."

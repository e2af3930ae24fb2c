"""`tollkeeper keys`: the secrets with which accounts call."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.bounds import bounds_text, caps_document, limits_document
from gateway.cli.options import (
    AccountArgument,
    Bounds,
    Common,
    ExpiresOption,
    KeyArgument,
    OneAccountArgument,
    command,
    new_app,
)
from gateway.cli.output import Column, print_json, print_rows, say
from gateway.cli.run import run
from gateway.cli.session import open_books, open_desk, read_key_maker
from gateway.clock import now_ms
from gateway.operations.errors import UsageError
from gateway.operations.moments import format_moment, parse_moment_ms
from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from gateway.ledger import KeyListRow
    from gateway.operations.keys import NewKey

app = new_app("API keys: create, list, limit, revoke, rotate.")

COLUMNS = (
    Column("KEY", "id", figures=True),
    Column("ACCOUNT", "account"),
    Column("NAME", "name"),
    Column("SECRET", "shown"),
    Column("STATUS", "status"),
    Column("LIMITED", "limited"),
    Column("EXPIRES", "expires_at"),
    Column("CREATED", "created_at"),
)


@command(app, "tollkeeper keys create alice --name ci --expires 90d --rps 5 --cap-day 20")
def create(
    common: Common,
    bounds: Bounds,
    account: AccountArgument,
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "default",
    expires: ExpiresOption = "",
) -> None:
    """Create a key for an account and print it, once."""

    async def work() -> "NewKey":
        from gateway.operations.accounts import find_account
        from gateway.operations.bounds import change_bounds
        from gateway.operations.keys import create_key

        limits, caps = change_bounds(Limits(), Caps(), bounds.changes())
        expires_ms = parse_moment_ms(expires, now_ms()) if expires else 0
        async with open_desk(common.config, common.data_dir) as desk:
            maker = read_key_maker(desk.config, common.data_dir)
            owner = await find_account(desk.ledger, desk.platform_id, account)
            return await create_key(
                desk.ledger,
                desk.counters,
                owner,
                maker,
                name=name,
                expires_ms=expires_ms,
                limits=limits,
                caps=caps,
            )

    print_new_key(run(work()), as_json=common.as_json)


@command(app, "tollkeeper keys limit 12 --rps 5 --cap-day 20 --cap-total 0")
def limit(common: Common, bounds: Bounds, key: KeyArgument) -> None:
    """Change limits and caps of a key, from its very next call; 0 takes one away."""

    async def work() -> "KeyListRow":
        from gateway.operations.keys import find_key, limit_key

        changes = bounds.changes()
        if all(value is None for value in changes.values()):
            raise UsageError("nothing would change: say which limit or cap, as in --rps 5")
        async with open_desk(common.config, common.data_dir) as desk:
            found = await find_key(desk.ledger, desk.platform_id, key)
            return await limit_key(desk.ledger, desk.counters, desk.platform_id, found, changes)

    changed = key_document(run(work()))
    if common.as_json:
        print_json({"key": changed})
    else:
        limited = changed["limited"] or "no limits of its own"
        say(f"Key {changed['id']} of {changed['account']} has {limited}.")


@command(app, "tollkeeper keys list alice", name="list")
def list_(
    common: Common,
    account: OneAccountArgument = "",
) -> None:
    """List keys by what recognises them; their secrets are not known to anybody."""

    async def work() -> "list[KeyListRow]":
        from gateway.operations.accounts import find_account

        async with open_books(common.config, common.data_dir) as books:
            owner = None
            if account:
                found = await find_account(books.ledger, books.platform_id, account)
                owner = found.account_id
            return await books.ledger.keys(books.platform_id, owner)

    rows = [key_document(key) for key in run(work())]
    print_rows("keys", COLUMNS, rows, as_json=common.as_json, empty="There are no keys yet.")


@command(app, "tollkeeper keys revoke 12")
def revoke(
    common: Common,
    key: KeyArgument,
) -> None:
    """End a key for ever: its very next call is refused."""

    async def work() -> "KeyListRow":
        from gateway.operations.keys import find_key, revoke_key

        async with open_desk(common.config, common.data_dir) as desk:
            found = await find_key(desk.ledger, desk.platform_id, key)
            await revoke_key(desk.ledger, desk.counters, desk.platform_id, found)
            return found

    found = run(work())
    if common.as_json:
        print_json({"key": key_document(found) | {"status": "revoked"}})
    else:
        say(f"Key {found.key_id} of {found.account_name} is revoked.")


@command(app, "tollkeeper keys rotate 12 --overlap 24h")
def rotate(
    common: Common,
    key: KeyArgument,
    overlap: Annotated[
        str,
        typer.Option("--overlap", metavar="TIME", help='How long the old key still works: "24h".'),
    ] = "",
) -> None:
    """Create a key in place of another, which is revoked at once or after an overlap."""

    async def work() -> "NewKey":
        from gateway.operations.accounts import find_account
        from gateway.operations.keys import find_key, rotate_key

        old_expires_ms = parse_moment_ms(overlap, now_ms()) if overlap else 0
        async with open_desk(common.config, common.data_dir) as desk:
            maker = read_key_maker(desk.config, common.data_dir)
            old = await find_key(desk.ledger, desk.platform_id, key)
            owner = await find_account(desk.ledger, desk.platform_id, old.account_name)
            return await rotate_key(
                desk.ledger, desk.counters, owner, old, maker, old_expires_ms=old_expires_ms
            )

    print_new_key(run(work()), as_json=common.as_json)


def print_new_key(new: "NewKey", *, as_json: bool) -> None:
    """The one time that a key is shown."""
    if as_json:
        print_json({"key": new_key_document(new)})
        return
    say(f"Key {new.key_id} of {new.account_name}. Keep it now, it is not shown again:\n")
    say(f"  {new.text}")


def new_key_document(new: "NewKey") -> dict[str, Any]:
    """A key just made, as JSON has it: the only document with a secret."""
    return {
        "id": new.key_id,
        "account": new.account_name,
        "name": new.name,
        "api_key": new.text,
        "expires_at": format_moment(new.expires_ms) or None,
    }


def key_document(key: "KeyListRow") -> dict[str, Any]:
    """A key as lists show it."""
    status = "expired" if 0 < key.expires_ms <= now_ms() else key.status
    return {
        "id": key.key_id,
        "account": key.account_name,
        "name": key.name,
        "shown": f"{key.prefix}…{key.last4}",
        "status": key.status if key.status == "revoked" else status,
        "expires_at": format_moment(key.expires_ms) or None,
        "created_at": format_moment(key.created_ms),
        "revoked_at": format_moment(key.revoked_ms) or None,
        "limited": bounds_text(key.limits, key.caps),
        "limits": limits_document(key.limits),
        "caps": caps_document(key.caps),
    }

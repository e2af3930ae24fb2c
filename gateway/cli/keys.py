"""`tollkeeper keys`: the secrets with which accounts call."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.bounds import bounds_text
from gateway.cli.callers import account_base, find_base, find_lists
from gateway.cli.options import (
    AccountArgument,
    Bounds,
    Common,
    KeyArgument,
    OneAccountArgument,
    command,
    new_app,
)
from gateway.cli.output import Column, print_json, print_rows, say, short_moment
from gateway.cli.run import run
from gateway.cli.typed import expiry, metadata, seconds
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

# A longer reference may be a mistyped key, which is nearly a key: it is not repeated.
PREFIX_CHARACTERS_MAX = 12
NUMBER_DIGITS_MAX = 15

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

ExpiresOption = Annotated[
    str, typer.Option("--expires", metavar="WHEN", help='As in "30d", "2026-12-31", or "never".')
]
RouteOption = Annotated[
    list[str] | None,
    typer.Option("--route", metavar="ROUTE", help="Only this route; give several for more."),
]
AddressOption = Annotated[
    list[str] | None,
    typer.Option(
        "--address", metavar="NETWORK", help='Only from here, as in "10.0.0.0/8"; or several.'
    ),
]
MetadataOption = Annotated[
    list[str] | None,
    typer.Option("--metadata", metavar="NAME=VALUE", help="A note of yours about it; or several."),
]


@command(app, "tollkeeper keys create alice --name ci --expires 90d --rps 5 --cap-day 20")
def create(
    common: Common,
    bounds: Bounds,
    account: AccountArgument,
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "default",
    expires: ExpiresOption = "",
    route: RouteOption = None,
    address: AddressOption = None,
    note: MetadataOption = None,
) -> None:
    """Create a key for an account and print it, once."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        body: dict[str, Any] = {"name": name, **bounds.document()}
        body |= {"routes": route or [], "addresses": address or []}
        body |= {"metadata": metadata(note or (), {})}
        body |= {"expires_at": expiry(expires)} if expires else {}
        async with open_api(common, pepper=True) as api:
            return await api.post(f"{await account_base(api, account)}/keys", body)

    print_new_key(run(work()), as_json=common.as_json)


@command(app, "tollkeeper keys limit 12 --rps 5 --cap-day 20 --cap-total 0 --route chat")
def limit(
    common: Common,
    bounds: Bounds,
    key: KeyArgument,
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "",
    expires: ExpiresOption = "",
    route: RouteOption = None,
    all_routes: Annotated[bool, typer.Option("--all-routes", help="Every route again.")] = False,
    address: AddressOption = None,
    all_addresses: Annotated[
        bool, typer.Option("--all-addresses", help="From everywhere again.")
    ] = False,
    note: MetadataOption = None,
) -> None:
    """Change what a key may do, from its very next call; 0 takes a limit or a cap away."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        body: dict[str, Any] = {**bounds.document()}
        body |= {"name": name} if name else {}
        body |= {"expires_at": expiry(expires)} if expires else {}
        body |= {"routes": route or []} if route or all_routes else {}
        body |= {"addresses": address or []} if address or all_addresses else {}
        if not body and not note:
            raise UsageError("nothing would change: say which limit or cap, as in --rps 5")
        async with open_api(common) as api:
            path, etag = await key_path(api, key), None
            if note:  # they are told as a whole: only what was seen is replaced
                seen = await api.ask("GET", path)
                body["metadata"] = metadata(note, seen.document["metadata"])
                etag = seen.etag
            return await api.patch(path, body, etag=etag)

    changed = run(work())
    if common.as_json:
        print_json({"key": changed})
    else:
        limited = key_row(changed)["limited"] or "no limits of its own"
        say(f"Key {changed['id']} of {changed['account']} has {limited}.")


@command(app, "tollkeeper keys list alice", name="list")
def list_(
    common: Common,
    account: OneAccountArgument = "",
    status: Annotated[str, typer.Option("--status", help="active, expired or revoked.")] = "",
    kind: Annotated[str, typer.Option("--kind", help="key, delegated or issuer.")] = "",
) -> None:
    """List keys by what recognises them; their secrets are not known to anybody."""

    async def work() -> list[Any]:
        from gateway.cli.api import open_api

        async with open_api(common, redis=False) as api:
            base, chosen = await find_lists(api, account)
            return await api.all(f"{base}/keys", **chosen, status=status or None, kind=kind or None)

    rows = run(work())
    empty = "There are no such keys." if account or status or kind else "There are no keys yet."
    print_rows("keys", COLUMNS, rows, as_json=common.as_json, empty=empty, shown=key_row)


@command(app, "tollkeeper keys revoke 12")
def revoke(
    common: Common,
    key: KeyArgument,
) -> None:
    """End a key for ever, with all that was delegated from it: its very next call is refused."""

    async def work() -> Any:
        from gateway.cli.api import open_api

        async with open_api(common) as api:
            return await api.post(f"{await key_path(api, key)}/revoke")

    revoked = run(work())
    if common.as_json:
        print_json({"key": revoked})
    else:
        say(f"Key {revoked['id']} of {revoked['account']} is revoked.")


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

    async def work() -> Any:
        from gateway.cli.api import open_api

        body = {"overlap_s": seconds(overlap)} if overlap else {}
        async with open_api(common, pepper=True) as api:
            return await api.post(f"{await key_path(api, key)}/rotate", body)

    print_new_key(run(work()), as_json=common.as_json)


async def key_path(api: "ApiClient", reference: str) -> str:
    """Where a key is; as `find_key`."""
    base = await find_base(api)
    return f"{base}/keys/{(await find_key(api, reference, base))['id']}"


async def find_key(api: "ApiClient", reference: str, base: str) -> Any:
    """The key that a person means: by its number, its prefix, or its whole text (then never shown).

    Raises: UsageError when there is no such key on the platform, or more than one.
    """
    from policies.apikeys import display, well_formed

    shown, last4 = reference if len(reference) <= PREFIX_CHARACTERS_MAX else "tk_…", None
    if reference.isascii() and reference.isdecimal() and len(reference) <= NUMBER_DIGITS_MAX:
        numbered = await api.find(f"{base}/keys/{int(reference)}")
        found = [] if numbered is None else [numbered]
    else:
        prefix = reference
        if well_formed(reference):
            prefix, last4 = display(reference)
            shown = f"{prefix}…{last4}"
        known = len(prefix) <= PREFIX_CHARACTERS_MAX
        alike = await api.all(f"{base}/keys", prefix=prefix) if known else []
        found = [key for key in alike if last4 in {None, key["last4"]}]
    if not found:
        raise UsageError(f'there is no key "{shown}": "tollkeeper keys list" shows their numbers')
    if len(found) > 1:
        numbers = ", ".join(str(key["id"]) for key in found)
        raise UsageError(f'"{shown}" is more than one key: say which by its number ({numbers})')
    return found[0]


def print_new_key(new: Mapping[str, Any], *, as_json: bool) -> None:
    """The one time that a key is shown."""
    if as_json:
        print_json({"key": new})
        return
    say(f"Key {new['id']} of {new['account']}. Keep it now, it is not shown again:\n")
    say(f"  {new['secret']}")


def key_row(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key as a row of COLUMNS."""
    budget = key["budget_credits"]
    limited = [
        bounds_text(key["limits"], key["caps"]),
        "" if budget is None else f"{budget} credits of key {key['parent_key_id']}",
        f"only {'|'.join(key['routes'])}" if key["routes"] else "",
        f"from {'|'.join(key['addresses'])}" if key["addresses"] else "",
    ]
    return {
        **key,
        "shown": f"{key['prefix']}…{key['last4']}",
        "limited": ", ".join(filter(None, limited)),
        "expires_at": short_moment(key["expires_at"]),
        "created_at": short_moment(key["created_at"]),
    }

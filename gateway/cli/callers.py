"""Asking the API, and who asks: of a platform, or of an account with things of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from gateway.cli.run import run
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from gateway.cli.api import ApiClient
    from gateway.cli.options import Common

T = TypeVar("T")

# Where things of the caller's own account are, and those of a whole platform.
OWN, PLATFORM = "/v1/me", "/v1"
ACCOUNT_ROLES = frozenset({"admin", "member"})
SHOW_A_KEY = (
    "this is about one account: show a key of it in TOLLKEEPER_TOKEN, "
    'or "tollkeeper login" with that key, or as an admin of the account'
)


def ask(common: Common, work: Callable[[ApiClient], Awaitable[T]]) -> T:
    """A command's whole work: its failures end the process."""

    async def asking() -> T:
        from gateway.cli.api import open_api

        async with open_api(common) as client:
            return await work(client)

    return run(asking())


async def who_asks(client: ApiClient) -> Any:
    """The document of /v1/me."""
    return await client.get("/v1/me")


async def find_base(client: ApiClient) -> str:
    """Where things of the caller's are: "/v1/me" for those of one account, else "/v1"."""
    return OWN if (await who_asks(client))["role"] in ACCOUNT_ROLES else PLATFORM


async def account_base(client: ApiClient, account: str) -> str:
    """Where an account is: the caller's own without a name.

    Raises: UsageError when the caller has none, or asks for one by name but may not.
    """
    me = await who_asks(client)
    if me["role"] not in ACCOUNT_ROLES:
        if not account:
            raise UsageError("say of which account: give its name")
        return f"/v1/accounts/{await client.account_id(account)}"
    if account not in {"", me["account"]["name"]}:
        raise UsageError(f'there is no account "{account}" that you may see')
    return OWN


async def find_lists(client: ApiClient, account: str) -> tuple[str, dict[str, int]]:
    """Where lists are, and what chooses an account's things in them; without a name, all.

    Raises: UsageError, as `account_base`.
    """
    return lists_of(await account_base(client, account) if account else await find_base(client))


def lists_of(base: str) -> tuple[str, dict[str, int]]:
    """The same of an account's own place."""
    if base in {OWN, PLATFORM}:
        return base, {}
    return PLATFORM, {"account_id": int(base.rpartition("/")[2])}


async def account_names(client: ApiClient, found: Iterable[Any]) -> dict[int, str]:
    """What the accounts of these documents are called, by their ids."""
    names = {}
    for account_id in sorted({one["account_id"] for one in found}):
        account = await client.find(f"/v1/accounts/{account_id}")
        names[account_id] = account["name"] if account else ""
    return names


async def own_account(client: ApiClient) -> Any:
    """Who asks, of one account. Raises: UsageError for others, who have no such thing."""
    me = await who_asks(client)
    if me["role"] not in ACCOUNT_ROLES:
        raise UsageError(SHOW_A_KEY)
    return me

"""`tollkeeper login`, `logout`, `whoami`: which control plane commands work on, and as whom."""

import os
from typing import Annotated, Any

import typer

from gateway.cli.callers import who_asks
from gateway.cli.login_file import (
    TOKEN_VARIABLE,
    Login,
    check_address,
    check_token,
    end_login,
    keep_login,
    open_client,
)
from gateway.cli.options import Common, JsonOption, command, example
from gateway.cli.output import complain, print_json, say
from gateway.cli.prompts import read_hidden
from gateway.cli.run import FAILED, run
from gateway.operations.errors import UsageError

# API keys and delegated tokens: they are shown as they are, for there is no session to begin.
KEY_PREFIXES = ("tk_", "eyJ")
NOT_KNOWN = "see that it was copied whole and is not over"


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog=example("tollkeeper login https://control.example.com"))(login)
    app.command(epilog=example("tollkeeper logout"))(logout)
    command(app, "tollkeeper whoami")(whoami)


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the control plane.")],
    platform: Annotated[
        str,
        typer.Option("--platform", metavar="SLUG", help="For operators: which one to work on."),
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Log in to a remote control plane; commands then work on it, until "logout".

    Asks for a token of the API, the admin token, or an API key, without showing it; or reads it
    from stdin, or from the variable TOLLKEEPER_TOKEN. With an API key you are a member of its
    account.
    """

    async def check() -> str:
        return check_address(url)

    async def work() -> Any:
        token = check_token(shown)
        made = await _begin(Login(address, "", platform=platform), token)
        async with open_client(made, NOT_KNOWN) as client:
            me = await who_asks(client)
        await keep_login(made)
        return me

    address = run(check())  # before anything is typed
    shown = os.environ.get(TOKEN_VARIABLE) or read_hidden("Token")
    me = run(work())
    if as_json:
        print_json({"url": address} | me)
    else:
        say(f"Logged in to {address} as {_text(me)}.")
        say('Commands work on it until "tollkeeper logout".')


def logout(as_json: JsonOption = False) -> None:
    """Log out: commands work on the config in this folder again."""

    async def work() -> "tuple[Login, str]":
        known, failure = await end_login()
        if known is None:
            raise UsageError('nobody is logged in: see "tollkeeper login --help"')
        return known, failure

    known, failure = run(work())
    if as_json:
        print_json({"url": known.url, "ended": not failure})
    else:
        say(f"Logged out of {known.url}.")
    if failure:
        complain(f"tollkeeper: the login was deleted here, but goes on there: {failure}")
        raise typer.Exit(FAILED)


def whoami(common: Common) -> None:
    """Say which control plane commands work on, and as whom."""

    async def work() -> "tuple[str, Any]":
        from gateway.cli.api import open_api

        async with open_api(common) as client:
            return client.where, await who_asks(client)

    where, me = run(work())
    if common.as_json:
        print_json({"where": where} | me)
    else:
        say(f"{_text(me)}, on {where}")


async def _begin(fresh: Login, token: str) -> Login:
    """What to keep of somebody who has shown this."""
    if token.startswith(KEY_PREFIXES):
        return Login(fresh.url, token, platform=fresh.platform)
    async with open_client(fresh, NOT_KNOWN) as client:
        return fresh.renewed(await client.post("/v1/login", {"token": token}))


def _text(me: Any) -> str:
    account = f" of account {me['account']['name']}" if me["account"] else ""
    key = f' with key {me["key"]["id"]} "{me["key"]["name"]}"' if me["key"] else ""
    return f"{me['role']}{account}{key}, platform {me['platform']}"

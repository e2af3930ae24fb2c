"""`tollkeeper login`, `logout`, `whoami`: which remote control plane commands work on, and as whom.

The login is a file that only its owner can read: the address, a short-lived access token, and the
refresh token that gets the next one. Refreshing takes the file's lock, because a refresh token is
good for one refresh: two commands that used the same one would look like a thief and a victim.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer

from gateway.cli.options import Common, JsonOption, command, example
from gateway.cli.output import print_json, say
from gateway.cli.run import run
from gateway.clock import now_ms
from gateway.operations.errors import UsageError

if TYPE_CHECKING:
    from gateway.cli.api import ApiClient

FILE_NAME = "login.json"
# An access token is refreshed when it has less than this left.
REFRESH_BEFORE_MS = 60_000
TOKEN_VARIABLE = "TOLLKEEPER_TOKEN"  # noqa: S105 - the name of a variable
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True, slots=True)
class Login:
    """Where somebody is logged in. `platform` "": the token's own, or the deployment's."""

    url: str
    access_token: str
    refresh_token: str
    expires_ms: int
    platform: str = ""


def register(app: typer.Typer) -> None:
    """Add these commands to the command line."""
    app.command(epilog=example("tollkeeper login https://control.example.com"))(login)
    app.command(epilog=example("tollkeeper logout"))(logout)
    command(app, "tollkeeper whoami")(whoami)


def login(
    url: Annotated[str, typer.Argument(metavar="URL", help="Of the control plane.")],
    platform: Annotated[
        str, typer.Option("--platform", help="For operators: which platform to work on.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Log in to a remote control plane; commands then work on it, until `logout`.

    Asks for an API token, or takes it from the variable TOLLKEEPER_TOKEN.
    """

    async def work() -> "Any":
        import os

        address = _address(url)
        token = os.environ.get(TOKEN_VARIABLE) or typer.prompt("API token", hide_input=True)
        fresh = Login(address, "", "", 0, platform)
        async with _client(fresh) as client:
            answer = await client.post("/v1/login", {"token": token.strip()})
        made = _renewed(fresh, answer)
        async with _client(made) as client:
            me = await client.get("/v1/me")
        with _locked_file() as file:
            _write(file, made)
        return me

    me = run(work())
    if as_json:
        print_json(me)
    else:
        say(f"Logged in to {_address(url)} as {me['role']}. Commands work on it until you log out.")


def logout() -> None:
    """Log out: commands work on this folder's config again."""

    async def work() -> None:
        known = read_login()
        if known is None:
            raise UsageError('nobody is logged in: see "tollkeeper login --help"')
        async with open_remote(known) as client:
            await client.post("/v1/logout")

    try:
        run(work())
    finally:
        _path().unlink(missing_ok=True)
    say("Logged out.")


def whoami(common: Common) -> None:
    """Say which deployment commands work on, and as whom."""

    async def work() -> "tuple[str, Any]":
        from gateway.cli.api import open_api

        async with open_api(common) as client:
            return client.where, await client.get("/v1/me")

    where, me = run(work())
    if common.as_json:
        print_json(me | {"where": where})
    else:
        say(f"{me['role']} of platform {me['platform']}, on {where}")


def read_login() -> Login | None:
    """Where this user is logged in, if anywhere."""
    try:
        return Login(**json.loads(_path().read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise UsageError(f'{_path()} can\'t be read: run "tollkeeper login" again') from None


@contextlib.asynccontextmanager
async def open_remote(known: Login) -> "AsyncIterator[ApiClient]":
    """A client of the control plane that somebody is logged in to."""
    if known.expires_ms - now_ms() < REFRESH_BEFORE_MS:
        known = await _refreshed()
    async with _client(known) as client:
        yield client


async def _refreshed() -> Login:
    with _locked_file() as file:
        known = read_login()
        if known is None:
            raise UsageError('nobody is logged in any more: run "tollkeeper login"')
        if known.expires_ms - now_ms() < REFRESH_BEFORE_MS:
            async with _client(replace(known, access_token="")) as client:
                body = {"refresh_token": known.refresh_token}
                known = _renewed(known, await client.post("/v1/login/refresh", body))
            _write(file, known)
        return known


@contextlib.asynccontextmanager
async def _client(known: Login) -> "AsyncIterator[ApiClient]":
    import aiohttp

    from gateway.cli.api import REQUEST_TIMEOUT_S, ApiClient

    headers = {"Authorization": f"Bearer {known.access_token}"} if known.access_token else {}
    if known.platform:
        headers["Tollkeeper-Platform"] = known.platform
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session:
        yield ApiClient(session, known.url, known.url)


def _renewed(known: Login, answer: Any) -> Login:
    return replace(
        known,
        access_token=answer["access_token"],
        refresh_token=answer["refresh_token"],
        expires_ms=now_ms() + answer["expires_in_s"] * 1_000,
    )


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f'"{url}" is not an address such as https://control.example.com')
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError("tokens are sent over https:// only, except to this machine")
    return url.rstrip("/")


def _path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "tollkeeper" / FILE_NAME


@contextlib.contextmanager
def _locked_file() -> Iterator[Path]:
    """The file, which no other command writes meanwhile."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield path


def _write(path: Path, known: Login) -> None:
    """Whole or not at all, and never readable by others."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(known), file)
    new.replace(path)

"""The file with a login to a remote control plane, and the client that shows what is in it.

Only its owner can read it: the address, a short-lived access token, and the refresh token that gets
the next one. Refreshing takes the file's lock, because a refresh token is good for one refresh: two
commands that used the same one would look like a thief and a victim.

Who logs in with an API key or a delegated token has no session: the file keeps what was shown.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from gateway.clock import now_ms
from gateway.operations.errors import OperationError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    from gateway.cli.api import ApiClient

FILE_NAME = "login.json"
TOKEN_VARIABLE = "TOLLKEEPER_TOKEN"  # noqa: S105 - the name of a variable
NOT_ITS_TOKEN = f"the token in {TOKEN_VARIABLE} is none of its own, or is over"
PLATFORM_HEADER = "Tollkeeper-Platform"
# An access token is refreshed when it has less than this left.
REFRESH_BEFORE_MS = 60_000
# Longer than another command takes to refresh: gateway/cli/api.py, REQUEST_TIMEOUT_S.
LOCK_WAIT_S_MAX = 90.0
LOCK_LOOK_S = 0.02


@dataclass(frozen=True, slots=True)
class Login:
    """Where somebody is logged in. `platform` "": the token's own, or the deployment's.

    `expires_ms` is the access token's; 0: it is a key, which is not refreshed.
    """

    url: str
    access_token: str = field(repr=False)
    refresh_token: str = field(default="", repr=False)
    expires_ms: int = 0
    platform: str = ""

    @property
    def stale(self) -> bool:
        """Whether it has to be refreshed before it is used."""
        return bool(self.refresh_token) and self.expires_ms - now_ms() < REFRESH_BEFORE_MS

    def renewed(self, answer: Mapping[str, Any]) -> Login:
        """With the tokens that the API has answered."""
        return replace(
            self,
            access_token=answer["access_token"],
            refresh_token=answer["refresh_token"],
            expires_ms=now_ms() + answer["expires_in_s"] * 1_000,
        )


def read_login() -> Login | None:
    """Where this user is logged in, if anywhere. Raises: UsageError for a file that is none."""
    path = _path()
    try:
        return Login(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        raise UsageError(f'{path} can\'t be read: run "tollkeeper login" again') from None


async def keep_login(login: Login) -> None:
    """Commands work there from now on."""
    async with _locked():
        _write(login)


async def end_login() -> tuple[Login | None, str]:
    """Ends the login and deletes the file; answers the login, and why it may go on over there."""
    async with _locked():
        login, failure = None, ""
        with suppress(UsageError):
            login = read_login()
        try:
            if login is not None and login.refresh_token:
                failure = await _end(login)
        finally:
            _path().unlink(missing_ok=True)
        return login, failure


@asynccontextmanager
async def open_remote(login: Login, token: str = "") -> AsyncIterator[ApiClient]:
    """A client of the control plane that somebody is logged in to; `token` is shown instead."""
    if token:
        async with open_client(replace(login, access_token=token), NOT_ITS_TOKEN) as client:
            yield client
        return
    again = _again(login)
    if not login.refresh_token:
        async with open_client(login, f"that key is over: {again}") as client:
            yield client
        return
    shown = _Refreshed(login)
    async with open_client(login, f"your login is over: {again}", shown) as client:
        yield client


@asynccontextmanager
async def open_client(
    login: Login,
    unknown: str,
    shown: Callable[[], Awaitable[Mapping[str, str]]] | None = None,
) -> AsyncIterator[ApiClient]:
    """A client at an address, which shows the access token that there is, or what `shown` says."""
    import aiohttp

    from gateway.cli.api import REQUEST_TIMEOUT_S, ApiClient

    headers = {PLATFORM_HEADER: login.platform} if login.platform else {}
    if shown is None and login.access_token:
        headers |= headers_of(login.access_token)
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(headers=headers, timeout=timeout, cookie_jar=jar) as session:
        yield ApiClient(session, login.url, login.url, shown=shown, unknown=unknown)


def headers_of(token: str) -> dict[str, str]:
    """What says who asks."""
    return {"Authorization": f"Bearer {token}"}


def check_token(text: str) -> str:
    """A credential as people paste it. Raises: UsageError for what can't be one; it is not told."""
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable():
        raise UsageError("that is no token: give it as it was printed, on one line")
    return token


def check_address(url: str) -> str:
    """The address of a control plane. Raises: UsageError where tokens must not be sent."""
    parts = urlsplit(url)
    try:
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment:
        raise UsageError(f'"{url}" is not an address such as https://control.example.com')
    if "@" in parts.netloc:
        raise UsageError("leave the name and password out of the address")
    if parts.scheme == "http" and not _is_this_machine(host):
        raise UsageError("tokens are sent over https:// only, except to this machine")
    return url.rstrip("/")


class _Refreshed:
    """The access token, refreshed in time, however long a command runs."""

    def __init__(self, login: Login) -> None:
        import asyncio

        self._login = login
        # A command asks several things at once, and the file's lock is not one of coroutines.
        self._lock = asyncio.Lock()

    async def __call__(self) -> Mapping[str, str]:
        async with self._lock:
            if self._login.stale:
                self._login = await _refresh(self._login.url)
        return headers_of(self._login.access_token)


async def _refresh(url: str) -> Login:
    async with _locked():
        login = read_login()
        if login is None or login.url != url:
            raise UsageError(f'nobody is logged in to {url} any more: run "tollkeeper login {url}"')
        if not login.stale:
            return login
        return await _renew(login)


async def _renew(login: Login) -> Login:
    """The next tokens, kept. The file is locked."""
    asking = replace(login, access_token="")
    async with open_client(asking, f"your login is over: {_again(login)}") as client:
        body = {"refresh_token": login.refresh_token}
        login = login.renewed(await client.post("/v1/login/refresh", body))
        _write(login)  # at once: the old refresh token is worth nothing any more
    return login


async def _end(login: Login) -> str:
    from gateway.cli.api import UnknownCallerError

    try:
        if login.stale:
            login = await _renew(login)
        async with open_client(login, "") as client:
            await client.post("/v1/logout")
    except UnknownCallerError:  # it is over already
        return ""
    except OperationError as error:
        return str(error)
    return ""


@asynccontextmanager
async def _locked() -> AsyncIterator[None]:
    """No other command reads tokens to refresh, or writes the file, meanwhile."""
    path = _path()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        await _lock(descriptor)
        yield
    finally:
        os.close(descriptor)


async def _lock(descriptor: int) -> None:
    """Without blocking the loop, so that Ctrl-C works. Raises: OperationError after a time."""
    import asyncio

    try:
        async with asyncio.timeout(LOCK_WAIT_S_MAX):
            while True:
                with suppress(BlockingIOError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    return
                await asyncio.sleep(LOCK_LOOK_S)
    except TimeoutError:
        raise OperationError(f"another command has not finished with {_path()}") from None


def _write(login: Login) -> None:
    """Whole or not at all, and never readable by others."""
    path = _path()
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(login), file)
    new.replace(path)


def _path() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "tollkeeper" / FILE_NAME


def _again(login: Login) -> str:
    return f'run "tollkeeper login {login.url}" again'


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

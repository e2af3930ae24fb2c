"""Commands as clients of the API, a remote one or one of their own.

After `tollkeeper login` that is the remote control plane's; else the API runs in this process, on
the config's servers, for as long as the command does. So there is one code for what people do, by
API and by command line, with one set of checks and one audit log.

Which deployment a command works on: that of `--config` or `--data-dir` where one of them is given;
else where `tollkeeper login` logged in; else that of `config.toml` in this folder. As whom: whoever
the token in TOLLKEEPER_TOKEN is of; else who logged in; else, on a config, an operator.
"""

from __future__ import annotations

import codecs
import getpass
import logging
import os
import secrets
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.cli.options import DATA_DIR_DEFAULT
from gateway.cli.run import DEBUG_VARIABLE, REPORT
from gateway.cli.session import open_desk, read_credentials
from gateway.operations.errors import OperationError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping

    import aiohttp
    from aiohttp import web

    from gateway.cli.options import Common
    from gateway.cli.session import Desk
    from gateway.control.api.services import Services
    from gateway.control.credentials import Credentials
    from gateway.operations.dry_run import Priced, SampleCall
    from policies.catalog import Route

# Commands wait for changes to reach every worker, and for long lists.
REQUEST_TIMEOUT_S = 60.0
PAGE_ROWS = 200
# When the command has its answers nobody asks any more.
SHUTDOWN_TIMEOUT_S = 1.0
SOCKET_NAME = "api.sock"
# Of a folder for the socket: addresses of sockets have 104 characters on some systems.
FOLDER_CHARACTERS_MAX = 60
_UNSURE = "; it may have been done all the same"
TOO_MANY = 429


class Reply(NamedTuple):
    """What the API answered; `document` is None for 204."""

    status: int
    document: Any
    etag: str | None


class AwayError(OperationError):
    """The control plane can't be asked, or does not answer now: later it may."""


class UnknownCallerError(OperationError):
    """The control plane does not know who asks, or not any more."""


class RefusedError(UsageError):
    """What the API refused, with its status and the problem's code."""

    def __init__(self, text: str, status: int, code: str) -> None:
        super().__init__(text)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class ApiClient:
    """Asks one control plane as one caller. `where` says which, for people.

    `shown` are the headers that say who asks, for each request anew: a proof may be good for
    minutes only. `unknown` says what to do when the control plane does not know who that is.
    """

    session: aiohttp.ClientSession
    url: str
    where: str
    remote: bool = True
    shown: Callable[[], Awaitable[Mapping[str, str]]] | None = None
    unknown: str = ""

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """One request; parameters that are None are left out.

        Raises: RefusedError for what is wrong with it, each field with its reason; OperationError
        when the API can't be reached or fails.
        """
        import aiohttp

        own = {} if self.shown is None else await self.shown()
        params = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self.session.request(
                method,
                self.url + path,
                json=body,
                params=params,
                headers={**own, **(headers or {})},
                allow_redirects=False,  # a POST would go on as a GET
            ) as answer:
                is_json = answer.content_type.endswith("json")
                document = await answer.json(content_type=None) if is_json else None
                reply = Reply(answer.status, document, answer.headers.get("ETag"))
                told = answer.headers
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            unsure = "" if method == "GET" or _never_sent(error) else _UNSURE
            raise AwayError(self._unreachable(error) + unsure) from None
        self._check(reply, told)
        if reply.document is None and reply.status != 204:
            raise OperationError(f"{self.where} is no control plane: is the address right?")
        return reply

    async def get(self, path: str, **query: object) -> Any:
        """A document."""
        return (await self.ask("GET", path, query=query)).document

    async def find(self, path: str) -> Any:
        """The same; None where there is no such thing."""
        try:
            return await self.get(path)
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    async def post(self, path: str, body: object = None) -> Any:
        """What was made or done. Whoever on the way sends it again does not do it again."""
        headers = {"Idempotency-Key": secrets.token_hex(16)} if self.remote else None
        return (await self.ask("POST", path, body, headers=headers)).document

    async def patch(self, path: str, body: object, *, etag: str | None = None) -> Any:
        """What it is after the change; with `etag`, only of the version that was seen."""
        headers = None if etag is None else {"If-Match": etag}
        return (await self.ask("PATCH", path, body, headers=headers)).document

    async def put(self, path: str, body: object) -> Any:
        """What it is now."""
        return (await self.ask("PUT", path, body)).document

    async def delete(self, path: str) -> None:
        """It is gone."""
        await self.ask("DELETE", path)

    async def rows(
        self, path: str, *, limit: int | None = None, **query: object
    ) -> AsyncIterator[Any]:
        """A list's documents, page after page; at most `limit`."""
        cursor, left = None, limit
        while left is None or left > 0:
            size = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
            page = await self.get(path, **query, limit=size, cursor=cursor)
            for row in page["data"][:size]:
                yield row
            if left is not None:
                left -= len(page["data"])
            cursor = page["next_cursor"]
            if cursor is None:
                return

    async def all(self, path: str, *, limit: int | None = None, **query: object) -> list[Any]:
        """The same at once."""
        return [row async for row in self.rows(path, limit=limit, **query)]

    async def csv(self, path: str, **query: object) -> AsyncIterator[str]:
        """A whole list as CSV, in pieces.

        Raises: as `ask`; OperationError when it breaks off, for a part is not the whole.
        """
        import aiohttp

        own = {} if self.shown is None else await self.shown()
        params = {name: str(value) for name, value in query.items() if value is not None}
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            async with self.session.get(
                self.url + path,
                params=params,
                headers={**own, "Accept": "text/csv"},
                timeout=aiohttp.ClientTimeout(sock_read=REQUEST_TIMEOUT_S),
                allow_redirects=False,
            ) as answer:
                if answer.status != 200 or answer.content_type != "text/csv":
                    is_json = answer.content_type.endswith("json")
                    document = await answer.json(content_type=None) if is_json else None
                    self._check(Reply(answer.status, document, None), answer.headers)
                    raise OperationError(f"{self.where} is no control plane: is the address right?")
                async for piece in answer.content.iter_any():
                    yield decoder.decode(piece)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise AwayError(self._unreachable(error)) from None

    def _check(self, reply: Reply, headers: Mapping[str, str]) -> None:
        """Raises: RefusedError, OperationError for what is no good answer."""
        if 300 <= reply.status < 400:
            target = headers.get("Location", "")
            raise OperationError(f'{self.where} is at another address: run "login {target}"')
        if reply.status == 401:
            raise UnknownCallerError(f"{self.where} does not know you: {self.unknown}")
        if reply.status >= 400:
            raise failure_of(reply, self.where, remote=self.remote)

    async def account(self, name: str) -> Any:
        """The account of this name, on the platform.

        Raises: UsageError when there is none; it names near ones.
        """
        from difflib import get_close_matches

        async for row in self.rows("/v1/accounts", name=name):
            if row["name"] == name:
                return row
        names = [row["name"] async for row in self.rows("/v1/accounts", limit=PAGE_ROWS)]
        near = get_close_matches(name, names, n=1)
        hint = f': did you mean "{near[0]}"?' if near else ""
        raise UsageError(f'there is no account "{name}"{hint}')

    async def account_id(self, name: str) -> int:
        """The id of the account of this name. Raises: UsageError, as above."""
        return int((await self.account(name))["id"])

    def _unreachable(self, error: Exception) -> str:
        """Why there is no answer, and what to do."""
        import aiohttp

        if isinstance(error, TimeoutError):
            return f"{self.where} did not answer within {REQUEST_TIMEOUT_S:g} s"
        if isinstance(error, aiohttp.ClientConnectorCertificateError):
            return f"{self.where} shows a certificate that is not accepted"
        if isinstance(error, aiohttp.ClientConnectorError):
            told = error.os_error
            known = told.errno is not None and told.errno > 0
            reason = os.strerror(told.errno or 0) if known else told.strerror or str(told)
            return (
                f"{self.where} can't be reached ({reason}): see that it runs, or run "
                '"tollkeeper logout" to work on the config in this folder'
            )
        return f"{self.where} broke off its answer ({type(error).__name__})"


def failure_of(reply: Reply, where: str, *, remote: bool = True) -> OperationError:
    """What the API refused, in lines for a person."""
    problem = reply.document if isinstance(reply.document, dict) else {}
    detail = str(problem.get("detail") or f"{where} answered {reply.status}")
    lines = [
        f"{error['field']}: {error['message']}" if error["field"] else str(error["message"])
        for error in problem.get("errors", ())
    ]
    text = lines[0] if len(lines) == 1 else "\n  ".join([detail, *lines])
    if reply.status == 500:
        see = f"see its log for {problem.get('request_id')}" if remote else REPORT
        text = f"{where} failed by a mistake of ours: {see}"
    if reply.status == TOO_MANY or reply.status >= 500:
        return AwayError(text)
    return RefusedError(text, reply.status, str(problem.get("code", "")))


def _never_sent(error: Exception) -> bool:
    import aiohttp

    return isinstance(error, aiohttp.ClientConnectorError)


@asynccontextmanager
async def open_api(
    common: Common, *, redis: bool = True, pepper: bool = False
) -> AsyncIterator[ApiClient]:
    """A client of the API that this command is for.

    Of an API in this process: with `redis=False` the command only reads what Postgres has, and
    needs no Redis; with `pepper` it makes keys, and does not begin without one.

    Raises: UsageError, OperationError.
    """
    from gateway.cli.login_file import TOKEN_VARIABLE, check_token, open_remote, read_login

    told = common.config is not None or common.data_dir != DATA_DIR_DEFAULT
    login = None if told else read_login()
    token = os.environ.get(TOKEN_VARIABLE, "")
    token = check_token(token) if token else ""
    if login is not None:
        async with open_remote(login, token) as client:
            yield client
    else:
        async with (
            open_desk(common.config, common.data_dir, redis=redis) as desk,
            _in_process(desk, common, token, pepper=pepper) as client,
        ):
            yield client


@asynccontextmanager
async def _in_process(
    desk: Desk, common: Common, shown: str, *, pepper: bool
) -> AsyncIterator[ApiClient]:
    """The API itself, behind a socket in a folder that is nobody else's.

    Who asks is an operator, or whoever the token is of that is shown.
    """
    import aiohttp
    from aiohttp import web

    from gateway.cli.login_file import NOT_ITS_TOKEN, headers_of

    token = secrets.token_hex(32)
    async with AsyncExitStack() as stack:
        runner = await stack.enter_async_context(_serving(desk, common, token, pepper=pepper))
        socket = str(Path(stack.enter_context(_folder()), SOCKET_NAME))
        await web.UnixSite(runner, socket).start()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(socket),
                headers=headers_of(shown or token),
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            )
        )
        yield ApiClient(
            session, "http://api", "this deployment", remote=False, unknown=NOT_ITS_TOKEN
        )


@asynccontextmanager
async def _serving(
    desk: Desk, common: Common, token: str, *, pepper: bool
) -> AsyncIterator[web.AppRunner]:
    """The API, ready to listen; `token` is its operator's."""
    from aiohttp import web

    from gateway.control.api.serve import add_endpoints
    from gateway.control.resources import ENDPOINTS

    credentials = read_credentials(
        desk.config, common.data_dir, admin_token=token, needs_pepper=pepper
    )
    if not os.environ.get(DEBUG_VARIABLE):  # what people are to know is in the answer
        logging.getLogger("tollkeeper.control").addHandler(logging.NullHandler())
    async with _services(desk, credentials) as services:
        app = web.Application()
        add_endpoints(app, services, ENDPOINTS)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
        await runner.setup()
        try:
            yield runner
        finally:
            await runner.cleanup()


@asynccontextmanager
async def _services(desk: Desk, credentials: Credentials) -> AsyncIterator[Services]:
    from gateway.control.api.services import open_services
    from gateway.identity.seal import CannotOpenError
    from gateway.operations.lost_shards import seeing_to_shards
    from gateway.upstream.networks import Networks

    gateway = desk.config.gateway
    async with AsyncExitStack() as stack:
        shards = await stack.enter_async_context(
            seeing_to_shards(desk.ledger, desk.counters, lease_s=gateway.lease_s)
        )
        opening = open_services(
            desk.ledger,
            desk.counters,
            credentials,
            postgres_url=desk.postgres_url,
            platform=desk.config.platform.slug,
            deployment=await desk.ledger.find_setting("deployment") or "",
            networks=Networks.of(gateway.private_upstreams),
            shards=shards,
            price_sample=_price_sample,
            operator=f"cli:{_user()}",
        )
        try:
            services = await stack.enter_async_context(opening)
        except (CannotOpenError, ValueError) as error:
            raise UsageError(f"gateway.master_key: {error}") from None
        yield services


def _price_sample(route: Route, sample: SampleCall) -> Priced:
    """The proxy's own answer; no other command needs the proxy's code."""
    from gateway.proxy.dry_run import price_sample

    return price_sample(route, sample)


def _folder() -> tempfile.TemporaryDirectory[str]:
    """For the socket alone; nobody else may look into it."""
    usual = tempfile.gettempdir()
    folder = usual if len(usual) <= FOLDER_CHARACTERS_MAX else "/tmp"  # noqa: S108 - a new one in it
    return tempfile.TemporaryDirectory(prefix="tollkeeper-", dir=folder)


def _user() -> str:
    """Who runs this, for the audit log; containers may have users without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())

"""Commands as clients of the API, a remote one or one of their own.

After `tollkeeper login` that is the remote control plane's; else the API runs in this process, on
the config's servers, for as long as the command does. So there is one code for what people do, by
API and by command line, with one set of checks and one audit log.

Which deployment a command works on: that of `--config` or `--data-dir` where one of them is given;
else where `tollkeeper login` logged in; else that of `config.toml` in this folder.
"""

from __future__ import annotations

import getpass
import secrets
import tempfile
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.cli.options import DATA_DIR_DEFAULT
from gateway.cli.session import open_desk, read_credentials
from gateway.operations.errors import OperationError, UsageError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    import aiohttp

    from gateway.cli.options import Common
    from gateway.cli.session import Desk

# Commands wait for changes to reach every worker, and for long lists.
REQUEST_TIMEOUT_S = 60.0
PAGE_ROWS = 200
SOCKET_NAME = "api.sock"


class Reply(NamedTuple):
    """What the API answered; `document` is None for 204."""

    status: int
    document: Any
    etag: str | None


@dataclass(frozen=True, slots=True)
class ApiClient:
    """Asks one control plane as one caller. `where` says which, for people."""

    session: aiohttp.ClientSession
    url: str
    where: str

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

        Raises: UsageError for what is wrong with it, each field with its reason; OperationError
        when the API can't be reached or fails.
        """
        import aiohttp

        params = {name: str(value) for name, value in (query or {}).items() if value is not None}
        try:
            async with self.session.request(
                method, self.url + path, json=body, params=params, headers=headers
            ) as answer:
                document = await answer.json(content_type=None) if answer.status != 204 else None
                reply = Reply(answer.status, document, answer.headers.get("ETag"))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = str(error) or type(error).__name__
            raise OperationError(f"{self.where} can't be asked: {reason}") from None
        if reply.status >= 400:
            raise failure_of(reply, self.where)
        return reply

    async def get(self, path: str, **query: object) -> Any:
        """A document."""
        return (await self.ask("GET", path, query=query)).document

    async def post(self, path: str, body: object = None) -> Any:
        """What was made or done. Safe to be sent twice: it has a key of its own."""
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return (await self.ask("POST", path, body, headers=headers)).document

    async def patch(self, path: str, body: object) -> Any:
        """What it is after the change."""
        return (await self.ask("PATCH", path, body)).document

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

    async def account_id(self, name: str) -> int:
        """The id of the account of this name, on the platform.

        Raises: UsageError when there is none; it names near ones.
        """
        from difflib import get_close_matches

        names = {}
        async for row in self.rows("/v1/accounts", name=name):
            names[row["name"]] = row["id"]
        if name in names:
            return int(names[name])
        async for row in self.rows("/v1/accounts", limit=PAGE_ROWS):
            names[row["name"]] = row["id"]
        near = get_close_matches(name, names, n=1)
        hint = f': did you mean "{near[0]}"?' if near else ""
        raise UsageError(f'there is no account "{name}"{hint}')


def failure_of(reply: Reply, where: str) -> OperationError:
    """What the API refused, in lines for a person."""
    problem = reply.document if isinstance(reply.document, dict) else {}
    detail = str(problem.get("detail") or f"{where} answered {reply.status}")
    lines = [
        f"{error['field']}: {error['message']}" if error["field"] else str(error["message"])
        for error in problem.get("errors", ())
    ]
    text = lines[0] if len(lines) == 1 else "\n  ".join([detail, *lines])
    if reply.status == 401:
        text = f'{where} does not know you (any more): run "tollkeeper login" again'
    kind = UsageError if reply.status < 500 and reply.status not in {401, 429} else OperationError
    return kind(text)


@asynccontextmanager
async def open_api(common: Common) -> AsyncIterator[ApiClient]:
    """A client of the API that this command is for. Raises: UsageError, OperationError."""
    from gateway.cli.logins import open_remote, read_login

    told = common.config is not None or common.data_dir != DATA_DIR_DEFAULT
    login = None if told else read_login()
    if login is not None:
        async with open_remote(login) as client:
            yield client
    else:
        async with (
            open_desk(common.config, common.data_dir) as desk,
            _in_process(desk, common) as client,
        ):
            yield client


@asynccontextmanager
async def _in_process(desk: Desk, common: Common) -> AsyncIterator[ApiClient]:
    """The API itself, behind a socket in a folder that is nobody else's."""
    import aiohttp
    from aiohttp import web

    from gateway.control.api.serve import add_endpoints
    from gateway.control.api.services import open_services
    from gateway.control.resources import ENDPOINTS
    from gateway.upstream.networks import Networks

    token = secrets.token_hex(32)
    gateway = desk.config.gateway
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(
            open_services(
                desk.ledger,
                desk.counters,
                read_credentials(desk.config, common.data_dir, admin_token=token),
                postgres_url=desk.postgres_url,
                platform=desk.config.platform.slug,
                deployment=await desk.ledger.find_setting("deployment") or "",
                networks=Networks.of(gateway.private_upstreams),
                operator=f"cli:{getpass.getuser()}",
            )
        )
        app = web.Application()
        add_endpoints(app, services, ENDPOINTS)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tollkeeper-"))
        socket = str(Path(folder, SOCKET_NAME))
        await web.UnixSite(runner, socket).start()
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(socket),
                headers={"Authorization": f"Bearer {token}"},
                timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
            )
        )
        yield ApiClient(session, "http://api", "this deployment")

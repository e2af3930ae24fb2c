"""A request's way through the API, the same for every endpoint; each step is a file beside this.

Who asks (callers) → may they (roles) → what do they ask (fields) → once? (idempotency) → of this
version? (etags) → the resource's own work → answer, page or stream.
"""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

from aiohttp import web
from pydantic import BaseModel, ValidationError

from gateway.clock import CallIds
from gateway.control.api.ask import Ask
from gateway.control.api.callers import client_of, identify
from gateway.control.api.etags import check_if_match, etag_of, names
from gateway.control.api.exports import EXPORT_STALL_S, not_exported, wanted_format
from gateway.control.api.fields import Page, PageQuery
from gateway.control.api.idempotency import Asker, Once, change_id_of
from gateway.control.api.problems import (
    FieldError,
    Problem,
    forbidden,
    invalid,
    not_found,
    of_validation,
    problem_of,
    too_many,
)
from gateway.control.api.roles import NOBODY
from gateway.ledger import Scope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from gateway.control.api.endpoint import Endpoint
    from gateway.control.api.services import Services

    Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

JSON = "application/json"
# Within this all of a body is here.
BODY_TIMEOUT_S = 30.0
_ID_DIGITS_MAX = 16
_NO_PATH = "There is nothing at this path."

log = logging.getLogger("tollkeeper.control")


def add_endpoints(app: web.Application, services: Services, endpoints: Iterable[Endpoint]) -> None:
    """Registers them, and what is answered for every other path."""
    call_ids = CallIds()
    endpoints = list(endpoints)
    plain = {endpoint.path for endpoint in endpoints if "{" not in endpoint.path}
    for endpoint in endpoints:
        handler = _handler(endpoint, services, call_ids)
        app.router.add_route(endpoint.method, _place(endpoint.path, plain), handler)

    def nothing_here(*, status: int, allow: str) -> web.Response:
        code, detail = "not_found", _NO_PATH
        if status == 405:
            code, detail = "method_not_allowed", f"This path is for {allow}."
        headers = {"Allow": allow} if allow else {}
        return Problem(status, code, detail, headers=headers).response(call_ids.new())

    @web.middleware
    async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPMethodNotAllowed as failure:
            allow = ", ".join(sorted(failure.allowed_methods))
            return nothing_here(status=405, allow=allow)
        except web.HTTPNotFound:
            return nothing_here(status=404, allow="")

    app.middlewares.append(problems)


def _place(path: str, plain: set[str]) -> str:
    """A path for aiohttp. Its last parameter is none of the words that have paths of their own."""
    parent, _, last = path.rpartition("/")
    words = [one.removeprefix(f"{parent}/") for one in plain if one.rpartition("/")[0] == parent]
    if not last.startswith("{") or not words:
        return path
    return f"{parent}/{{{last[1:-1]}:(?!(?:{'|'.join(map(re.escape, sorted(words)))})$)[^/]+}}"


def _handler(endpoint: Endpoint, services: Services, call_ids: CallIds) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        request_id = call_ids.new()
        try:
            answer = await _answer(endpoint, services, request, request_id)
        except Exception as failure:
            problem = problem_of(failure)
            if problem is None:
                log.exception("request %s: %s %s", request_id, endpoint.method, endpoint.path)
                problem = Problem(500, "internal_error", "This failed by a mistake of ours.")
            answer = problem.response(request_id)
        if not answer.prepared:
            answer.headers["X-Request-Id"] = request_id
            answer.headers.setdefault("Cache-Control", "no-store")
        return answer

    return handle


async def _answer(
    endpoint: Endpoint, services: Services, request: web.Request, request_id: str
) -> web.StreamResponse:
    client = client_of(request, services)
    address = "" if client is None else str(client)
    if endpoint.guarded and (wait_ms := services.logins.take(address)):
        raise too_many(wait_ms, "Too many attempts from this address.")
    caller = await identify(request, services, client) if endpoint.roles else NOBODY
    if endpoint.roles and caller.role not in endpoint.roles:
        raise forbidden()
    path = _read_path(request)
    query = _read_query(endpoint, request)
    raw = await _read_raw(request)
    body = _read_body(endpoint, request, raw)
    scope = Scope(caller.platform_id, caller.account_id, caller.actor, address, request_id)
    ledger = services.tenancy.ledger(scope)
    fingerprint = endpoint.method.encode() + request.path_qs.encode() + b"\n" + raw
    key = request.headers.get("Idempotency-Key") if endpoint.creates else None
    asker = Asker(caller.actor, caller.platform_id)
    change_id = request_id if key is None else change_id_of(asker, key, fingerprint)
    ask = Ask(services, caller, ledger, request_id, address, path, change_id)
    given = [part for part in (body, query) if part is not None]
    kind = wanted_format(request.headers.get("Accept", ""))
    if kind is not None:
        return await _stream(endpoint, ask, request, kind, query)
    if key is not None:
        once = Once(services.ledger, services.keys.pepper)
        return await once.answer(
            asker, key, fingerprint, request_id, lambda: _do(endpoint, ask, request, given)
        )
    return await _do(endpoint, ask, request, given)


async def _do(endpoint: Endpoint, ask: Ask, request: web.Request, given: list[Any]) -> web.Response:
    """The resource's own work, and its answer."""
    async with _in_turn(endpoint, ask, request):
        answer = await endpoint.work(ask, *given)
    if isinstance(answer, web.Response):
        return answer
    if answer is None:
        return web.Response(status=204)
    headers = {}
    if isinstance(answer, BaseModel) and not isinstance(answer, Page) and endpoint.versioned():
        headers["ETag"] = etag_of(answer)
        seen = request.headers.get("If-None-Match")
        if endpoint.method == "GET" and seen is not None and names(seen, headers["ETag"]):
            return web.Response(status=304, headers=headers)
    document = cast("BaseModel", answer).model_dump_json().encode()
    return web.Response(body=document, status=endpoint.status, content_type=JSON, headers=headers)


@asynccontextmanager
async def _in_turn(endpoint: Endpoint, ask: Ask, request: web.Request) -> AsyncIterator[None]:
    """Changes of one resource happen one after the other, each of the version that it means."""
    if endpoint.reads is None:
        yield
        return
    # An account's own way to a resource and its platform's lead to the same. Of one name each
    # platform has a resource of its own, and waits for nobody else's; platforms are everybody's.
    path = request.path.replace("/v1/me/", "/v1/", 1)
    whose = 0 if path.startswith("/v1/platforms/") else ask.platform_id
    async with ask.ledger.resource_locked(f"{whose} {path}"):
        if_match = request.headers.get("If-Match")
        check_if_match(if_match, await endpoint.reads(ask))
        yield


async def _stream(
    endpoint: Endpoint, ask: Ask, request: web.Request, kind: str, query: Any
) -> web.StreamResponse:
    """A whole list, row by row."""
    if not endpoint.exports or endpoint.answers is None or not isinstance(query, PageQuery):
        raise not_exported()
    item = endpoint.item_kind()
    tenant = ask.caller.platform_id, ask.caller.account_id
    pieces = ask.services.exports.lines(
        tenant,
        kind,
        item,
        lambda part: cast("Awaitable[Page[Any]]", endpoint.work(ask, part)),
        query,
    )
    first = await anext(pieces, b"")
    response = web.StreamResponse(headers={"X-Request-Id": ask.request_id})
    response.content_type = kind
    response.charset = "utf-8"
    try:
        await response.prepare(request)
        await _sent(response, first)
        async for piece in pieces:
            await _sent(response, piece)
            if request.transport is None:
                break  # the client has gone
        else:
            await response.write_eof()
    except ConnectionError:
        pass  # as well
    except Exception as failure:
        if not isinstance(failure, TimeoutError) and problem_of(failure) is None:
            log.exception("request %s: an export ended early", ask.request_id)
        if request.transport is not None:  # so that the client can't take a part for the whole
            request.transport.abort()
    finally:
        await pieces.aclose()
    return response


async def _sent(response: web.StreamResponse, piece: bytes) -> None:
    """Raises: TimeoutError when the client does not read."""
    if piece:
        async with asyncio.timeout(EXPORT_STALL_S):
            await response.write(piece)


def _read_path(request: web.Request) -> dict[str, str]:
    """The path's parameters. One that can't be an id is as unknown as any other."""
    path = dict(request.match_info)
    for name, value in path.items():
        if name.endswith("_id") and name != "call_id":
            number = value.isascii() and value.isdecimal() and len(value) <= _ID_DIGITS_MAX
            if not number or not 0 < int(value) < 2**53:
                raise not_found(name.removesuffix("_id"))
        elif "\x00" in value:
            raise not_found()
    return path


def _read_query(endpoint: Endpoint, request: web.Request) -> Any:
    if endpoint.query is None:
        if request.query_string:
            raise invalid(*(FieldError(name, "Unknown parameter.") for name in request.query))
        return None
    twice = {name for name in request.query if len(request.query.getall(name)) > 1}
    if twice:
        raise invalid(*(FieldError(name, "This is there twice.") for name in sorted(twice)))
    try:
        return endpoint.query.model_validate(dict(request.query))
    except ValidationError as failure:
        raise of_validation(failure, endpoint.query) from None


async def _read_raw(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.read()
    except TimeoutError:
        headers = {"Connection": "close"}
        detail = "The body did not arrive in time."
        raise Problem(408, "request_timeout", detail, headers=headers) from None


def _read_body(endpoint: Endpoint, request: web.Request, raw: bytes) -> Any:
    if endpoint.body is None:
        if raw.strip() not in (b"", b"{}"):
            raise Problem(400, "bad_request", "This takes no body.")
        return None
    if not raw.strip() and not endpoint.needs_body():
        raw = b"{}"
    elif request.content_type != JSON:
        raise Problem(415, "unsupported_media_type", f"Send the body as {JSON}.")
    try:
        return endpoint.body.model_validate_json(raw)
    except ValidationError as failure:
        raise of_validation(failure, endpoint.body) from None

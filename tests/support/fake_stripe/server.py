"""The fake's HTTP side: keys, parameters, idempotency, trouble, and answers in Stripe's shape."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import events, forms
from .calls import Call, Route
from .clock import DAY_S
from .errors import StripeError
from .resources import ROUTES

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from .store import Object, Store

BODY_BYTES_MAX = 2**20
IDEMPOTENCY_KEY_MAX = 255
IDEMPOTENCY_S = DAY_S
LIVE_KEYS = "sk_live_"


@dataclass(frozen=True, slots=True)
class Request:
    """A line of the log. `form`: the parameters as sent; `status` 0: the answer was never sent."""

    method: str
    path: str
    form: dict[str, Any]
    idempotency_key: str | None
    status: int
    livemode: bool = False
    replayed: bool = False


@dataclass(slots=True)
class Trouble:
    """What the next calls to paths that begin so run into. `after`: only the answer is lost."""

    calls: int
    status: int | None
    after: bool
    path: str


@dataclass(slots=True)
class Remembered:
    """What an idempotency key was used for, and the answer. `running`: not answered yet."""

    fingerprint: str
    at_s: int
    status: int | None = None
    body: Object | None = None
    running: bool = True


@dataclass(slots=True)
class Api:
    """All that calls share. `changed` is awaited after each call: something may be to be saved."""

    stores: dict[bool, Store]
    keys: set[str]
    log: list[Request] = field(default_factory=list)
    trouble: list[Trouble] = field(default_factory=list)
    remembered: dict[str, Remembered] = field(default_factory=dict)
    # Set: calls are answered at once. Cleared: their work is done, their answers wait; refusals
    # do not.
    answers: asyncio.Event = field(default_factory=asyncio.Event)
    changed: list[Callable[[], Awaitable[None]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.answers.set()

    def application(self) -> web.Application:
        """The whole API; pages are added to it by whoever has some."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        for route in ROUTES:
            app.router.add_route(route.method, route.path, self._handler(route))
        for prefix in ("/v1", "/v2"):
            app.router.add_route("*", prefix + "/{rest:.*}", self._unknown)
        return app

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            text = await request.text() if request.method == "POST" else request.query_string
            return await Exchange(self, request, route, text).answer()

        return handle

    async def _unknown(self, request: web.Request) -> web.Response:
        exchange = Exchange(self, request, None, await request.text())
        return await exchange.answer()

    def next_trouble(self, path: str) -> Trouble | None:
        """What a call to this path runs into, if anything."""
        for trouble in self.trouble:
            if path.startswith(trouble.path):
                trouble.calls -= 1
                if trouble.calls <= 0:
                    self.trouble.remove(trouble)
                return trouble
        return None


def _sent_key(authorization: str) -> str:
    """A bearer's token, or the name of Basic, as `curl -u` sends it; "" where there is none."""
    scheme, _, sent = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return sent.strip()
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(sent, validate=True).decode().partition(":")[0]
    except ValueError:
        return ""


class Exchange:
    """One request on its way to an answer."""

    def __init__(self, api: Api, request: web.Request, route: Route | None, text: str) -> None:
        self.api = api
        self.request = request
        self.route = route
        self.text = text
        self.form: dict[str, Any] = {}
        self.sent_key = _sent_key(request.headers.get("Authorization", ""))
        self.livemode = self.sent_key.startswith(LIVE_KEYS)
        self.store = api.stores[self.livemode]
        self.request_id = self.store.make_id("req")
        self.key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
        self.replayed = False
        # What this call's key is remembered by, when it is the first with it.
        self.entry: Remembered | None = None

    async def answer(self) -> web.Response:
        """Does what is asked, unless trouble comes before; keeps a line of the log."""
        trouble = self.api.next_trouble(self.request.path)
        if trouble is not None and not trouble.after:
            return self._troubled(trouble)
        try:
            status, body = self._do()
        except StripeError as error:
            status, body = error.status, error.body(self.request_id)
        self._remember(status, body)
        for changed in self.api.changed:
            await changed()
        if status < 400:
            await self.api.answers.wait()
        if self.entry is not None:
            self.entry.running = False
        if trouble is not None:
            return self._troubled(trouble)
        self._log(status)
        return self._respond(status, body)

    def _do(self) -> tuple[int, Object]:
        self._authenticate()
        self.form = forms.parse(self.text)
        if self.route is None:
            raise StripeError(
                404,
                f"Unrecognized request URL ({self.request.method}: {self.request.path}).",
            )
        params = forms.read(self.form, self.route.params)
        remembered = self._remembered()
        if remembered is not None:
            self.replayed = True
            return remembered
        expand = params.pop("expand", None) or []
        self.store.request = {"id": self.request_id, "idempotency_key": self.key}
        try:
            call = Call(self.store, dict(self.request.match_info), params, self._base_url())
            answer = self.store.show(self.route.handler(call))
            return 200, self.store.expand(answer, expand)
        finally:
            self.store.request = {"id": None, "idempotency_key": None}

    def _base_url(self) -> str:
        return f"{self.request.scheme}://{self.request.host}"

    def _authenticate(self) -> None:
        key = self.sent_key
        if key not in self.api.keys:
            shown = f"{key[:8]}****{key[-4:]}" if len(key) > 12 else "****"
            raise StripeError(401, f"Invalid API Key provided: {shown}")
        version = self.request.headers.get("Stripe-Version", events.API_VERSION)
        if version != events.API_VERSION:
            raise StripeError(400, f"The fake speaks {events.API_VERSION} only, not {version}.")
        if self.request.headers.get("Stripe-Account"):
            raise StripeError(
                403,
                "The fake has one account: it does not serve connected ones (Stripe-Account).",
                code="account_invalid",
            )

    def _remembered(self) -> tuple[int, Object] | None:
        if self.key is None:
            return None
        if not 0 < len(self.key) <= IDEMPOTENCY_KEY_MAX:
            raise StripeError(400, "Idempotency keys have 1 to 255 characters.")
        name = f"{self.livemode}:{self.key}"
        whole = json.dumps([self.request.path, self.form], sort_keys=True)
        fingerprint = hashlib.sha256(whole.encode()).hexdigest()
        old = self.api.remembered.get(name)
        if old is None or old.at_s + IDEMPOTENCY_S <= self.store.now_s:
            self.entry = Remembered(fingerprint, self.store.now_s)
            self.api.remembered[name] = self.entry
            return None
        if old.fingerprint != fingerprint:
            raise StripeError(
                400,
                f"Keys for idempotent requests can only be used with the same parameters they were"
                f" first used with. Try using a key other than '{self.key}' if you meant to execute"
                f" a different request.",
                kind="idempotency_error",
            )
        if old.running or old.status is None or old.body is None:
            raise StripeError(
                409,
                "There is currently another in-progress request using this Idempotency-Key.",
                kind="idempotency_error",
                code="idempotency_key_in_use",
            )
        return old.status, old.body

    def _remember(self, status: int, body: Object) -> None:
        """Keeps the answer under its key. A refusal before any work leaves the key free."""
        if self.entry is None:
            return
        if status in {400, 401, 403, 404}:
            del self.api.remembered[f"{self.livemode}:{self.key}"]
        else:
            self.entry.status, self.entry.body = status, body

    def _troubled(self, trouble: Trouble) -> web.Response:
        if trouble.status is None:
            self._log(0)
            if self.request.transport is not None:
                self.request.transport.abort()
            return web.Response(status=500)
        self._log(trouble.status)
        kind = "rate_limit_error" if trouble.status == 429 else "api_error"
        error = StripeError(trouble.status, "An error of the fake's, as a test asked.", kind=kind)
        return self._respond(trouble.status, error.body(self.request_id))

    def _log(self, status: int) -> None:
        request = self.request
        self.api.log.append(
            Request(
                request.method,
                request.path,
                self.form,
                self.key,
                status,
                self.livemode,
                self.replayed,
            )
        )

    def _respond(self, status: int, body: Object) -> web.Response:
        headers = {"Request-Id": self.request_id, "Stripe-Version": events.API_VERSION}
        if self.key is not None:
            headers["Idempotency-Key"] = self.key
        if self.replayed:
            headers["Idempotent-Replayed"] = "true"
        return web.json_response(body, status=status, headers=headers)

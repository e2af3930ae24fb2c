"""Events on their way to endpoints: signed, sent, tried again for three days, then given up.

A failed try is repeated after 5 and 30 minutes and some hours of the fake's clock, as at Stripe.
While that clock runs with real time, tries after seconds come first (`RETRY_SOON_S`): whoever looks
on would not wait for minutes.

mode "at once"   each event is sent as soon as it is made, in order, behind the call that made it
mode "held"      events wait; a test sends them in whatever order, number and part it wants
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import aiohttp

from . import events
from .clock import DAY_S, HOUR_S, MINUTE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .store import Object, Store

ANSWER_S_MAX = 20
# How long after a failed try the next one comes; what is still undelivered after three days stays.
RETRY_AFTER_S = (5 * MINUTE_S, 30 * MINUTE_S, 2 * HOUR_S, 5 * HOUR_S, 10 * HOUR_S, 12 * HOUR_S)
# And before these where the clock runs: 2, 5, 15 seconds and a minute each after the one before.
RETRY_SOON_S = (2, 5, 15, MINUTE_S)
RETRIED_S_MAX = 3 * DAY_S
RETRY = "delivery.retry"

Form = Literal["snapshot", "thin"]
Mode = Literal["at once", "held"]
State = Literal["held", "waiting", "delivered", "failed", "given up", "dropped"]


@dataclass(slots=True)
class Endpoint:
    """Where events go. All of its secrets sign. `types` may hold `*`; `livemode` None: both."""

    endpoint_id: str
    url: str
    secrets: list[str]
    forms: list[Form] = field(default_factory=lambda: ["snapshot"])
    types: list[str] = field(default_factory=lambda: ["*"])
    livemode: bool | None = None
    enabled: bool = True

    def wants(self, event: Object) -> bool:
        """Whether an event is sent here."""
        modes = (None, event["livemode"])
        known = "*" in self.types or event["type"] in self.types
        return self.enabled and known and self.livemode in modes


@dataclass(slots=True)
class Delivery:
    """One event on its way to one endpoint. `answers`: the status of each try, 0 for none."""

    delivery_id: str
    event: Object
    form: Form
    endpoint: Endpoint
    state: State
    since_s: int
    answers: list[int] = field(default_factory=list)

    def body(self) -> bytes:
        """The same bytes at each try."""
        if self.form == "thin":
            return _json(events.thin(self.event))
        shown = {key: value for key, value in self.event.items() if not key.startswith("_")}
        return _json(shown)


def _json(document: Any) -> bytes:
    return json.dumps(document, indent=2).encode()


def signature(body: bytes, secrets: Iterable[str], at_s: int) -> str:
    """The header `Stripe-Signature`: a time, and a signature by each secret."""
    signed = f"{at_s}.".encode() + body
    parts = [hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest() for secret in secrets]
    return ",".join([f"t={at_s}", *(f"v1={part}" for part in parts)])


class Deliveries:
    """Every delivery there was, and the task that sends those that wait."""

    def __init__(self, mode: Mode = "at once", signed_at: Callable[[], float] = time.time) -> None:
        self.mode: Mode = mode
        self.endpoints: list[Endpoint] = []
        self.all: list[Delivery] = []
        # Signatures carry real time, which is what a receiver compares them with, unless told.
        self.signed_at = signed_at
        self._waiting: asyncio.Queue[tuple[Store, Delivery]] = asyncio.Queue()
        self._session: aiohttp.ClientSession | None = None
        self._sender: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to send."""
        # A session of its own for each try would do as well; cookies must not travel.
        self._session = aiohttp.ClientSession(
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=ANSWER_S_MAX),
        )
        self._sender = asyncio.create_task(self._send_waiting(), name="fake Stripe's deliveries")

    async def stop(self) -> None:
        """Sends no more."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.gather(self._sender, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    @property
    def held(self) -> list[Delivery]:
        """What waits for a test to send it, as made."""
        return [each for each in self.all if each.state == "held"]

    def take(self, store: Store, event: Object) -> None:
        """A new event: a delivery for each endpoint and form that wants it."""
        for endpoint in self.endpoints:
            if not endpoint.wants(event):
                continue
            for form in endpoint.forms:
                delivery = Delivery(
                    f"dlv_{len(self.all) + 1}", event, form, endpoint, "held", store.now_s
                )
                self.all.append(delivery)
                event["pending_webhooks"] += 1
                if self.mode == "at once":
                    self.again(store, delivery)

    def again(self, store: Store, delivery: Delivery) -> None:
        """Has a delivery sent behind what waits already."""
        delivery.state = "waiting"
        self._waiting.put_nowait((store, delivery))

    async def idle(self) -> None:
        """Returns when nothing waits to be sent."""
        await self._waiting.join()

    async def _send_waiting(self) -> None:
        while True:
            store, delivery = await self._waiting.get()
            try:
                await self.send(store, delivery)
            finally:
                self._waiting.task_done()

    async def send(self, store: Store, delivery: Delivery) -> int:
        """One try. Answers with the status, 0 when there was no answer."""
        body = delivery.body()
        headers = {
            "Content-Type": "application/json; charset=utf-8",
            "Stripe-Signature": signature(body, delivery.endpoint.secrets, int(self.signed_at())),
            "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
        }
        status = await self._post(delivery.endpoint.url, body, headers)
        delivery.answers.append(status)
        if 200 <= status < 300:
            if delivery.state != "delivered":
                delivery.event["pending_webhooks"] -= 1
            delivery.state = "delivered"
        elif delivery.state != "delivered":
            self._fail(store, delivery)
        return status

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        if self._session is None:
            raise RuntimeError("deliveries were not started")
        try:
            async with self._session.post(
                url, data=body, headers=headers, allow_redirects=False
            ) as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0

    def _fail(self, store: Store, delivery: Delivery) -> None:
        after_s = RETRY_SOON_S + RETRY_AFTER_S if store.clock.running else RETRY_AFTER_S
        tries = min(len(delivery.answers), len(after_s))
        next_s = store.now_s + after_s[tries - 1]
        if next_s > delivery.since_s + RETRIED_S_MAX:
            delivery.state = "given up"
            return
        delivery.state = "failed"
        store.due(next_s, RETRY, delivery.delivery_id)

    def retry(self, store: Store, delivery_id: str) -> None:
        """The time has come to try a failed delivery again."""
        for delivery in self.all:
            if delivery.delivery_id == delivery_id and delivery.state == "failed":
                self.again(store, delivery)

    def dump(self) -> dict[str, Any]:
        """Endpoints and deliveries as JSON; events by their ids."""
        return {
            "mode": self.mode,
            "endpoints": [asdict(endpoint) for endpoint in self.endpoints],
            "all": [
                {
                    "delivery_id": each.delivery_id,
                    "event": each.event["id"],
                    "form": each.form,
                    "endpoint": each.endpoint.endpoint_id,
                    "state": each.state,
                    "since_s": each.since_s,
                    "answers": each.answers,
                }
                for each in self.all
            ],
        }

    def load(self, saved: dict[str, Any], stores: Iterable[Store]) -> None:
        """Takes the place of all there was; what was waiting is sent again."""
        self.mode = saved["mode"]
        self.endpoints = [Endpoint(**each) for each in saved["endpoints"]]
        by_id = {endpoint.endpoint_id: endpoint for endpoint in self.endpoints}
        known = {e["id"]: (store, e) for store in stores for e in store.all("event")}
        self.all = []
        for row in saved["all"]:
            if row["event"] not in known or row["endpoint"] not in by_id:
                continue
            store, event = known[row["event"]]
            delivery = Delivery(**row | {"event": event, "endpoint": by_id[row["endpoint"]]})
            self.all.append(delivery)
            if delivery.state == "waiting":
                self.again(store, delivery)

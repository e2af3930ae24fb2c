"""The fake Stripe for tests: `async with FakeStripe.running() as fake`."""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal

from aiohttp import web

from . import disputes, payer, payment_methods
from .clock import DAY_S, HOUR_S, Agenda, Clock
from .deliveries import RETRY, Deliveries, Delivery, Endpoint, Form, Mode
from .dunning import Dunning
from .errors import StripeError
from .keys import API_KEY, LIVE_API_KEY, WEBHOOK_SECRET
from .pages import Pages
from .resources import DUE
from .server import Api, Request, Trouble
from .store import Ids, Object, Store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterable

    from .payment_methods import Behaviour

TICK_S = 1


class FakeStripe:
    """Stripe on a port of this machine, with a clock that can be moved."""

    api_key = API_KEY
    live_api_key = LIVE_API_KEY

    def __init__(
        self,
        *,
        now_s: int | None = None,
        real_time: bool = False,
        seed: str | None = None,
        signed_at: Callable[[], float] = time.time,
        webhook_secret: str = WEBHOOK_SECRET,
    ) -> None:
        self.url = ""
        self.webhook_secret = webhook_secret
        self.real_time = real_time
        self.clock = Clock(now_s, running=real_time)
        self.agenda = Agenda()
        self.ids = Ids(seed or secrets.token_hex(8))
        self.deliveries = Deliveries(signed_at=signed_at)
        self.dunning = Dunning()
        self.stores = {
            livemode: Store(
                livemode=livemode,
                clock=self.clock,
                agenda=self.agenda,
                ids=self.ids,
                deliveries=self.deliveries,
                dunning=self.dunning,
            )
            for livemode in (False, True)
        }
        self.api = Api(self.stores, {API_KEY, LIVE_API_KEY})
        self._moving = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        now_s: int | None = None,
        real_time: bool = False,
        seed: str | None = None,
        signed_at: Callable[[], float] = time.time,
        webhook_secret: str = WEBHOOK_SECRET,
    ) -> AsyncIterator[FakeStripe]:
        """A fake that answers on `url` until the block ends.

        `now_s`: where its clock stands at first, else real now; `real_time`: it runs on from there.
        `seed`: the same one makes the same ids. `signed_at`: the time that signatures carry.
        """
        fake = cls(
            now_s=now_s,
            real_time=real_time,
            seed=seed,
            signed_at=signed_at,
            webhook_secret=webhook_secret,
        )
        async with fake.serving(host, port):
            yield fake

    @asynccontextmanager
    async def serving(
        self, host: str, port: int, *, reuse_port: bool = False
    ) -> AsyncIterator[None]:
        """Answers on the port until the block ends; for one that was made, or loaded, before.

        `reuse_port`: whoever holds it shares it.
        """
        app = self.api.application()
        Pages(self).add_to(app)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, host, port, reuse_port=reuse_port)
        ticker: asyncio.Task[None] | None = None
        try:
            await site.start()
            self.url = f"http://{host}:{runner.addresses[0][1]}"
            await self.deliveries.start()
            if self.real_time:
                ticker = asyncio.create_task(self._tick(), name="fake Stripe's clock")
            yield
        finally:
            if ticker is not None:
                ticker.cancel()
                await asyncio.gather(ticker, return_exceptions=True)
            await self.deliveries.stop()
            await runner.cleanup()

    @property
    def store(self) -> Store:
        """The objects of test mode."""
        return self.stores[False]

    @property
    def endpoints(self) -> list[Endpoint]:
        """Where events go; a test may change what is in it."""
        return self.deliveries.endpoints

    @property
    def requests(self) -> list[Request]:
        """Every call of the API that was answered, or cut off, so far."""
        return self.api.log

    def add_endpoint(
        self,
        url: str,
        *,
        forms: Iterable[Form] = ("snapshot",),
        types: Iterable[str] = ("*",),
        secrets: Iterable[str] | None = None,
        livemode: bool | None = None,
    ) -> Endpoint:
        """Sends events to `url` from now on, signed by `secrets`, else by `webhook_secret`."""
        endpoint = Endpoint(
            self.ids.make("we"),
            url,
            list(secrets or [self.webhook_secret]),
            list(forms),
            list(types),
            livemode,
        )
        self.deliveries.endpoints.append(endpoint)
        return endpoint

    def fail_next(
        self,
        calls: int = 1,
        status: int | Literal["disconnect"] = 500,
        *,
        after: bool = False,
        path: str = "/",
    ) -> None:
        """Trouble for the next calls of the API; with `after` the work is done all the same.

        `path`: only for calls to paths that begin so, such as `/v1/refunds`.
        """
        code = None if isinstance(status, str) else status
        self.api.trouble.append(Trouble(calls, code, after, path))

    def hold_answers(self) -> None:
        """Does the work of calls, but does not answer them until `release_answers`."""
        self.api.answers.clear()

    def release_answers(self) -> None:
        """Answers all calls that wait, and later ones at once."""
        self.api.answers.set()

    async def advance(self, *, days: int = 0, hours: int = 0, seconds: int = 0) -> None:
        """Moves the clock on, and does all that falls due on the way, in the order of time."""
        await self.advance_to(self.clock.now_s + days * DAY_S + hours * HOUR_S + seconds)

    async def advance_to(self, to_s: int) -> None:
        """The same, to a time. Each step's events are delivered before the next, when at once."""
        async with self._moving:
            await self.deliveries.idle()
            while (due := self.agenda.next(to_s)) is not None:
                self.clock.move_to(due.at_s)
                store = self.stores[due.livemode]
                if due.what == RETRY:
                    self.deliveries.retry(store, due.object_id)
                else:
                    DUE[due.what](store, due.object_id)
                await self.deliveries.idle()
            self.clock.move_to(to_s)
        for changed in self.api.changed:
            await changed()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            await self.advance_to(self.clock.now_s)

    async def delivered(self) -> None:
        """Returns when no delivery waits to be sent."""
        await self.deliveries.idle()

    async def deliver(
        self,
        deliveries: Collection[Delivery] | None = None,
        *,
        order: Literal["as made", "reversed"] | int = "as made",
        twice: bool = False,
        drop: Collection[str] = (),
    ) -> list[int]:
        """Sends held deliveries now, one after the other. Answers with the statuses.

        `deliveries`: only these, whether held or sent before, else all that are held.
        `order`: a number shuffles by it. `twice`: each is sent again after all were sent.
        `drop`: ids or types of events that are lost for good.
        """
        chosen = list(self.deliveries.held if deliveries is None else deliveries)
        kept = []
        for each in chosen:
            if each.event["id"] in drop or each.event["type"] in drop:
                each.state = "dropped"
            else:
                kept.append(each)
        if order == "reversed":
            kept.reverse()
        elif isinstance(order, int):
            random.Random(order).shuffle(kept)
        sent = kept * 2 if twice else kept
        return [await self.deliveries.send(self.stores[e.event["livemode"]], e) for e in sent]

    def complete_checkout(
        self,
        session_id: str,
        card: Behaviour = "works",
        *,
        promotion_code: str | None = None,
        livemode: bool = False,
    ) -> Object:
        """Pays a checkout session, as its payer. One whose card is declined stays open."""
        store = self.stores[livemode]
        try:
            return payer.complete(store, session_id, card, promotion_code=promotion_code)
        except StripeError as error:
            if error.kind != "card_error":
                raise
            return store.get("checkout.session", session_id)

    def set_card(self, customer_id: str, card: Behaviour, *, livemode: bool = False) -> Object:
        """Puts a payment method on a customer's file, by which all is paid from now on."""
        store = self.stores[livemode]
        return payment_methods.put_on_file(store, store.get("customer", customer_id), card)

    def dispute(
        self,
        charge_id: str,
        amount: int | None = None,
        *,
        inquiry: bool = False,
        livemode: bool = False,
    ) -> Object:
        """Disputes an amount of a charge, else all that is left, as its payer does at the bank."""
        return disputes.open_dispute(self.stores[livemode], charge_id, amount, inquiry=inquiry)

    def close_dispute(
        self, dispute_id: str, ending: disputes.Ending, *, livemode: bool = False
    ) -> Object:
        """Decides a dispute, as the bank does."""
        return disputes.end_dispute(self.stores[livemode], dispute_id, ending)

    def events(self, event_type: str | None = None, *, livemode: bool = False) -> list[Object]:
        """The events that were made so far, oldest first, of one type or of all."""
        made = self.stores[livemode].all("event")
        return [event for event in made if event_type in {None, event["type"]}]

    def set_delivery_mode(self, mode: Mode) -> None:
        """How events made from now on are delivered."""
        self.deliveries.mode = mode

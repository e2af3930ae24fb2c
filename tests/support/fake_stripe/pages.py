"""The fake's pages, and what their buttons do. Programs may post to the same places, in JSON.

POST /_fake/advance                    {"days": 31, "hours": 2, "seconds": 0} or {"to": 1790000000}
POST /_fake/checkout/{session}/pay     {"card": "works", "promotion_code": "SPRING"}
POST /_fake/customers/{customer}/card  {"card": "fails at renewal"}
POST /_fake/charges/{charge}/refund    {"amount": 500}, in minor units; without it all that is left
POST /_fake/charges/{charge}/dispute   {"amount": 500, "inquiry": false}
POST /_fake/disputes/{dispute}/close   {"ending": "won"}
POST /_fake/deliveries/{delivery}/send
POST /_fake/portal/{session}/cancel, keep  {"subscription": "sub_…"}; pay {"invoice": "in_…"}; card
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiohttp import web

from . import (
    amounts,
    disputes,
    invoices,
    payer,
    payment_methods,
    payments,
    refunds,
    subscriptions,
    views,
)
from .errors import StripeError, invalid, no_such

if TYPE_CHECKING:
    from .face import FakeStripe
    from .payment_methods import Behaviour
    from .store import Object, Store

SESSION_ID = "{CHECKOUT_SESSION_ID}"
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"

Values = dict[str, Any]
Act = Callable[[web.Request, Values], Awaitable["Done"]]


@dataclass(frozen=True, slots=True)
class Done:
    """What a button has done: what a program is answered, and where a person goes."""

    body: Object
    location: str


class Pages:
    """The pages of one fake."""

    def __init__(self, fake: FakeStripe) -> None:
        self.fake = fake

    def add_to(self, app: web.Application) -> None:
        """Puts the pages beside the API."""
        app.router.add_get("/", self.dashboard)
        app.router.add_get("/checkout/{id}", self.checkout)
        app.router.add_get("/portal/{id}", self.portal)
        for path, act in {
            "/_fake/advance": self.advance,
            "/_fake/charges/{id}/dispute": self.dispute,
            "/_fake/charges/{id}/refund": self.refund,
            "/_fake/checkout/{id}/pay": self.pay_session,
            "/_fake/customers/{id}/card": self.change_card,
            "/_fake/deliveries/{id}/send": self.send,
            "/_fake/disputes/{id}/close": self.close_dispute,
            "/_fake/portal/{id}/cancel": self.cancel,
            "/_fake/portal/{id}/card": self.change_own_card,
            "/_fake/portal/{id}/keep": self.keep,
            "/_fake/portal/{id}/pay": self.pay_invoice,
        }.items():
            app.router.add_post(path, self._posted(act))

    def _posted(self, act: Act) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            program = request.content_type == "application/json"
            try:
                done = await act(request, await _values(request))
            except StripeError as error:
                return self._refused(request, error, program=program)
            finally:
                for changed in self.fake.api.changed:
                    await changed()
            if program:
                return web.json_response(done.body)
            return web.Response(status=303, headers={"Location": done.location})

        return handle

    def _refused(self, request: web.Request, error: StripeError, *, program: bool) -> web.Response:
        """What was refused is told where it was asked: on the page with the form."""
        if program:
            return web.json_response(error.body(""), status=error.status)
        parts = request.path.split("/")
        if error.status == 404:
            return web.Response(text=error.message, status=404)
        if parts[2] == "checkout":
            store, session = self._find("checkout.session", parts[3])
            return _html(views.checkout(store, session, error.message), error.status)
        if parts[2] == "portal":
            store, session = self._find("billing_portal.session", parts[3])
            return _html(views.portal(store, session, error.message), error.status)
        return _html(views.dashboard(self.fake, error.message), error.status)

    def _find(self, kind: str, object_id: str) -> tuple[Store, Object]:
        """An object of either mode, which a page's address does not say.

        Raises: StripeError, 404.
        """
        for store in self.fake.stores.values():
            if object_id in store.tables.get(kind, {}):
                return store, store.get(kind, object_id)
        raise no_such(kind, object_id)

    async def dashboard(self, request: web.Request) -> web.Response:
        """`GET /`."""
        del request
        return _html(views.dashboard(self.fake))

    async def checkout(self, request: web.Request) -> web.Response:
        """`GET /checkout/{session}`."""
        return self._shown(views.checkout, "checkout.session", request)

    async def portal(self, request: web.Request) -> web.Response:
        """`GET /portal/{session}`."""
        return self._shown(views.portal, "billing_portal.session", request)

    def _shown(
        self, view: Callable[[Store, Object], str], kind: str, request: web.Request
    ) -> web.Response:
        try:
            return _html(view(*self._find(kind, request.match_info["id"])))
        except StripeError as error:
            return web.Response(text=error.message, status=error.status)

    async def advance(self, request: web.Request, values: Values) -> Done:
        """Moves the clock on."""
        del request
        if "to" in values:
            await self.fake.advance_to(_whole(values, "to"))
        else:
            await self.fake.advance(
                **{name: _whole(values, name) for name in ("days", "hours", "seconds")}
            )
        return Done({"now_s": self.fake.clock.now_s}, "/")

    async def pay_session(self, request: web.Request, values: Values) -> Done:
        """Pays a checkout session, and goes on to where it says."""
        store, session = self._find("checkout.session", request.match_info["id"])
        payer.complete(
            store,
            session["id"],
            _behaviour(values),
            promotion_code=values.get("promotion_code") or None,
            email=values.get("email") or payer.EMAIL,
        )
        return Done(store.show(session), session["success_url"].replace(SESSION_ID, session["id"]))

    async def change_card(self, request: web.Request, values: Values) -> Done:
        """Puts a new payment method on a customer's file."""
        store, customer = self._find("customer", request.match_info["id"])
        method = payment_methods.put_on_file(store, customer, _behaviour(values))
        return Done(store.show(method), "/")

    async def refund(self, request: web.Request, values: Values) -> Done:
        """Pays back a charge, as the owner does at Stripe's dashboard."""
        store, charge = self._find("charge", request.match_info["id"])
        made = refunds.pay_back(store, charge, {"amount": _amount(values, charge)})
        return Done(store.show(made), "/")

    async def dispute(self, request: web.Request, values: Values) -> Done:
        """Disputes a charge, as its payer."""
        store, charge = self._find("charge", request.match_info["id"])
        amount = _amount(values, charge)
        inquiry = values.get("inquiry") in {True, "true"}
        return Done(
            store.show(disputes.open_dispute(store, charge["id"], amount, inquiry=inquiry)), "/"
        )

    async def close_dispute(self, request: web.Request, values: Values) -> Done:
        """Decides a dispute, as the bank."""
        store, dispute = self._find("dispute", request.match_info["id"])
        for ending in disputes.ENDINGS:
            if values.get("ending") == ending:
                return Done(store.show(disputes.end_dispute(store, dispute["id"], ending)), "/")
        raise invalid(f"Invalid ending: must be one of {', '.join(disputes.ENDINGS)}", "ending")

    async def send(self, request: web.Request, values: Values) -> Done:
        """Sends one delivery again, whatever became of it."""
        del values
        for delivery in self.fake.deliveries.all:
            if delivery.delivery_id == request.match_info["id"]:
                store = self.fake.stores[delivery.event["livemode"]]
                self.fake.deliveries.again(store, delivery)
                await self.fake.delivered()
                return Done({"answers": delivery.answers, "state": delivery.state}, "/")
        raise no_such("delivery", request.match_info["id"])

    async def change_own_card(self, request: web.Request, values: Values) -> Done:
        """Puts a new payment method on file, as its customer."""
        store, session = self._find("billing_portal.session", request.match_info["id"])
        customer = store.get("customer", session["customer"])
        behaviour = _behaviour(values)
        if behaviour == "fails":
            raise StripeError(402, "Your card was declined.", kind="card_error")
        method = payment_methods.put_on_file(store, customer, behaviour)
        return Done(store.show(method), f"/portal/{session['id']}")

    async def cancel(self, request: web.Request, values: Values) -> Done:
        """Cancels a subscription, when the portal says: at its period's end, or now."""
        store, session, subscription = self._own(request, values, "subscription")
        configuration = store.get("billing_portal.configuration", session["configuration"])
        if configuration["features"]["subscription_cancel"]["mode"] == "immediately":
            subscriptions.end(store, subscription, reason="cancellation_requested")
        else:
            with store.updating(subscription):
                ends_s = subscriptions.period_of(subscription)[1]
                subscriptions.plan_cancellation(store, subscription, ends_s)
                subscription["cancel_at_period_end"] = True
        return Done(store.show(subscription), f"/portal/{session['id']}")

    async def keep(self, request: web.Request, values: Values) -> Done:
        """Takes back that a subscription is to end."""
        store, session, subscription = self._own(request, values, "subscription")
        with store.updating(subscription):
            subscriptions.unplan_cancellation(subscription)
        return Done(store.show(subscription), f"/portal/{session['id']}")

    async def pay_invoice(self, request: web.Request, values: Values) -> Done:
        """Tries to pay an open invoice with what is on file, the payer present."""
        store, session, invoice = self._own(request, values, "invoice")
        payment = invoices.collect(store, invoice, present=True)
        if payment is not None and payment.outcome == "failed":
            raise payments.card_error(payment)
        return Done(store.show(invoice), f"/portal/{session['id']}")

    def _own(self, request: web.Request, values: Values, kind: str) -> tuple[Store, Object, Object]:
        """The portal session, and a thing of its customer.

        Raises: StripeError, 404, also when it is another customer's.
        """
        store, session = self._find("billing_portal.session", request.match_info["id"])
        found = store.get(kind, str(values.get(kind, "")))
        if found["customer"] != session["customer"]:
            raise no_such(kind, found["id"])
        return store, session, found


async def _values(request: web.Request) -> Values:
    """What was posted, as JSON or as a form.

    Raises: StripeError, 400, for JSON that is no object.
    """
    if request.content_type != "application/json":
        return dict(await request.post())
    try:
        values = json.loads(await request.text() or "{}")
    except ValueError as error:
        raise invalid(f"Bad JSON: {error}") from error
    if not isinstance(values, dict):
        raise invalid("Bad JSON: not an object")
    return values


def _whole(values: Values, name: str) -> int:
    try:
        return int(values.get(name, 0))
    except (TypeError, ValueError) as error:
        raise invalid(f"Invalid integer: {values[name]}", name) from error


def _amount(values: Values, charge: Object) -> int | None:
    """Minor units, as programs say them, or what a person typed (`money`); None: not said."""
    if values.get("money"):
        return amounts.typed(str(values["money"]), charge["currency"])
    return _whole(values, "amount") if values.get("amount") is not None else None


def _behaviour(values: Values) -> Behaviour:
    for behaviour in payment_methods.BEHAVIOURS:
        if values.get("card", "works") == behaviour:
            return behaviour
    known = ", ".join(payment_methods.BEHAVIOURS)
    raise invalid(f"Invalid card: must be one of {known}", "card")


def _html(text: str, status: int = 200) -> web.Response:
    return web.Response(
        text=text,
        status=status,
        content_type="text/html",
        headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-store"},
    )

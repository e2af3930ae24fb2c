"""What a payer does at a checkout session: pays it, or is declined and may try again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    cart,
    customers,
    discounts,
    invoice_items,
    invoices,
    payment_methods,
    payments,
    setup_intents,
    subscriptions,
)
from .calls import Call
from .clock import DAY_S
from .errors import StripeError, invalid
from .subscriptions import Terms, Wanted

if TYPE_CHECKING:
    from .payment_methods import Behaviour
    from .payments import Payment
    from .store import Object, Store

EMAIL = "payer@example.com"
NAME = "Pat Payer"
ADDRESS = {
    "city": "San Francisco",
    "country": "US",
    "line1": "1 Market Street",
    "line2": None,
    "postal_code": "94105",
    "state": "CA",
}


def use_promotion_code(store: Store, session: Object, code: str) -> None:
    """Takes the code that the payer typed in; the session's sums are less by it.

    Raises: StripeError, 400, when the session takes none, or not this one.
    """
    if not session["allow_promotion_codes"]:
        raise invalid("This session takes no promotion codes.", "promotion_code")
    found = [one for one in store.all("promotion_code") if one["code"].lower() == code.lower()]
    usable = [one for one in found if one["active"]]
    if not usable:
        raise invalid("This code is invalid.", "promotion_code")
    customer = store.find(session["customer"] or "")
    session["discounts"] = cart.named_discounts(
        store, customer, [{"promotion_code": usable[-1]["id"]}]
    )
    cart.price(store, session)


def complete(
    store: Store,
    session_id: str,
    behaviour: Behaviour = "works",
    *,
    promotion_code: str | None = None,
    email: str = EMAIL,
) -> Object:
    """Pays a session with a new card or bank account that behaves as said.

    Raises: StripeError, 402, when it is declined: then the session is still open. 400, when the
    session is not open, or does not take the promotion code.
    """
    session = store.get("checkout.session", session_id)
    if session["status"] != "open":
        raise invalid(f"This session is {session['status']}.")
    if promotion_code is not None:
        use_promotion_code(store, session, promotion_code)
    customer = store.find(session["customer"] or "")
    email = session["customer_email"] or email
    method = _method(store, session, behaviour, email)
    if method is not None and payment_methods.behaviour_of(method) == "fails":
        raise _declined(store, session, customer, method)
    customer = _customer(store, session, customer, email)
    if customer is not None and method is not None and _keeps_method(session):
        payment_methods.attach(store, method, customer)
    PAY[session["mode"]](store, session, customer, method)
    _close(store, session, customer, email)
    return session


def _method(store: Store, session: Object, behaviour: Behaviour, email: str) -> Object | None:
    """What the payer enters; nothing, where nothing is to be paid and the session says so."""
    free = session["amount_total"] == 0
    if free and (session["mode"] == "payment" or _if_required(session)):
        return None
    return payment_methods.make(store, behaviour, name=NAME, email=email)


def _if_required(session: Object) -> bool:
    return bool(session["payment_method_collection"] == "if_required")


def _keeps_method(session: Object) -> bool:
    """Whether the payment method stays on file: a single payment is done with it."""
    return session["mode"] != "payment" or bool(session["_data"].get("setup_future_usage"))


def _declined(
    store: Store, session: Object, customer: Object | None, method: Object
) -> StripeError:
    """A card that is declined at once. Nothing is sold: there is a failed charge, if anything."""
    if not session["amount_total"]:
        return StripeError(
            402,
            "Your card was declined.",
            kind="card_error",
            code="card_declined",
            decline_code="generic_decline",
        )
    intent = _intent(store, session, customer)
    return payments.card_error(payments.attempt(store, intent, method, present=True))


def _intent(store: Store, session: Object, customer: Object | None) -> Object:
    """What the session is paid by, however often that is tried. A subscription's first invoice
    has its own, which is not made before the payer's card works.
    """
    found = store.find(session["_intent"] or "")
    if found is not None:
        return found
    once, data = session["mode"] == "payment", session["_data"]
    made = payments.prepare(
        store,
        customer,
        session["amount_total"],
        session["currency"],
        description=data.get("description") if once else None,
        metadata=data.get("metadata") if once else None,
        pays=session if once else None,
    )
    made["setup_future_usage"] = data.get("setup_future_usage") if once else "off_session"
    session["_intent"] = made["id"]
    return made


def _customer(store: Store, session: Object, customer: Object | None, email: str) -> Object | None:
    """The session's customer, made now if it needs one; a guest is none."""
    if customer is None:
        if session["customer_creation"] != "always":
            return None
        params = {"email": email, "name": NAME, "address": ADDRESS}
        return customers.create(Call(store, {}, params, ""))
    allowed = session["_customer_update"]
    with store.updating(customer):
        if allowed.get("address") == "auto":
            customer["address"] = dict(ADDRESS)
        if allowed.get("name") == "auto":
            customer["name"] = NAME
    return customer


def _subscribe(
    store: Store, session: Object, customer: Object | None, method: Object | None
) -> None:
    if customer is None:
        raise AssertionError("a session that sells a subscription has a customer")
    data = session["_data"]
    sold = [_wanted(store, line) for line in session["_lines"]]
    subscription = subscriptions.start(
        store,
        customer,
        [one for one in sold if one.price["type"] == "recurring"],
        Terms(
            metadata=data.get("metadata") or {},
            trial_end_s=_trial_end_s(store, data),
            discounts=session["discounts"] or (),
            automatic_tax=session["automatic_tax"]["enabled"],
            description=data.get("description"),
            default_payment_method=method["id"] if method else None,
            missing_at_trial_end=_missing_at_trial_end(data),
            extras=[one for one in sold if one.price["type"] != "recurring"],
        ),
    )
    invoice = store.get("invoice", subscription["latest_invoice"])
    session |= {"invoice": invoice["id"], "subscription": subscription["id"]}
    _set_status(session, paid=invoice["status"] == "paid")


def _wanted(store: Store, line: Object) -> Wanted:
    return Wanted(store.tables["price"][line["price"]], line["quantity"])


def _trial_end_s(store: Store, data: Object) -> int | None:
    if data.get("trial_end"):
        return int(data["trial_end"])
    days = data.get("trial_period_days")
    return store.now_s + days * DAY_S if days else None


def _missing_at_trial_end(data: Object) -> str:
    behavior = (data.get("trial_settings") or {}).get("end_behavior") or {}
    return str(behavior.get("missing_payment_method") or "create_invoice")


def _pay_once(
    store: Store, session: Object, customer: Object | None, method: Object | None
) -> None:
    if session["invoice_creation"]["enabled"] and customer is not None:
        _pay_by_invoice(store, session, customer, method)
        return
    discounts.redeem(
        store,
        customer or {"id": None},
        session["discounts"],
        checkout_session=session["id"],
    )
    if session["amount_total"] == 0:
        _set_status(session, paid=True)
        return
    intent = _intent(store, session, customer)
    intent["customer"] = customer["id"] if customer else None
    session["payment_intent"] = intent["id"]
    payment = payments.attempt(store, intent, method, present=True)
    _set_status(session, paid=payment.outcome == "succeeded")


def _pay_by_invoice(store: Store, session: Object, customer: Object, method: Object | None) -> None:
    """A single payment with an invoice, which Stripe makes after the fact."""
    data = session["invoice_creation"]["invoice_data"]
    ids = discounts.redeem(store, customer, session["discounts"], checkout_session=session["id"])
    for line in session["_lines"]:
        invoice_items.add_for_price(store, customer, _wanted(store, line), None)
    invoice = invoices.draft(
        store,
        customer,
        [],
        reason="manual",
        currency=session["currency"],
        period=(store.now_s, store.now_s),
        discount_ids=ids,
        automatic_tax=session["automatic_tax"]["enabled"],
        auto_advance=False,
    )
    invoice |= {"description": data["description"], "metadata": dict(data["metadata"] or {})}
    invoice_items.take_pending(store, customer, invoice, None)
    invoices.announce(store, invoice)
    invoices.finalize(store, invoice)
    payment = invoices.collect(store, invoice, method=method, present=True)
    session["invoice"] = invoice["id"]
    if payment is not None:
        payment.intent["metadata"] = dict(session["_data"].get("metadata") or {})
        session["payment_intent"] = payment.intent["id"]
    _set_status(session, paid=invoice["status"] == "paid")


def _set_up(store: Store, session: Object, customer: Object | None, method: Object | None) -> None:
    if method is None:
        raise AssertionError("a session that sets up a payment method has one")
    metadata = session["_data"].get("metadata")
    session["setup_intent"] = setup_intents.succeed(store, customer, method, metadata)["id"]


def _set_status(session: Object, *, paid: bool) -> None:
    if session["amount_total"] == 0:
        session["payment_status"] = "no_payment_required"
    else:
        session["payment_status"] = "paid" if paid else "unpaid"


def _close(store: Store, session: Object, customer: Object | None, email: str) -> None:
    known = customer or {"address": ADDRESS, "email": email, "name": NAME, "phone": None}
    session |= {
        "customer": customer["id"] if customer else None,
        "customer_details": {
            "address": dict(known["address"] or ADDRESS),
            "business_name": None,
            "email": known["email"] or email,
            "individual_name": None,
            "name": known["name"] or NAME,
            "phone": known["phone"],
            "tax_exempt": "none",
            "tax_ids": [],
        },
        "status": "complete",
        "url": None,
        "_waits": session["payment_status"] == "unpaid",
    }
    store.emit("checkout.session.completed", session)


def debit_ended(store: Store, session: Object, payment: Payment) -> None:
    """The bank debit that paid a session is through, or was returned."""
    if not session["_waits"]:
        return
    session["_waits"] = False
    if payment.outcome == "succeeded":
        session["payment_status"] = "paid"
        store.emit("checkout.session.async_payment_succeeded", session)
    else:
        store.emit("checkout.session.async_payment_failed", session)


PAY = {"payment": _pay_once, "setup": _set_up, "subscription": _subscribe}
payments.AFTER["checkout.session"] = debit_ended

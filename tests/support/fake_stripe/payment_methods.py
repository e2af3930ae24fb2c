"""What customers pay with: cards and bank accounts. How one behaves shows in its last four digits.

They are Stripe's own test numbers where there is one, so that what is kept says all there is.

works              4242  every payment succeeds
fails              0002  a payer is declined at once; put on file, it is declined at every charge
fails at renewal   0341  pays once, with the payer present, and is declined from then on
async              6789  a bank debit: under way for days, then it succeeds
async fails        1116  a bank debit: under way for days, then it is returned
refund fails       5126  every payment succeeds, but a refund comes back a day later
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from .calls import get as getting
from .calls import listing, page, post, retrieving, where
from .errors import StripeError, invalid, no_such
from .forms import text

if TYPE_CHECKING:
    from .calls import Call
    from .store import Object, Store

Behaviour = Literal["works", "fails", "fails at renewal", "async", "async fails", "refund fails"]
BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)
LAST4: dict[Behaviour, str] = {
    "works": "4242",
    "fails": "0002",
    "fails at renewal": "0341",
    "async": "6789",
    "async fails": "1116",
    "refund fails": "5126",
}
BEHAVIOUR = {last4: behaviour for behaviour, last4 in LAST4.items()}
# Ids that Stripe knows in test mode without their having been made: each use makes a new one.
TEST_IDS: dict[str, Behaviour] = {
    "pm_card_visa": "works",
    "pm_card_visa_chargeDeclined": "fails",
    "pm_card_chargeCustomerFail": "fails at renewal",
    "pm_card_refundFail": "refund fails",
    "pm_usBankAccount_success": "async",
    "pm_usBankAccount_insufficientFunds": "async fails",
}
URL = "/v1/payment_methods"
EXPIRY_YEARS = 4
SECONDS_PER_YEAR = 31_556_952


def behaviour_of(method: Object) -> Behaviour:
    """How payments by it end."""
    return BEHAVIOUR[method[method["type"]]["last4"]]


def is_debit(method: Object) -> bool:
    """Whether a payment by it is under way for days."""
    return bool(method["type"] == "us_bank_account")


def make(store: Store, behaviour: Behaviour, *, name: str | None, email: str | None) -> Object:
    """A new card or bank account, nobody's yet."""
    bank = behaviour in {"async", "async fails"}
    kind = "us_bank_account" if bank else "card"
    details = _bank_account(behaviour) if bank else _card(store, behaviour)
    return store.add(
        "payment_method",
        "pm",
        {
            "allow_redisplay": "unspecified",
            "billing_details": {
                "address": dict.fromkeys(
                    ("city", "country", "line1", "line2", "postal_code", "state")
                ),
                "email": email,
                "name": name,
                "phone": None,
                "tax_id": None,
            },
            "customer": None,
            "customer_account": None,
            "metadata": {},
            "type": kind,
            kind: details,
        },
    )


def _card(store: Store, behaviour: Behaviour) -> Object:
    return {
        "brand": "visa",
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "pass",
        },
        "country": "US",
        "display_brand": "visa",
        "exp_month": 12,
        "exp_year": 1970 + store.now_s // SECONDS_PER_YEAR + EXPIRY_YEARS,
        "fingerprint": f"Fake{LAST4[behaviour]}Fingerprint",
        "funding": "credit",
        "generated_from": None,
        "last4": LAST4[behaviour],
        "networks": {"available": ["visa"], "preferred": None},
        "regulated_status": "unregulated",
        "three_d_secure_usage": {"supported": True},
        "wallet": None,
    }


def _bank_account(behaviour: Behaviour) -> Object:
    return {
        "account_holder_type": "individual",
        "account_type": "checking",
        "bank_name": "STRIPE TEST BANK",
        "financial_connections_account": None,
        "fingerprint": f"Fake{LAST4[behaviour]}Fingerprint",
        "last4": LAST4[behaviour],
        "networks": {"preferred": "ach", "supported": ["ach"]},
        "routing_number": "110000000",
        "status_details": {},
    }


def get(store: Store, method_id: str, param: str = "payment_method") -> Object:
    """A payment method by its id in a parameter; a test id makes a new one."""
    if method_id in TEST_IDS and not store.livemode:
        return make(store, TEST_IDS[method_id], name=None, email=None)
    found = store.tables.get("payment_method", {}).get(method_id)
    if found is None:
        raise no_such("PaymentMethod", method_id, param, status=400)
    return found


def attach(store: Store, method: Object, customer: Object) -> Object:
    """Puts a payment method on a customer's file.

    Raises: StripeError, when it is somebody else's.
    """
    if method["customer"] == customer["id"]:
        return method
    if method["customer"] is not None:
        raise invalid(
            "The payment method you provided has already been attached to a customer.",
            "payment_method",
            "payment_method_unexpected_state",
        )
    method["customer"] = customer["id"]
    store.emit("payment_method.attached", method)
    return method


def refuse_declined(method: Object) -> None:
    """Stripe asks the bank before it puts a card on file.

    Raises: StripeError, when the card is declined.
    """
    if behaviour_of(method) == "fails":
        raise StripeError(
            402,
            "Your card was declined.",
            kind="card_error",
            code="card_declined",
            decline_code="generic_decline",
        )


def detach(store: Store, method: Object) -> Object:
    """Takes a payment method off its customer's file and out of all its defaults."""
    if method["customer"] is None:
        raise invalid("The payment method you provided is not attached to a customer.")
    customer = store.get("customer", method["customer"])
    method["customer"] = None
    settings = customer["invoice_settings"]
    if settings["default_payment_method"] == method["id"]:
        with store.updating(customer):
            settings["default_payment_method"] = None
    for subscription in store.all("subscription"):
        if subscription["default_payment_method"] == method["id"]:
            with store.updating(subscription):
                subscription["default_payment_method"] = None
    store.emit("payment_method.detached", method)
    return method


def make_default(store: Store, customer: Object, method: Object) -> None:
    """What the customer's invoices are paid with from now on."""
    with store.updating(customer):
        customer["invoice_settings"]["default_payment_method"] = method["id"]


def put_on_file(store: Store, customer: Object, behaviour: Behaviour) -> Object:
    """A new payment method of a customer, by which all is paid that names no other.

    Subscriptions that named one pay by the new one too: it is what a customer means who changes
    cards, and what the portal does.
    """
    made = make(store, behaviour, name=customer["name"], email=customer["email"])
    attach(store, made, customer)
    make_default(store, customer, made)
    for subscription in store.all("subscription"):
        if subscription["customer"] == customer["id"] and subscription["default_payment_method"]:
            with store.updating(subscription):
                subscription["default_payment_method"] = made["id"]
    return made


def default_of(store: Store, *owners: Object | None) -> Object | None:
    """What to pay with: the first that is named by an invoice, subscription or customer."""
    for owner in owners:
        if owner is None:
            continue
        settings = owner.get("invoice_settings") if owner["object"] == "customer" else owner
        named = (settings or {}).get("default_payment_method")
        if named is not None:
            return get(store, named)
    return None


def list_methods(call: Call) -> Object:
    """What is on customers' files, by customer and type."""
    found = [one for one in call.store.all("payment_method") if one["customer"]]
    return page(call, where(call, found, "customer", "type"), URL)


def list_of_customer(call: Call) -> Object:
    """What is on one customer's file."""
    customer = call.store.get("customer", call.id)
    found = [o for o in call.store.all("payment_method") if o["customer"] == customer["id"]]
    return page(call, where(call, found, "type"), f"/v1/customers/{call.id}/payment_methods")


def attach_by_call(call: Call) -> Object:
    """Puts a payment method on file, if its bank does not say no at once."""
    customer = call.store.get("customer", call.need("customer"), "customer")
    method = get(call.store, call.id, "id")
    refuse_declined(method)
    return attach(call.store, method, customer)


ROUTES = (
    listing(URL, list_methods, {"customer": text, "type": text}),
    listing("/v1/customers/{id}/payment_methods", list_of_customer, {"type": text}),
    getting(URL + "/{id}", retrieving("payment_method")),
    post(URL + "/{id}/attach", attach_by_call, {"customer": text}),
    post(URL + "/{id}/detach", lambda call: detach(call.store, get(call.store, call.id, "id"))),
)

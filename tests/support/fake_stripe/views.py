"""What the fake's pages show: a session to pay, the customer portal, and all that is going on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import paid
from .amounts import money
from .markup import Markup, button, element, field, hidden, moment, page, table
from .payer import EMAIL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .deliveries import Delivery
    from .face import FakeStripe
    from .payment_methods import Behaviour
    from .store import Object, Store

EVENTS_SHOWN = 40
ONLY_THIS_CLOCK = (
    "Only this clock moves: renewals, their payments, retries and ends come with it. The gateway "
    "keeps real time: credits of a past period stay beside the new ones, grace goes on by the day, "
    "and what is paid ahead of today is in "
)
PAID_AHEAD = "tollkeeper revenue show --until DATE"
BEHAVIOUR_TEXTS: dict[Behaviour, str] = {
    "works": "Card that works",
    "fails": "Card that is declined",
    "fails at renewal": "Card that works now and is declined at renewal",
    "async": "Bank debit that takes days, then works",
    "async fails": "Bank debit that takes days, then is returned",
    "refund fails": "Card that works, but takes no refunds",
}


def checkout(store: Store, session: Object, problem: str | None = None) -> str:
    """The page of a checkout session."""
    if session["status"] != "open":
        told = f"This session is {session['status']}: there is nothing to pay here."
        return page("Checkout", element("h1", "Checkout"), element("p", told), narrow=True)
    rows = [
        [f"{line['quantity']} x {line['description']}", _cost(store, session, line)]
        for line in session["_lines"]
    ]
    inside: list[object] = [
        element("h1", "Fake Stripe Checkout"),
        element("p", "No money moves here: choose how the payment ends.", class_="soft"),
        table(["What", "Price#"], rows, "A card is put on file, nothing is paid."),
        *_sums(session),
        element("p", problem, class_="note", role="alert") if problem else "",
        _payment_form(session),
    ]
    if session["cancel_url"]:
        inside.append(element("p", element("a", "Back", href=session["cancel_url"])))
    return page("Checkout", *inside, narrow=True)


def _trial(session: Object) -> str | None:
    """How long nothing is paid, in words."""
    data = session["_data"]
    if data.get("trial_end"):
        return f"Free until {moment(data['trial_end'])}"
    days = data.get("trial_period_days")
    return f"{days} {'day' if days == 1 else 'days'} free" if days else None


def _cost(store: Store, session: Object, line: Object) -> str:
    """What a line costs; of what begins with a trial, what it costs then."""
    price = store.tables["price"][line["price"]]
    later = price["recurring"] is not None and _trial(session)
    amount = price["unit_amount"] * line["quantity"] if later else line["amount_total"]
    return money(amount, line["currency"]) + _every(price)


def _every(price: Object) -> str:
    recurring = price["recurring"]
    if recurring is None:
        return ""
    count, interval = recurring["interval_count"], recurring["interval"]
    return f" / {interval}" if count == 1 else f" / {count} {interval}s"


def _sums(session: Object) -> Iterable[Markup]:
    if session["mode"] == "setup":
        return
    currency, details = session["currency"], session["total_details"]
    if details["amount_discount"]:
        yield element("p", f"Discount: {money(-details['amount_discount'], currency)}")
    if details["amount_tax"]:
        yield element("p", f"Tax: {money(details['amount_tax'], currency)}")
    if trial := _trial(session):
        yield element("p", f"{trial}, then the price above.")
    yield element("p", "Due today: ", money(session["amount_total"], currency), class_="big")


def _payment_form(session: Object) -> Markup:
    choices = [
        element(
            "label",
            Markup(
                f'<input type="radio" name="card" value="{behaviour}"'
                f"{' checked' if behaviour == 'works' else ''}> "
            ),
            label,
            class_="choice",
        )
        for behaviour, label in BEHAVIOUR_TEXTS.items()
    ]
    email = session["customer_email"] or EMAIL
    inside: list[object] = [
        element("label", "E-mail", field("email", email)),
        *choices,
    ]
    if session["allow_promotion_codes"]:
        inside.append(element("label", "Promotion code (optional)", field("promotion_code", "")))
    verb = {"payment": "Pay", "setup": "Save card", "subscription": "Subscribe"}
    inside.append(element("button", verb[session["mode"]], type="submit", class_="main"))
    action = f"/_fake/checkout/{session['id']}/pay"
    return element("form", *inside, method="post", action=action)


def portal(store: Store, session: Object, problem: str | None = None) -> str:
    """The page of a portal session: what its customer has, and may change."""
    customer = store.get("customer", session["customer"])
    features = store.get("billing_portal.configuration", session["configuration"])["features"]
    here = f"/_fake/portal/{session['id']}"
    owned = [one for one in store.all("subscription") if one["customer"] == customer["id"]]
    inside: list[object] = [
        element("h1", "Fake Stripe customer portal"),
        element("p", customer["email"] or customer["id"], class_="soft"),
        element("p", problem, class_="note", role="alert") if problem else "",
        element("h2", "Subscriptions"),
        table(
            ["What", "Status", "Until", ""],
            [_subscription_row(store, one, features, here) for one in reversed(owned)],
            "There is none.",
        ),
    ]
    if features["payment_method_update"]["enabled"]:
        inside += [
            element("h2", "Payment method"),
            element("p", _card_of(store, customer)),
            card_form(f"{here}/card", "Use this from now on"),
        ]
    if features["invoice_history"]["enabled"]:
        inside += [element("h2", "Invoices"), _invoices(store, customer, here)]
    if session["return_url"]:
        inside.append(element("p", element("a", "Back", href=session["return_url"])))
    return page("Customer portal", *inside)


def _subscription_row(store: Store, one: Object, features: Object, here: str) -> list[object]:
    ends_s = one["items"]["data"][0]["current_period_end"]
    over = one["status"] in {"canceled", "incomplete_expired"}
    action: object = ""
    if one["cancel_at_period_end"] and not over:
        action = button(f"{here}/keep", "Keep it", subscription=one["id"])
    elif features["subscription_cancel"]["enabled"] and not over:
        at_end = features["subscription_cancel"]["mode"] == "at_period_end"
        label = "Cancel at the period's end" if at_end else "Cancel now"
        action = button(f"{here}/cancel", label, subscription=one["id"])
    until = moment(one["ended_at"] or one["cancel_at"] or ends_s)
    return [_bought(store, one), _status(one), until, action]


def _status(one: Object) -> str:
    if one["cancel_at"] and not one["ended_at"]:
        return f"{one['status']}, ends then"
    return str(one["status"]) + (", collection paused" if one["pause_collection"] else "")


def _bought(store: Store, subscription: Object) -> str:
    parts = []
    for item in subscription["items"]["data"]:
        price = store.tables["price"][item["price"]]
        name = store.tables["product"][price["product"]]["name"]
        cost = money(price["unit_amount"], price["currency"])
        parts.append(f"{item['quantity']} x {name}, {cost} / {price['recurring']['interval']}")
    return "; ".join(parts)


def _card_of(store: Store, customer: Object) -> str:
    owned = [one for one in store.all("payment_method") if one["customer"] == customer["id"]]
    if not owned:
        return "None on file."
    method = owned[-1]
    kind = "Card" if method["type"] == "card" else "Bank account"
    return f"{kind} that ends in {method[method['type']]['last4']}"


def card_form(action: str, label: str, **values: object) -> Markup:
    """A choice of payment methods, to be put on file."""
    options = [
        element("option", text, value=behaviour) for behaviour, text in BEHAVIOUR_TEXTS.items()
    ]
    return element(
        "form",
        hidden(values),
        element("select", *options, name="card", aria_label="Payment method"),
        element("button", label, type="submit"),
        method="post",
        action=action,
        class_="inline",
    )


def _invoices(store: Store, customer: Object, here: str) -> Markup:
    rows = [
        [
            moment(one["created"]),
            one["number"] or "draft",
            money(one["total"], one["currency"]),
            one["status"],
            button(f"{here}/pay", "Pay", invoice=one["id"]) if one["status"] == "open" else "",
        ]
        for one in reversed(store.all("invoice"))
        if one["customer"] == customer["id"]
    ]
    return table(["When", "Number", "Total#", "Status", ""], rows, "There is none.")


def dashboard(fake: FakeStripe, problem: str | None = None) -> str:
    """All that is going on, and the clock to move it on."""
    inside: list[object] = [
        element("h1", "Fake Stripe"),
        element("p", problem, class_="note", role="alert") if problem else "",
        element("p", "Its clock says ", element("strong", moment(fake.clock.now_s))),
        button("/_fake/advance", "+ 1 hour", hours=1),
        button("/_fake/advance", "+ 1 day", days=1),
        button(
            "/_fake/advance",
            "+ 1 month",
            "31 days and 2 hours: past a monthly renewal, and its invoice's payment",
            days=31,
            hours=2,
        ),
        element("p", ONLY_THIS_CLOCK, element("code", PAID_AHEAD), ".", class_="soft"),
    ]
    for livemode, store in fake.stores.items():
        if livemode and not store.tables:
            continue
        sessions = [one for one in store.all("checkout.session") if one["status"] == "open"]
        if sessions:
            inside += [
                element("h2", "Checkouts that wait for a payer"),
                *(element("p", _session_link(one)) for one in reversed(sessions)),
            ]
        inside += [
            element("h2", "Customers (live)" if livemode else "Customers"),
            table(
                ["Customer", "Subscription", "Status", "Renews", "Pays with", ""],
                [row for one in reversed(store.all("customer")) for row in _rows(store, one)],
                "Nobody yet: subscribe to something.",
            ),
            element("h2", "Payments (live)" if livemode else "Payments"),
            paid.payments(store),
        ]
    inside += [element("h2", "Last events"), _events(fake)]
    return page("Fake Stripe", *inside)


def _session_link(session: Object) -> Markup:
    sold = ", ".join(f"{one['quantity']} x {one['description']}" for one in session["_lines"])
    return element("a", sold or "A card for later", href=f"/checkout/{session['id']}")


def _rows(store: Store, customer: Object) -> Iterable[list[object]]:
    who = customer["email"] or customer["name"] or customer["id"]
    change = card_form(f"/_fake/customers/{customer['id']}/card", "Use")
    owned = [one for one in store.all("subscription") if one["customer"] == customer["id"]]
    if not owned:
        yield [who, "", "", "", _card_of(store, customer), change]
    for one in reversed(owned):
        ends_s = one["items"]["data"][0]["current_period_end"]
        renews = "" if one["ended_at"] else moment(ends_s)
        card = _card_of(store, customer)
        yield [who, _bought(store, one), _status(one), renews, card, change]


def _events(fake: FakeStripe) -> Markup:
    sent: dict[str, list[Delivery]] = {}
    for delivery in fake.deliveries.all:
        sent.setdefault(delivery.event["id"], []).append(delivery)
    made = sorted(
        (one for store in fake.stores.values() for one in store.all("event")[-EVENTS_SHOWN:]),
        key=lambda one: one["created"],
    )
    rows = [
        [
            moment(one["created"]),
            element("code", one["type"]),
            element("code", one["data"]["object"]["id"]),
            Markup(" ".join(_delivery(each) for each in sent.get(one["id"], []))),
        ]
        for one in reversed(made[-EVENTS_SHOWN:])
    ]
    return table(["When", "Event", "About", "Deliveries"], rows, "Nothing has happened yet.")


def _delivery(delivery: Delivery) -> Markup:
    last = f" ({delivery.answers[-1] or 'no answer'})" if delivery.answers else ""
    told = element("span", delivery.state + last, title=delivery.endpoint.url)
    again = button(f"/_fake/deliveries/{delivery.delivery_id}/send", "Send again")
    return Markup(f"{told} {again}")

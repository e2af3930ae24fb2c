"""The payments of the first page: each can be paid back and disputed there, whole or in part."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import charges, disputes, refunds
from .amounts import bare, money
from .markup import Markup, button, element, field, moment, table

if TYPE_CHECKING:
    from .store import Object, Store

PAYMENTS_SHOWN = 20
ENDINGS: dict[disputes.Ending, str] = {
    "won": "Win",
    "lost": "Lose",
    "warning_closed": "Close the inquiry",
}


def payments(store: Store) -> Markup:
    """The last payments that succeeded, with their refunds and disputes."""
    made = [charge for charge in store.all("charge") if charge["status"] == "succeeded"]
    rows = [_row(store, charge) for charge in reversed(made[-PAYMENTS_SHOWN:])]
    headings = ["When", "Customer", "Paid#", "Paid back#", "Disputed", ""]
    return table(headings, rows, "Nothing has been paid yet.")


def _row(store: Store, charge: Object) -> list[object]:
    dispute = disputes.last_of(store, charge)
    back = charge["amount_refunded"]
    return [
        moment(charge["created"]),
        _payer(store, charge),
        money(charge["amount_captured"], charge["currency"]),
        money(back, charge["currency"]) if back else "",
        _told(dispute) if dispute else "",
        Markup(_decision(dispute) + _way_back(charge)),
    ]


def _payer(store: Store, charge: Object) -> str:
    customer = store.tables.get("customer", {}).get(charge["customer"], {})
    return str(customer.get("email") or customer.get("name") or charge["customer"] or "")


def _told(dispute: Object) -> str:
    status = dispute["status"].replace("_", " ")
    return f"{money(dispute['amount'], dispute['currency'])}, {status}"


def _decision(dispute: Object | None) -> str:
    """The buttons of a bank that has not decided yet."""
    if dispute is None:
        return ""
    here = f"/_fake/disputes/{dispute['id']}/close"
    return "".join(
        button(here, ENDINGS[ending], ending=ending) for ending in disputes.endings_of(dispute)
    )


def _way_back(charge: Object) -> Markup:
    """What can still be paid back or disputed: all that is left, or what is typed."""
    left, here = charges.left_of(charge), f"/_fake/charges/{charge['id']}"
    buttons = [
        element("button", label, type="submit", formaction=f"{here}/{what}")
        for what, label, possible in (
            ("refund", "Refund", refunds.possible(charge)),
            ("dispute", "Dispute", not charge["disputed"]),
        )
        if possible
    ]
    if not (left and buttons):
        return Markup()
    amount = field(
        "money",
        "",
        placeholder=bare(left, charge["currency"]),
        aria_label="Amount; left empty: all that is left",
    )
    return element("form", amount, *buttons, method="post", action=here, class_="inline amount")

"""Every resource of the fake: its routes, and what it does when something of its falls due.

A module of a resource has `ROUTES`, and if time matters to it, `DUE`: the name of what falls due
to a function of the store and the object's id, which must look whether it still matters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import (
    account,
    catalog,
    charges,
    checkout,
    coupons,
    customers,
    disputes,
    event_resources,
    invoice_items,
    invoice_payments,
    invoice_resources,
    meters,
    payment_methods,
    payments,
    portal,
    refunds,
    renewals,
    schedules,
    setup_intents,
    subscription_resources,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from .calls import Route
    from .store import Store

MODULES = (
    account,
    catalog,
    charges,
    checkout,
    coupons,
    customers,
    disputes,
    event_resources,
    invoice_items,
    invoice_payments,
    invoice_resources,
    meters,
    payment_methods,
    payments,
    portal,
    refunds,
    renewals,
    schedules,
    setup_intents,
    subscription_resources,
)

ROUTES: tuple[Route, ...] = tuple(route for module in MODULES for route in module.ROUTES)
DUE: dict[str, Callable[[Store, str], None]] = {
    what: handler for module in MODULES for what, handler in getattr(module, "DUE", {}).items()
}

"""Subscription schedules: phases, each with its own items, that a subscription goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import discounts, periods, subscription_updates, subscriptions
from .calls import get, listing, page, post, retrieving, where, within
from .clock import DAY_S
from .errors import invalid
from .forms import CREATED, Either, integer, list_of, metadata, one_of, text
from .store import merge_metadata
from .subscription_updates import Change, Update
from .subscriptions import Wanted

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape, Tree
    from .store import Object, Store

URL = "/v1/subscription_schedules"
PHASE_ENDS = "subscription_schedule.phase_ends"
EXPIRING = "subscription_schedule.expiring"
EXPIRING_TOLD_S = 7 * DAY_S


def create(call: Call) -> Object:
    """A schedule over a subscription that runs: its first phase is the current period.

    Raises: StripeError, 400, when the subscription has one already, or has ended.
    """
    store = call.store
    subscription = store.get("subscription", call.need("from_subscription"), "from_subscription")
    if subscription["schedule"] is not None:
        raise invalid(
            "You cannot migrate a subscription that is already attached to a schedule:"
            f" `{subscription['schedule']}`.",
            "from_subscription",
        )
    if subscription["status"] in (*subscriptions.ENDED, "incomplete"):
        raise invalid("You cannot create a schedule from this subscription.", "from_subscription")
    start_s, end_s = subscriptions.period_of(subscription)
    phase = _phase(
        store,
        subscription,
        subscriptions.wanted_of(store, subscription),
        (start_s, end_s),
        {"metadata": {}, "discounts": [{"discount": d} for d in subscription["discounts"]]},
    )
    phase["trial_end"] = subscription["trial_end"]
    schedule = store.add(
        "subscription_schedule",
        "sub_sched",
        {
            "application": None,
            "billing_mode": dict(subscription["billing_mode"]),
            "canceled_at": None,
            "completed_at": None,
            "current_phase": {"end_date": end_s, "start_date": start_s},
            "customer": subscription["customer"],
            "customer_account": None,
            "default_settings": _settings(subscription),
            "end_behavior": "release",
            "metadata": {},
            "pause_schedules": [],
            "phases": [phase],
            "released_at": None,
            "released_subscription": None,
            "status": "active",
            "subscription": subscription["id"],
            "test_clock": None,
        },
    )
    with store.updating(subscription):
        subscription["schedule"] = schedule["id"]
    store.due(end_s, PHASE_ENDS, schedule["id"])
    store.emit("subscription_schedule.created", schedule)
    return schedule


def _settings(subscription: Object) -> Object:
    return {
        "application_fee_percent": None,
        "automatic_tax": dict(subscription["automatic_tax"]),
        "billing_cycle_anchor": "automatic",
        "billing_thresholds": None,
        "collection_method": "charge_automatically",
        "default_payment_method": subscription["default_payment_method"],
        "description": None,
        "invoice_settings": {
            "account_tax_ids": None,
            "days_until_due": None,
            "issuer": {"type": "self"},
        },
        "on_behalf_of": None,
        "transfer_data": None,
    }


def _phase(
    store: Store,
    subscription: Object,
    wanted: list[Wanted],
    period: tuple[int, int],
    asked: Tree,
) -> Object:
    del store
    subscriptions.rhythm(wanted)
    nothing = dict.fromkeys(
        (
            "application_fee_percent",
            "automatic_tax",
            "billing_cycle_anchor",
            "billing_thresholds",
            "collection_method",
            "default_payment_method",
            "default_tax_rates",
            "description",
            "invoice_settings",
            "on_behalf_of",
            "transfer_data",
            "trial_end",
        )
    )
    return nothing | {
        "add_invoice_items": [],
        "currency": subscription["currency"],
        "default_tax_rates": [],
        "discounts": [
            {
                "coupon": each.get("coupon"),
                "discount": each.get("discount"),
                "promotion_code": each.get("promotion_code"),
            }
            for each in asked.get("discounts") or []
        ],
        "end_date": period[1],
        "items": [
            {
                "billing_thresholds": None,
                "discounts": [],
                "metadata": dict(each.metadata),
                "plan": each.price["id"],
                "price": each.price["id"],
                "quantity": each.quantity,
                "tax_rates": [],
            }
            for each in wanted
        ],
        "metadata": merge_metadata({}, asked.get("metadata")),
        "proration_behavior": asked.get("proration_behavior") or "create_prorations",
        "start_date": period[0],
    }


def update(call: Call) -> Object:
    """Replaces the phases. The current one must be among them, from when it began.

    Raises: StripeError, 400, for phases that do not follow each other, or a schedule that ended.
    """
    store, params = call.store, call.params
    schedule = store.get("subscription_schedule", call.id)
    _refuse_ended(schedule)
    subscription = store.get("subscription", schedule["subscription"])
    phases = schedule["phases"]
    if params.get("phases"):
        phases = _phases(store, schedule, subscription, params["phases"])
    with store.updating(schedule):
        schedule["phases"] = phases
        schedule["end_behavior"] = params.get("end_behavior") or schedule["end_behavior"]
        if "metadata" in params:
            schedule["metadata"] = merge_metadata(schedule["metadata"], params["metadata"])
        current = _current(phases, store.now_s)
        schedule["current_phase"] = {name: current[name] for name in ("end_date", "start_date")}
    for phase in phases:
        if phase["end_date"] > store.now_s:
            store.due(phase["end_date"], PHASE_ENDS, schedule["id"])
    store.due(phases[-1]["end_date"] - EXPIRING_TOLD_S, EXPIRING, schedule["id"])
    _follow(store, subscription, current)
    return schedule


def _refuse_ended(schedule: Object) -> None:
    if schedule["status"] not in {"active", "not_started"}:
        raise invalid(
            f"You cannot change a subscription schedule that is currently in the"
            f" `{schedule['status']}` status."
        )


def _phases(
    store: Store, schedule: Object, subscription: Object, asked: list[Tree]
) -> list[Object]:
    made: list[Object] = []
    for place, each in enumerate(asked):
        at = f"phases[{place}]"
        start_s = made[-1]["end_date"] if made else each.get("start_date")
        if start_s is None:
            start_s = schedule["phases"][0]["start_date"]
        if start_s == "now":
            start_s = store.now_s
        if each.get("start_date") not in {None, "now", start_s}:
            raise invalid("A phase begins when the one before it ends.", f"{at}[start_date]")
        wanted = _wanted(store, each.get("items") or [], at)
        made.append(_phase(store, subscription, wanted, (start_s, _end(each, start_s, at)), each))
        made[-1]["trial_end"] = each.get("trial_end")
    running = schedule["current_phase"]
    if running is not None and all(p["start_date"] != running["start_date"] for p in made):
        raise invalid(
            "You can not modify the start date of the current phase.", "phases[0][start_date]"
        )
    if made[-1]["end_date"] <= store.now_s:
        raise invalid("The last phase must end in the future.", "phases")
    return made


def _end(asked: Tree, start_s: int, at: str) -> int:
    duration = asked.get("duration")
    if (asked.get("end_date") is None) == (duration is None):
        raise invalid("Exactly one of end_date and duration is required.", f"{at}[end_date]")
    if duration is not None:
        count = duration.get("interval_count") or 1
        return periods.boundary(start_s, duration.get("interval") or "month", count, 1)
    end_s = int(asked["end_date"])
    if end_s <= start_s:
        raise invalid("A phase must end after it begins.", f"{at}[end_date]")
    return end_s


def _wanted(store: Store, asked: list[Tree], at: str) -> list[Wanted]:
    return [
        Wanted(
            store.get("price", each.get("price") or "", f"{at}[items][{place}][price]"),
            each.get("quantity") or 1,
            merge_metadata({}, each.get("metadata")),
        )
        for place, each in enumerate(asked)
    ]


def _current(phases: list[Object], now_s: int) -> Object:
    for phase in phases:
        if phase["start_date"] <= now_s < phase["end_date"]:
            return phase
    raise invalid("No phase is the current one.", "phases")


def _follow(store: Store, subscription: Object, phase: Object) -> None:
    """Has the subscription be what a phase says."""
    wanted = _wanted(store, phase["items"], "phases")
    items = subscriptions.items_of(subscription)
    changes = [
        Change(
            items[place] if place < len(items) else None,
            wanted[place] if place < len(wanted) else None,
        )
        for place in range(max(len(items), len(wanted)))
    ]
    customer = store.get("customer", subscription["customer"])
    with store.updating(subscription):
        # What a phase has in metadata joins the subscription's.
        subscription["metadata"] = merge_metadata(subscription["metadata"], phase["metadata"])
        # What a phase does not name of discounts is lost.
        subscription["discounts"] = discounts.redeem(
            store, customer, phase["discounts"], subscription=subscription["id"]
        )
        if any(change.real for change in changes):
            _start_s, end_s = subscriptions.period_of(subscription)
            if store.now_s >= end_s:
                # Between two periods nothing is left to prorate: the next one bills it all.
                subscription_updates.change_items(store, subscription, changes)
            else:
                behavior = phase["proration_behavior"]
                subscription_updates.apply(store, subscription, Update(changes, behavior))


def step(store: Store, subscription: Object) -> None:
    """Goes on to the phase of now, or ends the schedule after its last."""
    if subscription["schedule"] is None:
        return
    schedule = store.get("subscription_schedule", subscription["schedule"])
    if schedule["status"] != "active" or schedule["current_phase"]["end_date"] > store.now_s:
        return
    rest = [phase for phase in schedule["phases"] if phase["end_date"] > store.now_s]
    if not rest:
        _finish(store, schedule, subscription)
        return
    with store.updating(schedule):
        schedule["current_phase"] = {name: rest[0][name] for name in ("end_date", "start_date")}
    _follow(store, subscription, rest[0])


def _finish(store: Store, schedule: Object, subscription: Object) -> None:
    if schedule["end_behavior"] == "cancel":
        schedule |= {"status": "completed", "completed_at": store.now_s, "current_phase": None}
        store.emit("subscription_schedule.completed", schedule)
        subscription["schedule"] = None
        subscriptions.end(store, subscription, reason=None)
        return
    _let_go(store, schedule, subscription)


def _let_go(store: Store, schedule: Object, subscription: Object) -> None:
    schedule |= {
        "current_phase": None,
        "released_at": store.now_s,
        "released_subscription": subscription["id"],
        "status": "released",
        "subscription": None,
    }
    with store.updating(subscription):
        subscription["schedule"] = None
    store.emit("subscription_schedule.released", schedule)


def release(call: Call) -> Object:
    """Ends the schedule; the subscription goes on as it is."""
    schedule = call.store.get("subscription_schedule", call.id)
    _refuse_ended(schedule)
    _let_go(call.store, schedule, call.store.get("subscription", schedule["subscription"]))
    return schedule


def cancel(call: Call) -> Object:
    """Ends the schedule and its subscription, at once."""
    schedule = call.store.get("subscription_schedule", call.id)
    _refuse_ended(schedule)
    subscription = call.store.get("subscription", schedule["subscription"])
    subscriptions.end(call.store, subscription, reason="cancellation_requested")
    return schedule


def list_all(call: Call) -> Object:
    """Newest first, by customer and time."""
    found = within(call, call.store.all("subscription_schedule"))
    return page(call, where(call, found, "customer"), URL)


def phase_ends(store: Store, schedule_id: str) -> None:
    """A phase is over that ends within a period."""
    schedule = store.get("subscription_schedule", schedule_id)
    if schedule["status"] != "active":
        return
    subscription = store.get("subscription", schedule["subscription"])
    _, end_s = subscriptions.period_of(subscription)
    if end_s > store.now_s:
        step(store, subscription)


def expiring(store: Store, schedule_id: str) -> None:
    """A week is left of the last phase."""
    schedule = store.get("subscription_schedule", schedule_id)
    left_s = schedule["phases"][-1]["end_date"] - store.now_s
    if schedule["status"] == "active" and 0 < left_s <= EXPIRING_TOLD_S:
        store.emit("subscription_schedule.expiring", schedule)


_ITEM: Shape = {"metadata": metadata, "price": text, "quantity": integer}
_PHASE: Shape = {
    "discounts": discounts.DISCOUNTS,
    "duration": {
        "interval": one_of("day", "week", "month", "year"),
        "interval_count": integer,
    },
    "end_date": integer,
    "items": list_of(_ITEM),
    "metadata": metadata,
    "proration_behavior": one_of("always_invoice", "create_prorations", "none"),
    "start_date": Either({}, lambda value, name: "now" if value == "now" else integer(value, name)),
    "trial_end": integer,
}
ROUTES = (
    listing(URL, list_all, {"created": CREATED, "customer": text}),
    post(URL, create, {"from_subscription": text}),
    get(URL + "/{id}", retrieving("subscription_schedule")),
    post(
        URL + "/{id}",
        update,
        {
            "end_behavior": one_of("cancel", "release"),
            "metadata": metadata,
            "phases": list_of(_PHASE),
            "proration_behavior": one_of("always_invoice", "create_prorations", "none"),
        },
    ),
    post(URL + "/{id}/release", release),
    post(URL + "/{id}/cancel", cancel),
)
DUE = {PHASE_ENDS: phase_ends, EXPIRING: expiring}

"""Subscriptions as the API makes, changes and ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import (
    discounts,
    invoice_items,
    invoices,
    payment_methods,
    periods,
    subscription_updates,
    subscriptions,
)
from .calls import delete, get, listing, page, post, retrieving, where, whole_list, within
from .clock import DAY_S
from .errors import invalid, no_such
from .forms import CREATED, EXPAND, Either, boolean, integer, list_of, metadata, one_of, text
from .store import INCLUDED, merge_metadata
from .subscription_updates import Change, Update
from .subscriptions import URL, Terms, Wanted

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape, Tree
    from .store import Object, Store

# What an update may hold that waits for its payment.
WAITING = frozenset(
    (
        "billing_cycle_anchor",
        "items",
        "off_session",
        "payment_behavior",
        "proration_behavior",
        "proration_date",
    )
)
ENDS = ("min_period_end", "max_period_end")


def moment(*words: str) -> Either:
    """A reader of a time, or of one of these words."""

    def read(value: Any, name: str) -> int | str:
        return str(value) if value in words else integer(value, name)

    return Either({}, read)


def create(call: Call) -> Object:
    """A subscription, whose first invoice is paid at once by what is on file, unless told not."""
    store, params = call.store, call.params
    customer = store.get("customer", call.need("customer"), "customer")
    method = params.get("default_payment_method")
    if method is not None:
        method = payment_methods.get(store, method, "default_payment_method")["id"]
    waits = params.get("payment_behavior") == "default_incomplete"
    return subscriptions.start(
        store,
        customer,
        [_wanted(store, each, None) for each in call.need("items")],
        Terms(
            metadata=merge_metadata({}, params.get("metadata")),
            trial_end_s=_trial_end(store, params),
            discounts=params.get("discounts") or (),
            automatic_tax=bool((params.get("automatic_tax") or {}).get("enabled")),
            description=params.get("description"),
            default_payment_method=method,
            save_default=_saves(params) or "off",
            missing_at_trial_end=_missing(params) or "create_invoice",
            cancel_at_period_end=bool(params.get("cancel_at_period_end")),
            extras=[_wanted(store, each, None) for each in params.get("add_invoice_items") or ()],
            pay=not waits,
            present=not params.get("off_session"),
        ),
    )


def _saves(params: Tree) -> str | None:
    return (params.get("payment_settings") or {}).get("save_default_payment_method")


def _missing(params: Tree) -> str | None:
    behavior = (params.get("trial_settings") or {}).get("end_behavior") or {}
    return behavior.get("missing_payment_method")


def _trial_end(store: Store, params: Tree) -> int | None:
    days, end_s = params.get("trial_period_days"), params.get("trial_end")
    if days is not None and end_s is not None:
        raise invalid("You may pass trial_end or trial_period_days, not both.", "trial_end")
    if days is not None:
        return store.now_s + days * DAY_S if days > 0 else None
    if end_s is None or end_s == "now":
        return None
    if end_s <= store.now_s:
        raise invalid("The trial's end must be in the future.", "trial_end")
    return int(end_s)


def _wanted(store: Store, asked: Tree, item: Object | None) -> Wanted:
    price_id = asked.get("price") or (item or {}).get("price")
    if price_id is None:
        raise invalid("Missing required param: items[0][price].", "items[0][price]")
    price = store.get("price", price_id, "items[0][price]")
    if not price["active"] and (item is None or item["price"] != price_id):
        raise invalid("The price specified is inactive.", "items[0][price]")
    quantity = asked.get("quantity")
    old = {} if item is None else item["metadata"]
    return Wanted(
        price,
        quantity if quantity is not None else int((item or {}).get("quantity") or 1),
        merge_metadata(old, asked["metadata"]) if "metadata" in asked else dict(old),
    )


def retrieve(call: Call) -> Object:
    """One subscription, ended ones too."""
    return call.store.get("subscription", call.id)


def update(call: Call) -> Object:
    """Changes what is sent, and bills what that costs.

    Raises: StripeError, 400, for what an ended subscription, or a schedule's, does not allow.
    """
    store, params = call.store, call.params
    subscription = store.get("subscription", call.id)
    _refuse(store, subscription, params)
    with store.updating(subscription):
        _change_plain(call, subscription)
        _change_end(store, subscription, params)
        _change_trial(store, subscription, params)
        _change_pause(store, subscription, params)
        if params.get("items") or (params.get("billing_cycle_anchor") or {}).get("type") == "now":
            subscription_updates.apply(store, subscription, update_of(store, subscription, params))
        _add_once(store, subscription, params)
    return subscription


def _refuse(store: Store, subscription: Object, params: Tree) -> None:
    if subscription["status"] in subscriptions.ENDED:
        raise invalid(
            "A canceled subscription can only update its cancellation_details and metadata."
            if set(params) - {"metadata", "cancellation_details"}
            else "The fake does not update canceled subscriptions."
        )
    ends = {"cancel_at", "cancel_at_period_end"} & params.keys()
    if ends and subscription["schedule"] is not None:
        raise invalid(
            f"The subscription is managed by the subscription schedule"
            f" `{subscription['schedule']}`, and updating any cancelation behavior directly is not"
            f" allowed. Please update the schedule instead."
        )
    if params.get("payment_behavior") == "pending_if_incomplete":
        refused = sorted(params.keys() - WAITING)
        if refused:
            raise invalid(
                f"When `payment_behavior` is set to `pending_if_incomplete`, you can only pass"
                f" supported params. Unsupported: {', '.join(refused)}.",
                refused[0],
            )
    method = params.get("default_payment_method")
    if method is not None:
        payment_methods.get(store, method, "default_payment_method")


def _change_plain(call: Call, subscription: Object) -> None:
    store, params = call.store, call.params
    if "metadata" in params:
        subscription["metadata"] = merge_metadata(subscription["metadata"], params["metadata"])
    for name in ("description", "default_payment_method"):
        if name in params:
            subscription[name] = params[name]
    if _saves(params):
        subscription["payment_settings"]["save_default_payment_method"] = _saves(params)
    if _missing(params):
        subscription["trial_settings"]["end_behavior"]["missing_payment_method"] = _missing(params)
    if "automatic_tax" in params:
        subscription["automatic_tax"]["enabled"] = bool(params["automatic_tax"].get("enabled"))
    if "discounts" in params:
        customer = store.get("customer", subscription["customer"])
        subscription["discounts"] = discounts.redeem(
            store, customer, params["discounts"], subscription=subscription["id"]
        )
    _change_details(subscription, params)


def _change_details(subscription: Object, params: Tree) -> None:
    for name in ("comment", "feedback"):
        if name in (params.get("cancellation_details") or {}):
            subscription["cancellation_details"][name] = params["cancellation_details"][name]


def _change_end(store: Store, subscription: Object, params: Tree) -> None:
    _, end_s = subscriptions.period_of(subscription)
    if params.get("cancel_at_period_end"):
        subscription["cancel_at_period_end"] = True
        subscriptions.plan_cancellation(store, subscription, end_s)
    elif "cancel_at_period_end" in params:
        subscriptions.unplan_cancellation(subscription)
    if "cancel_at" not in params:
        return
    at_s = end_s if params["cancel_at"] in ENDS else params["cancel_at"]
    subscriptions.unplan_cancellation(subscription)
    if at_s is None:
        return
    if at_s <= store.now_s:
        raise invalid("cancel_at must be in the future.", "cancel_at")
    subscriptions.plan_cancellation(store, subscription, at_s)


def _change_trial(store: Store, subscription: Object, params: Tree) -> None:
    if params.get("trial_end") is None:
        return
    if subscription["status"] != "trialing":
        raise invalid("The fake changes the end of trials only while they run.", "trial_end")
    if params["trial_end"] != "now":
        end_s = _trial_end(store, params) or 0
        start_s, _ = subscriptions.period_of(subscription)
        subscription |= {"billing_cycle_anchor": end_s, "trial_end": end_s}
        subscriptions.set_period(store, subscription, start_s, end_s)
        store.due(
            end_s - subscriptions.TRIAL_TOLD_S, subscriptions.TRIAL_WILL_END, subscription["id"]
        )
        return
    interval, count = subscriptions.rhythm(subscriptions.wanted_of(store, subscription))
    now_s = store.now_s
    subscription |= {"billing_cycle_anchor": now_s, "status": "active", "trial_end": now_s}
    end_s = periods.next_after(now_s, interval, count, now_s)
    subscriptions.set_period(store, subscription, now_s, end_s)
    _bill_now(store, subscription)


def _bill_now(store: Store, subscription: Object) -> None:
    invoice = subscriptions.bill(store, subscription, "subscription_update")
    invoices.finalize(store, invoice)
    invoices.collect(store, invoice)


def _change_pause(store: Store, subscription: Object, params: Tree) -> None:
    if "pause_collection" not in params:
        return
    asked = params["pause_collection"]
    if asked is None:
        subscription["pause_collection"] = None
        return
    if asked.get("behavior") is None:
        raise invalid("Missing required param: behavior.", "pause_collection[behavior]")
    resumes_s = asked.get("resumes_at")
    subscription["pause_collection"] = {"behavior": asked["behavior"], "resumes_at": resumes_s}
    if resumes_s is not None:
        store.due(resumes_s, subscriptions.RESUMES, subscription["id"])


def update_of(store: Store, subscription: Object, params: Tree) -> Update:
    """What an update's parameters ask for.

    Raises: StripeError, 400, for an item that is not the subscription's, or none being left.
    """
    items = {item["id"]: item for item in subscriptions.items_of(subscription)}
    changes = []
    for place, asked in enumerate(params.get("items") or ()):
        item_id = asked.get("id")
        if item_id is not None and item_id not in items:
            raise no_such("subscription_item", item_id, f"items[{place}][id]", status=400)
        item = items.get(item_id or "")
        if item is None and any(each["price"] == asked.get("price") for each in items.values()):
            raise invalid(
                f"Cannot add multiple subscription items with the same plan: {asked['price']}",
                f"items[{place}][price]",
            )
        gone = asked.get("deleted", False)
        changes.append(Change(item, None if gone else _wanted(store, asked, item)))
    if sum(1 for each in changes if each.wanted is None) >= len(items) + sum(
        1 for each in changes if each.item is None
    ):
        raise invalid("A subscription must have at least one active item.", "items")
    return Update(
        changes,
        params.get("proration_behavior") or "create_prorations",
        params.get("proration_date"),
        reset_anchor=(params.get("billing_cycle_anchor") or {}).get("type") == "now",
        wait_for_payment=params.get("payment_behavior") == "pending_if_incomplete",
    )


def _add_once(store: Store, subscription: Object, params: Tree) -> None:
    customer = store.get("customer", subscription["customer"])
    for each in params.get("add_invoice_items") or ():
        wanted = _wanted(store, each, None)
        item = invoice_items.add_for_price(store, customer, wanted, subscription)
        store.emit("invoiceitem.created", item)


def cancel(call: Call) -> Object:
    """Ends it at once. `prorate` credits unused time, `invoice_now` bills what is pending."""
    store, params = call.store, call.params
    subscription = store.get("subscription", call.id)
    if subscription["status"] in subscriptions.ENDED:
        raise no_such("subscription", call.id)
    _change_details(subscription, params)
    customer = store.get("customer", subscription["customer"])
    if params.get("prorate"):
        for item in subscriptions.items_of(subscription):
            for credit in subscription_updates.credits_for(
                store, customer, subscription, item, store.now_s
            ):
                store.emit("invoiceitem.created", credit)
    if params.get("invoice_now"):
        invoice = subscription_updates.draft_for(store, customer, subscription, store.now_s)
        invoice_items.take_pending(store, customer, invoice, subscription)
        invoices.announce(store, invoice)
        invoices.finalize(store, invoice)
        invoices.collect(store, invoice)
    subscriptions.end(store, subscription, reason="cancellation_requested")
    return subscription


def resume(call: Call) -> Object:
    """A paused subscription goes on: a new period begins now, and is billed.

    Raises: StripeError, 400, for one that is not paused.
    """
    store = call.store
    subscription = store.get("subscription", call.id)
    if subscription["status"] != "paused":
        raise invalid("You can only resume a subscription that is paused.")
    interval, count = subscriptions.rhythm(subscriptions.wanted_of(store, subscription))
    now_s = store.now_s
    with store.updating(subscription):
        subscription |= {"billing_cycle_anchor": now_s, "status": "active"}
        end_s = periods.next_after(now_s, interval, count, now_s)
        subscriptions.set_period(store, subscription, now_s, end_s)
        _bill_now(store, subscription)
    store.emit("customer.subscription.resumed", subscription)
    return subscription


def list_all(call: Call) -> Object:
    """Newest first, by customer, price and status; canceled ones only when asked for."""
    status = call.params.get("status")
    found = within(call, call.store.all("subscription"))
    found = where(call, found, "customer", "collection_method")
    if status is None:
        found = [each for each in found if each["status"] not in subscriptions.ENDED]
    elif status == "ended":
        found = [each for each in found if each["status"] in subscriptions.ENDED]
    elif status != "all":
        found = [each for each in found if each["status"] == status]
    price = call.params.get("price")
    if price is not None:
        found = [
            each for each in found if price in {i["price"] for i in subscriptions.items_of(each)}
        ]
    return page(call, found, URL)


def list_items(call: Call) -> Object:
    """The items of one subscription."""
    subscription = call.store.get("subscription", call.need("subscription"), "subscription")
    return page(call, subscriptions.items_of(subscription)[::-1], "/v1/subscription_items")


def _of_customer(store: Store, customer: Object) -> Object:
    """What a customer shows of its subscriptions when asked to."""
    running = [
        store.show(each)
        for each in store.all("subscription")
        if each["customer"] == customer["id"] and each["status"] not in subscriptions.ENDED
    ]
    return whole_list(running[::-1], f"/v1/customers/{customer['id']}/subscriptions")


INCLUDED["customer", "subscriptions"] = _of_customer
_ITEM: Shape = {"metadata": metadata, "price": text, "quantity": integer}
_BOTH: Shape = {
    "add_invoice_items": list_of(_ITEM),
    "automatic_tax": {"enabled": boolean},
    "cancel_at_period_end": boolean,
    "collection_method": one_of("charge_automatically"),
    "default_payment_method": text,
    "description": text,
    "discounts": discounts.DISCOUNTS,
    "metadata": metadata,
    "off_session": boolean,
    "payment_settings": {"save_default_payment_method": one_of("off", "on_subscription")},
    "proration_behavior": one_of("always_invoice", "create_prorations", "none"),
    "trial_end": moment("now"),
    "trial_settings": {
        "end_behavior": {
            "missing_payment_method": one_of("cancel", "create_invoice", "pause"),
        }
    },
}
_DETAILS: Shape = {
    "comment": text,
    "feedback": one_of(
        "customer_service",
        "low_quality",
        "missing_features",
        "other",
        "switched_service",
        "too_complex",
        "too_expensive",
        "unused",
    ),
}
_STATUSES = (
    "active",
    "all",
    "canceled",
    "ended",
    "incomplete",
    "incomplete_expired",
    "past_due",
    "paused",
    "trialing",
    "unpaid",
)
ROUTES = (
    listing(
        URL,
        list_all,
        {
            "collection_method": one_of("charge_automatically", "send_invoice"),
            "created": CREATED,
            "customer": text,
            "price": text,
            "status": one_of(*_STATUSES),
        },
    ),
    post(
        URL,
        create,
        {
            **_BOTH,
            "customer": text,
            "items": list_of(_ITEM),
            "payment_behavior": one_of("allow_incomplete", "default_incomplete"),
            "trial_period_days": integer,
        },
    ),
    get(URL + "/{id}", retrieving("subscription")),
    post(
        URL + "/{id}",
        update,
        {
            **_BOTH,
            "billing_cycle_anchor": {"type": one_of("now", "unchanged")},
            "cancel_at": moment(*ENDS),
            "cancellation_details": _DETAILS,
            "items": list_of({**_ITEM, "deleted": boolean, "id": text}),
            "pause_collection": {
                "behavior": one_of("keep_as_draft", "mark_uncollectible", "void"),
                "resumes_at": integer,
            },
            "payment_behavior": one_of("allow_incomplete", "pending_if_incomplete"),
            "proration_date": integer,
        },
    ),
    delete(
        URL + "/{id}",
        cancel,
        {**EXPAND, "cancellation_details": _DETAILS, "invoice_now": boolean, "prorate": boolean},
    ),
    post(URL + "/{id}/resume", resume),
    listing("/v1/subscription_items", list_items, {"subscription": text}),
)

"""Invoice items: what waits for a customer's next invoice, or was put on a draft by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import catalog, invoices, lines
from .calls import delete, get, listing, page, post, retrieving, where, within
from .errors import StripeError, invalid, missing
from .forms import CREATED, boolean, integer, metadata, text
from .store import merge_metadata

if TYPE_CHECKING:
    from .calls import Call
    from .forms import Shape
    from .store import Object, Store
    from .subscriptions import Wanted

URL = "/v1/invoiceitems"


def make(
    store: Store,
    customer: Object,
    *,
    amount: int,
    currency: str,
    description: str | None,
    period: tuple[int, int],
    price: Object | None = None,
    quantity: int = 1,
    metadata: dict[str, str] | None = None,
    subscription: str | None = None,
    subscription_item: str | None = None,
    proration: bool = False,
    credited: Object | None = None,
    discountable: bool = True,
) -> Object:
    """Keeps a new item that waits for an invoice."""
    parent = None
    if subscription is not None:
        details = {"subscription": subscription, "subscription_item": subscription_item}
        parent = {"subscription_details": details, "type": "subscription_details"}
    pricing = None
    if price is not None:
        pricing = {
            "price_details": {"price": price["id"], "product": price["product"]},
            "type": "price_details",
            "unit_amount_decimal": price["unit_amount_decimal"],
        }
    return store.keep(
        {
            "id": store.make_id("ii"),
            "object": "invoiceitem",
            "amount": amount,
            "currency": currency,
            "customer": customer["id"],
            "customer_account": None,
            "date": store.now_s,
            "description": description,
            "discountable": discountable,
            "discounts": [],
            "invoice": None,
            "livemode": store.livemode,
            "metadata": dict(metadata or {}),
            "net_amount": amount,
            "parent": parent,
            "period": {"end": period[1], "start": period[0]},
            "pricing": pricing,
            "proration": proration,
            "proration_details": {"credited_items": credited, "discount_amounts": []}
            if proration
            else None,
            "quantity": quantity,
            "quantity_decimal": str(quantity),
            "tax_rates": [],
            "test_clock": None,
        }
    )


def add_for_price(
    store: Store, customer: Object, wanted: Wanted, subscription: Object | None
) -> Object:
    """An item for a price that is paid once."""
    price = wanted.price
    return make(
        store,
        customer,
        amount=price["unit_amount"] * wanted.quantity,
        currency=price["currency"],
        description=store.tables["product"][price["product"]]["name"],
        period=(store.now_s, store.now_s),
        price=price,
        quantity=wanted.quantity,
        metadata=wanted.metadata,
        subscription=None if subscription is None else subscription["id"],
    )


def subscription_id(item: Object) -> str | None:
    """The subscription that an item is for, if any."""
    details: Object = (item["parent"] or {}).get("subscription_details") or {}
    return details.get("subscription")


def take_pending(
    store: Store, customer: Object, invoice: Object, subscription: Object | None
) -> None:
    """Puts on a draft what waits for this customer, and for this subscription or none."""
    mine = None if subscription is None else subscription["id"]
    waiting = [
        item
        for item in store.all("invoiceitem")
        if item["invoice"] is None
        and item["customer"] == customer["id"]
        and item["currency"] == invoice["currency"]
        and subscription_id(item) in {None, mine}
    ]
    put_on(store, invoice, waiting)


def put_on(store: Store, invoice: Object, items: list[Object]) -> None:
    """Puts these items on a draft."""
    for item in items:
        item["invoice"] = invoice["id"]
    invoices.add_lines(store, invoice, [lines.of_invoice_item(store, item) for item in items])


def create(call: Call) -> Object:
    """An item for the customer's next invoice, or for a draft that is named.

    Raises: StripeError, 400, for an invoice that is finalised.
    """
    store, params = call.store, call.params
    invoice = None
    if params.get("invoice"):
        invoice = store.get("invoice", params["invoice"], "invoice")
        _refuse_final(invoice)
    customer_id = params.get("customer") or (invoice or {}).get("customer")
    customer = store.get("customer", customer_id or call.need("customer"), "customer")
    if invoice is not None and invoice["customer"] != customer["id"]:
        raise invalid("The invoice belongs to another customer.", "invoice")
    subscription = params.get("subscription")
    if subscription is not None:
        store.get("subscription", subscription, "subscription")
    amount, currency, price = _amount(call, invoice)
    asked = params.get("period") or {}
    item = make(
        store,
        customer,
        amount=amount,
        currency=currency,
        description=params.get("description"),
        period=(asked.get("start") or store.now_s, asked.get("end") or store.now_s),
        price=price,
        quantity=params.get("quantity") or 1,
        metadata=merge_metadata({}, params.get("metadata")),
        subscription=subscription,
        discountable=params.get("discountable", True),
    )
    if invoice is not None:
        with store.updating(invoice):
            put_on(store, invoice, [item])
    store.emit("invoiceitem.created", item)
    return item


def _amount(call: Call, invoice: Object | None) -> tuple[int, str, Object | None]:
    params = call.params
    price_id, data = (params.get("pricing") or {}).get("price"), params.get("price_data")
    if sum(given is not None for given in (price_id, data, params.get("amount"))) != 1:
        raise invalid("You must pass one of amount, price_data and pricing[price].", "amount")
    quantity = params.get("quantity") or 1
    if data is not None:
        price = _price_of(call, data)
        return price["unit_amount"] * quantity, price["currency"], price
    if price_id is None:
        if params.get("quantity") is not None:
            raise invalid("You may not pass quantity with amount.", "quantity")
        currency = params.get("currency") or (invoice or {}).get("currency")
        return params["amount"], str(currency or call.need("currency")).lower(), None
    price = call.store.get("price", price_id, "pricing[price]")
    if price["recurring"] is not None:
        raise invalid("The price specified is recurring.", "pricing[price]")
    return price["unit_amount"] * quantity, price["currency"], price


def _price_of(call: Call, data: Object) -> Object:
    """A price for this item alone: it is never active."""
    if data.get("product") is None:
        raise missing("price_data[product]")
    product = call.store.get("product", data["product"], "price_data[product]")
    price = catalog.add_price(call.store, product, {**data, "active": False})
    call.store.emit("price.created", price)
    return price


def _refuse_final(invoice: Object) -> None:
    if invoice["status"] != "draft":
        raise StripeError(
            400,
            "This invoice is no longer editable.",
            code="invoice_not_editable",
            param="invoice",
        )


def _draft_of(call: Call, item: Object) -> Object | None:
    if item["invoice"] is None:
        return None
    invoice = call.store.get("invoice", item["invoice"])
    _refuse_final(invoice)
    return invoice


def _take_off(invoice: Object, item: Object) -> None:
    def is_of(line: Object) -> bool:
        details = line["parent"][line["parent"]["type"]]
        return bool(details["invoice_item"] == item["id"])

    invoice["lines"]["data"] = [each for each in invoice["lines"]["data"] if not is_of(each)]


def update(call: Call) -> Object:
    """Changes an item that is on no final invoice."""
    store, params = call.store, call.params
    item = store.get("invoiceitem", call.id)
    invoice = _draft_of(call, item)
    if "amount" in params and item["pricing"] is not None:
        raise invalid("The amount of an item with a price cannot be changed.", "amount")
    item |= {name: params[name] for name in ("amount", "description") if name in params}
    item["net_amount"] = item["amount"]
    if "metadata" in params:
        item["metadata"] = merge_metadata(item["metadata"], params["metadata"])
    if invoice is not None:
        with store.updating(invoice):
            _take_off(invoice, item)
            put_on(store, invoice, [item])
    return item


def remove(call: Call) -> Object:
    """Deletes an item that is on no final invoice."""
    store = call.store
    item = store.get("invoiceitem", call.id)
    invoice = _draft_of(call, item)
    if invoice is not None:
        with store.updating(invoice):
            _take_off(invoice, item)
            lines.total(store, invoice)
    item["_deleted"] = True
    store.emit("invoiceitem.deleted", item)
    return {"id": item["id"], "object": "invoiceitem", "deleted": True}


def list_all(call: Call) -> Object:
    """Newest first, by customer, invoice, and whether they wait for one."""
    items = [item | {"created": item["date"]} for item in call.store.all("invoiceitem")]
    kept = {item["id"] for item in within(call, items)}
    found = [item for item in call.store.all("invoiceitem") if item["id"] in kept]
    found = where(call, found, "customer", "invoice")
    if call.params.get("pending") is not None:
        found = [item for item in found if (item["invoice"] is None) == call.params["pending"]]
    return page(call, found, URL)


_ITEM: Shape = {
    "amount": integer,
    "description": text,
    "metadata": metadata,
}
ROUTES = (
    listing(
        URL,
        list_all,
        {"created": CREATED, "customer": text, "invoice": text, "pending": boolean},
    ),
    post(
        URL,
        create,
        {
            **_ITEM,
            "currency": text,
            "customer": text,
            "discountable": boolean,
            "invoice": text,
            "period": {"end": integer, "start": integer},
            "price_data": {"currency": text, "product": text, "unit_amount": integer},
            "pricing": {"price": text},
            "quantity": integer,
            "subscription": text,
        },
    ),
    get(URL + "/{id}", retrieving("invoiceitem")),
    post(URL + "/{id}", update, _ITEM),
    delete(URL + "/{id}", remove),
)

"""JSON-RPC on a call's way: which calls a request pays for, and which ids a refusal answers.

On a route that prices such calls nothing passes that the gateway can't read and its agent may: a
body that is no JSON here, or has two readings, is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway import errors
from gateway.errors import NO_IDS, Refusal, RpcIds, bad_request
from gateway.proxy import answers
from gateway.proxy.forward import REQUEST_READ_MAX_BYTES
from policies.catalog import Ending, ErrorStyle, Protocol, RpcPrices
from policies.meters.jsonrpc import awaited_ids, mistake_in_request, priced_calls

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.hold import Receipt
    from policies.catalog import Price, Route
    from policies.meters.facts import RequestFacts
    from policies.meters.reading import Reading
    from policies.terms import RpcCall, Terms

# A method whose answer is a stream without end, as GET's is.
LISTEN_METHOD = "subscriptions/listen"
_PRICED_AS_RPC = "jsonrpc."
_ONE_BY_ONE = Refusal(
    400, "bad_request", "This route has one price for a request: send one call in each."
)
_READABLE_CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii"})


def rpc_prices_of(route: Route) -> RpcPrices | None:
    """By what the calls in a route's requests are priced; None where they are not looked at."""
    price = route.price
    if price is None:
        return None
    if price.rpc is not None:
        return price.rpc
    return RpcPrices() if _is_by_call(price) or route.protocol is Protocol.MCP else None


def mistake_in_head(head: RequestHead) -> Refusal | None:
    """Why a body would be read differently by an agent: it is not said to be plain UTF-8."""
    types = 0
    for line in head.lines:
        name, _, value = line.partition(b":")
        match name.lower():
            case b"content-encoding":
                if value.strip().lower() not in {b"", b"identity"}:
                    return bad_request("Send JSON-RPC without a Content-Encoding.", status=415)
            case b"content-type":
                types += 1
                charset = _charset(value)
                if types > 1 or (charset and charset not in _READABLE_CHARSETS):
                    return bad_request("Send JSON-RPC as application/json in UTF-8.", status=415)
            case _:
                pass
    return None


def read_calls(
    route: Route, prices: RpcPrices, facts: RequestFacts
) -> tuple[RpcCall, ...] | Refusal:
    """The calls that a request has to pay for, or why it can't be said.

    Whatever its method: an agent may read a body that comes with a GET. Where a request has one
    price, a batch would be many calls for that of one.
    """
    body = facts.body
    if body is None:
        return errors.too_large(REQUEST_READ_MAX_BYTES)
    if not body:
        return ()
    document = facts.document()
    mistake = mistake_in_request(body, document)
    if mistake is not None:
        return bad_request(f"The body {mistake}.")
    calls = priced_calls(document, prices)
    price = route.price
    if isinstance(document, list) and len(document) > 1 and price is not None:
        sells = bool(calls) or route.protocol is not Protocol.MCP
        if sells and (price.rpc is None or _is_by_call(price)):
            return _ONE_BY_ONE
    return calls


def ids_of(style: ErrorStyle, facts: RequestFacts | None) -> RpcIds:
    """Which answers a refusal of this request has to give, in a style."""
    if style is not ErrorStyle.JSONRPC or facts is None:
        return NO_IDS
    document = facts.document()
    return RpcIds(awaited_ids(document), isinstance(document, list))


def refuse_admitted(exchange: Exchange, refusal: Refusal, receipt: Receipt | None = None) -> None:
    """Refuse a call that was admitted, in its route's style, and say what it has cost."""
    hold = exchange.hold
    lines = answers.price_lines(hold.call_id, receipt) if receipt is not None else b""
    style = hold.offer.route.errors
    ids = ids_of(style, exchange.facts)
    answers.refuse(exchange.call, refusal, style, hold.call_id, lines, ids)


def last_event(exchange: Exchange, refusal: Refusal, media_type: bytes) -> bytes:
    """What ends a stream that was refused in its course, in its route's style."""
    hold = exchange.hold
    style = hold.offer.route.errors
    ids = ids_of(style, exchange.facts)
    return errors.render_event(refusal, style, hold.call_id, media_type, ids)


def ending_of_calls(ending: Ending, terms: Terms, reading: Reading) -> Ending:
    """How a call has ended, of whose answer only the end is missing.

    Clients leave a stream with the answer that they waited for, so its end may never be seen; and
    leaving a moment early must not be a way to pay less.
    """
    if ending is Ending.CLIENT_DISCONNECT and terms.calls and not reading.unanswered:
        price = terms.price
        if price is not None and price.rpc is not None:  # else answers were not looked at
            return Ending.COMPLETED
    return ending


def listens(route: Route, terms: Terms, facts: RequestFacts | None) -> bool:
    """Whether the client of a request that costs nothing waits for what its agent may say."""
    if route.protocol is not Protocol.MCP or terms.price is not None or facts is None:
        return False
    if facts.method == "GET":
        return True
    document = facts.document()
    return isinstance(document, dict) and document.get("method") == LISTEN_METHOD


def _is_by_call(price: Price) -> bool:
    """Whether a request is priced as a whole by the method or tool that it names."""
    return price.table is not None and price.table.source.kind.startswith(_PRICED_AS_RPC)


def _charset(content_type: bytes) -> bytes:
    for parameter in content_type.lower().split(b";")[1:]:
        name, _, value = parameter.partition(b"=")
        if name.strip() == b"charset":
            return value.strip().strip(b'"')
    return b""

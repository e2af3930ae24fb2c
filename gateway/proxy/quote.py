"""`POST /-/quote`: what a call would cost at most, and whether it would be admitted, now.

The call is described by `{"method": "POST", "path": "/v1/chat/completions", "body": {…}}`; body and
method are optional. Key, `X-Max-Credits` and `X-Session-Id` are this request's own. The same code
as for a call fixes the terms and asks the admit script, in a dry run: nothing is held, nothing is
counted, and the agent is not called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from gateway import errors
from gateway.errors import Refusal, refusal_of
from gateway.proxy.admission import Quest
from gateway.proxy.answers import connection_line, refuse
from gateway.proxy.call_terms import call_terms
from gateway.proxy.forward import (
    CONTINUE,
    REQUEST_READ_MAX_BYTES,
    BodyError,
    body_refusal,
)
from gateway.proxy.heads import read_target
from policies.catalog import ErrorStyle
from policies.decision import Admitted, InsufficientCredits, KeyRefused
from policies.pricing import floor
from policies.units import format_credits

if TYPE_CHECKING:
    from gateway.proxy.admission import Admission
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.forward import BodyReader
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.offers import PlatformOffers
    from gateway.proxy.server import Call
    from policies.decision import Admission as Decision
    from policies.terms import Terms

QUOTE_PATH = "/-/quote"
_EXAMPLE = '{"method": "POST", "path": "/v1/chat/completions", "body": {"model": "small"}}'
_FIELDS = frozenset({"method", "path", "body"})


class _Wanted(NamedTuple):
    """The call that a quote is asked for."""

    method: str
    path: str
    query: str
    body: bytes


class Quotes:
    """Answers quotes."""

    def __init__(self, admission: Admission, reader: BodyReader, body_timeout_s: float) -> None:
        self._admission = admission
        self._reader = reader
        self._body_timeout_s = body_timeout_s

    async def answer(
        self,
        call: Call,
        head: RequestHead,
        call_id: str,
        principal: Principal,
        platform: PlatformOffers,
    ) -> None:
        """Write the quote, or why there is none."""
        quoted = await self._quote(call, head, call_id, principal, platform)
        if isinstance(quoted, Refusal):
            refuse(call, quoted, ErrorStyle.PROBLEM, call_id)
            return
        body = orjson.dumps({"request_id": call_id, **quoted})
        call.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
            b"X-Request-Id: %b\r\n%b\r\n%b"
            % (len(body), call_id.encode(), connection_line(call), body)
        )

    async def _quote(
        self,
        call: Call,
        head: RequestHead,
        call_id: str,
        principal: Principal,
        platform: PlatformOffers,
    ) -> dict[str, Any] | Refusal:
        wanted = await self._wanted(call, head, principal.account_id)
        if isinstance(wanted, Refusal):
            return wanted
        offer = platform.find(wanted.method, wanted.path)
        if offer is None:
            return errors.NO_ROUTE
        quest = Quest(call_id, principal, platform, offer, head.session, head.credits_max, call)
        return await self._admission.barred(quest) or await self._priced(quest, wanted)

    async def _priced(self, quest: Quest, wanted: _Wanted) -> dict[str, Any] | Refusal:
        principal, offer, most = quest.principal, quest.offer, quest.credits_max
        facts = offer.facts_about(*wanted, len(wanted.body)) if offer.needs_request else None
        terms = call_terms(offer, facts, principal.discount, most)
        too_dear = None
        if isinstance(terms, Refusal) and most is not None:
            # What it costs is told all the same.
            too_dear = terms
            quest = quest._replace(credits_max=None)
            terms = call_terms(offer, facts, principal.discount, None)
        if isinstance(terms, Refusal):
            return _told(quest, None, terms, None)
        asked = await self._admission.quote(quest, facts, terms)
        if isinstance(asked, Refusal):
            return asked
        if isinstance(asked[1], KeyRefused):
            principal.usable_until_ms = 0
            return errors.UNAUTHENTICATED
        return _quoted(quest, *asked, too_dear)

    async def _wanted(self, call: Call, head: RequestHead, account_id: int) -> _Wanted | Refusal:
        if head.method != "POST":
            return Refusal(405, "bad_request", f"Ask for a quote with POST {QUOTE_PATH}.")
        if head.expects_continue:
            call.write(CONTINUE)
        try:
            told, ended = await self._reader.read(call, account_id, self._body_timeout_s)
        except BodyError as failure:
            return body_refusal(failure)
        return _read_wanted(told) if ended else errors.too_large(REQUEST_READ_MAX_BYTES)


def _quoted(
    quest: Quest, terms: Terms, decision: Decision, too_dear: Refusal | None
) -> dict[str, Any]:
    if isinstance(decision, Admitted):
        return _told(quest, terms, too_dear, decision.remaining + terms.ceiling)
    available = decision.available if isinstance(decision, InsufficientCredits) else None
    refusal = too_dear or refusal_of(decision, quest.platform.upgrade_url)
    return _told(quest, terms, refusal, available)


def _told(
    quest: Quest, terms: Terms | None, refusal: Refusal | None, available: int | None
) -> dict[str, Any]:
    """The quote. Amounts are credits; `available` is null where another limit refuses before."""
    price = terms.price if terms is not None else None
    return {
        "route": quest.offer.route.name,
        "price_version": price.version if price is not None else None,
        "floor": format_credits(floor(terms)) if terms is not None else None,
        "ceiling": format_credits(terms.ceiling) if terms is not None else None,
        "available": format_credits(available) if available is not None else None,
        "admitted": refusal is None,
        "reason": _reason(refusal) if refusal is not None else None,
    }


def _reason(refusal: Refusal) -> dict[str, Any]:
    reason = {"status": refusal.status, "code": refusal.code, "detail": refusal.detail}
    if refusal.retry_after_s is not None:
        reason["retry_after_s"] = refusal.retry_after_s
    return {**reason, **refusal.facts}


def _read_wanted(told: bytes) -> _Wanted | Refusal:
    try:
        document = orjson.loads(told)
    except ValueError:
        document = None
    if not isinstance(document, dict) or not document.keys() <= _FIELDS:
        return Refusal(400, "bad_request", f"Describe the call as JSON such as {_EXAMPLE}.")
    method, path = document.get("method", "POST"), document.get("path")
    if not isinstance(method, str) or not isinstance(path, str):
        return Refusal(400, "bad_request", f"Name method and path as in {_EXAMPLE}.")
    target = read_target(path)
    if isinstance(target, Refusal):
        return target._replace(close=False)
    body = document.get("body")
    if body is None:
        return _Wanted(method, *target, b"")
    try:
        sent = body.encode() if isinstance(body, str) else orjson.dumps(body)
    except orjson.JSONEncodeError:
        return Refusal(400, "bad_request", "The body is nested too deep; send it as a string.")
    return _Wanted(method, *target, sent)

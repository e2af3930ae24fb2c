"""`POST /webhooks/stripe/{platform}`: where Stripe sends events. Nobody else needs it.

A 200 says that the event is committed. What is refused for good is 400 (404 where nobody takes
events at all); 5xx asks Stripe to send it again. Each refusal is counted by its reason, and the
text says what to mend: Stripe shows it to the platform's owner.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from aiohttp import web

from gateway.clock import CallIds
from gateway.control.api.problems import Problem, not_found, unavailable
from gateway.ledger import LedgerRejected, LedgerUnavailable
from gateway.stripe_sync.errors import NeedsMendingError
from gateway.stripe_sync.webhooks import NotBelievedError, Refusal

if TYPE_CHECKING:
    from gateway.control.metrics import Metrics
    from gateway.stripe_sync.webhooks import Reception

PATH: Final = "/webhooks/stripe/{platform}"
SIGNATURE_HEADER: Final = "Stripe-Signature"
# Far above what Stripe sends: lists within an object have ten or twenty items, metadata 25 kB.
EVENT_BYTES_MAX: Final = 512 * 1024
READ_BYTES: Final = 64 * 1024
# All in. Stripe waits for about twenty seconds.
ANSWER_TIMEOUT_S: Final = 15.0

log = logging.getLogger("tollkeeper.control")


def add_stripe_webhooks(app: web.Application, reception: Reception, metrics: Metrics) -> None:
    """Registers it."""
    call_ids = CallIds()

    async def receive(request: web.Request) -> web.Response:
        request_id = call_ids.new()
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                body = await _read(request)
                received = await reception.receive(
                    request.match_info["platform"], body, request.headers.get(SIGNATURE_HEADER, "")
                )
        except Exception as failure:
            refusal, problem = _refused(failure)
            if problem.status == 500:
                log.exception("request %s: an event of Stripe's", request_id)
            elif refusal is not Refusal.UNKNOWN:
                log.warning("request %s: an event was refused: %s", request_id, failure)
            metrics.stripe_event_refused(refusal)
            answer = problem.response(request_id)
        else:
            metrics.stripe_event_received(received.shape, is_new=received.is_new)
            answer = web.json_response({"received": received.event_id})
        answer.headers["X-Request-Id"] = request_id
        return answer

    app.router.add_post(PATH, receive)


async def _read(request: web.Request) -> bytes:
    """All of the body.

    Raises: NotBelievedError when it breaks off, or is too large; no more of it is read then.
    """
    body = b""
    if (request.content_length or 0) <= EVENT_BYTES_MAX:
        try:
            while chunk := await request.content.read(READ_BYTES):
                body += chunk
                if len(body) > EVENT_BYTES_MAX:
                    break
            else:
                return body
        except (ConnectionError, web.RequestPayloadError):
            raise NotBelievedError(
                Refusal.UNREADABLE, "The body broke off, or is not packed as its header says."
            ) from None
    raise NotBelievedError(
        Refusal.TOO_LARGE, f"Events have no more than {EVENT_BYTES_MAX // 1024} kB."
    )


def _refused(failure: Exception) -> tuple[Refusal, Problem]:
    """What a failure is counted as, and answered with."""
    match failure:
        case NotBelievedError(refusal=Refusal.UNKNOWN):
            return Refusal.UNKNOWN, not_found("platform")
        case NotBelievedError(refusal=refusal):
            close = {"Connection": "close"} if refusal is Refusal.TOO_LARGE else {}
            code = f"stripe_{refusal}"
            return refusal, Problem(400, code, str(failure), headers=close)
        case LedgerRejected():
            return Refusal.NO_EVENT, Problem(400, "stripe_no_event", "A value is out of range.")
        case LedgerUnavailable() | TimeoutError():
            return Refusal.UNAVAILABLE, unavailable("The event could not be kept: send it again.")
        case NeedsMendingError():
            return Refusal.UNAVAILABLE, unavailable(
                "The platform's Stripe settings need mending: send it again later."
            )
        case _:
            return Refusal.UNAVAILABLE, Problem(
                500, "internal_error", "This failed by a mistake of ours."
            )

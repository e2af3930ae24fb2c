"""One admitted call, from its hold to its settlement: forward, meter, settle, answer.

    HELD ──mark──► DISPATCHED ──head──► ANSWERING ──end──► SETTLED
      │ client gone      │ refused, late, gone    │ truncated, late, gone
      └──► void ◄─ unsent ┴──────────► settle ◄────┘

The mark is on its way to Redis before the agent's first byte is on its: should this worker die, a
hold without it is undone, and one with it is charged. Without Redis nothing is sent.

A call leaves HELD by exactly one of void and settle, on every path out of here: client gone,
agent broken, worker stopping. The settlement is acknowledged before the client gets the last
byte, never before the first.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import orjson

from gateway import errors
from gateway.counters import CountersUnavailable
from gateway.proxy import answers
from gateway.proxy.forward import (
    CONTINUE,
    BodyTimeoutError,
    BodyTooLargeError,
    ClientGoneError,
    large_body,
    request_head,
)
from gateway.proxy.live import HELD, LiveCall
from gateway.upstream import (
    CancelledUnsentError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from policies.catalog import Ending

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from gateway.errors import Refusal
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.hold import Hold, Receipt
    from gateway.proxy.server import Call
    from gateway.upstream import Answer, UpstreamClient
    from policies.meters import CallMeter

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_COMPLETED = Ending.COMPLETED
_LAST_CHUNK = b"0\r\n\r\n"
CLIENT_CLOSED_STATUS = 499
_UPLOAD_ERRORS = (ClientGoneError, BodyTooLargeError, BodyTimeoutError)

log = logging.getLogger("tollkeeper.proxy")


class Settling(Protocol):
    """How a call's money ends: `Settler`, or `Trust` for one without a hold."""

    async def settle(
        self, hold: Hold, ending: Ending, status: int, units: Sequence[int | None]
    ) -> Receipt:
        """Charge what the ending costs."""

    async def void(self, hold: Hold) -> None:
        """Give everything back."""


class Tools(NamedTuple):
    """What every exchange of a worker uses."""

    client: UpstreamClient
    settler: Settling
    mark: Callable[[LiveCall], Awaitable[None]]  # awaited before a call is sent on
    body_timeout_s: float


class Exchange:
    """Carries one hold to its settlement. Used once."""

    __slots__ = (
        "call",
        "head",
        "hold",
        "meter",
        "rounds",
        "stage",
        "status",
        "tail",
        "tools",
        "waited_for_client",
    )

    def __init__(self, call: Call, head: RequestHead, hold: Hold, tools: Tools) -> None:
        self.call = call
        self.head = head
        self.hold = hold
        self.tools = tools
        self.meter: CallMeter | None = None
        self.stage = HELD
        self.rounds = 0
        self.status = CLIENT_CLOSED_STATUS
        self.tail = b""  # the end of what was passed on
        self.waited_for_client = False

    async def run(self, body: bytes | None) -> None:
        """Forward and answer; `body` is None when it is still to be streamed from the client."""
        call = self.call
        if call.gone:
            await self.tools.settler.void(self.hold)
            return
        call.interruptible = True
        try:
            answer = await self._send(body)
            self.status = answer.status
            if answer.body is not None:
                call.interruptible = False
                await self._answer_whole(answer, answer.body)
            else:
                await self._answer_stream(answer)
        except CancelledUnsentError:
            await self._interrupted(sent=False)
        except asyncio.CancelledError:
            await self._interrupted(sent=True)
        except (*_UPLOAD_ERRORS, UpstreamError) as exc:
            await self._failed(exc)
        except CountersUnavailable:
            await self._not_sent()
        except Exception:
            # A mistake of ours: the hold must not wait for its lease. Harmless if it had ended.
            await self._finish(Ending.UNKNOWN)
            raise
        finally:
            call.interruptible = False

    async def _failed(self, failure: Exception) -> None:
        """Settle a call whose upload or agent failed before an answer began, and say so."""
        call_id, route = self.hold.call_id, self.hold.offer.route
        match failure:
            case ClientGoneError():
                await self._finish(Ending.CLIENT_DISCONNECT)
            case BodyTooLargeError():
                await self._refuse(Ending.CLIENT_ERROR, errors.too_large(route.body_max_bytes))
            case BodyTimeoutError():
                await self._refuse(Ending.CLIENT_ERROR, errors.BODY_TIMEOUT)
            case UpstreamTimeout(phase=phase):
                log.info("call %s: the agent was too slow (%s)", call_id, phase)
                await self._refuse(Ending.UPSTREAM_TIMEOUT, errors.UPSTREAM_TIMEOUT)
            case UpstreamUnreachable():
                log.warning("call %s: the agent could not be reached: %s", call_id, failure)
                await self._refuse(Ending.UPSTREAM_ERROR, errors.UPSTREAM_UNREACHABLE)
            case _:
                log.warning("call %s: the agent's answer is broken: %s", call_id, failure)
                await self._refuse(Ending.UPSTREAM_ERROR, errors.UPSTREAM_BROKEN)

    def _send(self, body: bytes | None) -> Awaitable[Answer]:
        call, head, offer = self.call, self.head, self.hold.offer
        method = head.method
        if body is not None:
            return self.tools.client.send(
                offer.origin,
                request_head(call, head, offer, self.hold.call_id, len(body)),
                body,
                method=method.encode(),
                safe=method in _SAFE_METHODS,
                sending=partial(self.tools.mark, self),
            )
        if head.expects_continue:
            call.write(CONTINUE)
        return self.tools.client.send(
            offer.origin,
            request_head(call, head, offer, self.hold.call_id, head.content_length),
            large_body(call, self.tools.body_timeout_s, offer.route.body_max_bytes),
            method=method.encode(),
            safe=False,
            chunked=head.content_length is None,
            sending=partial(self.tools.mark, self),
        )

    async def _not_sent(self) -> None:
        """Refuse a call that could not be marked as sent on, and undo its hold."""
        self.call.interruptible = False
        self.stage = HELD
        refusal = errors.unavailable("Credits can't be reserved at the moment.")
        answers.refuse(self.call, refusal, self.hold.offer.route.errors, self.hold.call_id)
        await self.tools.settler.void(self.hold)

    async def _answer_whole(self, answer: Answer, body: bytes) -> None:
        """Answer with what is here complete.

        Settled first, then written at once, with the price in its head.
        """
        call, hold = self.call, self.hold
        status = answer.status
        lines, kind_name = answers.read_headers(answer.headers)
        kind = hold.offer.answer_kind(kind_name)
        plan = kind.meter_plan
        units = plan.units_of(body, orjson.loads) if plan is not None else ()
        ending = _COMPLETED if status < 400 else _ending_of(status)
        receipt = await self.tools.settler.settle(hold, ending, status, units)
        if kind.event_stream and body:
            body += answers.sse_receipt(receipt, body)
        if not call.payload.is_eof():
            call.keep_alive = False
        call.write(
            b"HTTP/1.1 %d %b\r\n%b%b%b%b%b\r\n%b"
            % (
                status,
                answer.reason,
                lines,
                self._whole_framing(answer, body),
                answers.price_lines(hold.call_id, receipt),
                answers.rate_lines(hold.admitted),
                answers.connection_line(call),
                body,
            )
        )
        if call.connection.writing_paused:
            await self._drained()

    async def _answer_stream(self, answer: Answer) -> None:
        """Pass an answer as it comes. Its last bytes wait for the settlement."""
        call = self.call
        lines, kind_name = answers.read_headers(answer.headers)
        kind = self.hold.offer.answer_kind(kind_name)
        if kind.meter_plan is not None:
            self.meter = kind.meter_plan.open(orjson.loads)
        chunked = self._begin_stream(answer, lines)
        try:
            chunk = await self._pass_on(answer, chunked=chunked)
        except UpstreamTimeout as exc:
            log.info("call %s: the agent's answer stalled (%s)", self.hold.call_id, exc.phase)
            # Where a slow client has used the time up, the agent is not to blame.
            slow_client = exc.phase == "total" and self.waited_for_client
            await self._cut(
                answer, Ending.CLIENT_DISCONNECT if slow_client else Ending.UPSTREAM_TIMEOUT
            )
            return
        except UpstreamError as exc:
            log.warning("call %s: the agent's answer ended early: %s", self.hold.call_id, exc)
            await self._cut(answer, Ending.UPSTREAM_ERROR)
            return
        except (ConnectionError, TimeoutError, *_UPLOAD_ERRORS):
            # The client left, stopped reading, or broke its upload while the answer was passing.
            await self._cut(answer, Ending.CLIENT_DISCONNECT)
            return
        except asyncio.CancelledError:
            answer.abort()
            raise
        call.interruptible = False
        receipt = await self._settle(_ending_of(answer.status))
        if chunked:
            if kind.event_stream:
                chunk += answers.sse_receipt(receipt, self.tail + chunk)
            last = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
            call.write(last + _LAST_CHUNK)
        else:
            call.write(chunk)
        if call.connection.writing_paused:
            await self._drained()

    async def _pass_on(self, answer: Answer, *, chunked: bool) -> bytes:
        """Meter and pass every part of a stream but the last, which is returned."""
        call, meter = self.call, self.meter
        while True:
            chunk = await answer.read()
            if meter is not None and chunk:
                meter.feed(chunk)
            if not chunk or answer.ended:
                return chunk
            call.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            self.tail = chunk[-answers.SSE_END_BYTES :]
            if call.connection.writing_paused:
                self.waited_for_client = True
                await call.drained(self.tools.body_timeout_s)

    def _begin_stream(self, answer: Answer, lines: bytes) -> bool:
        """Write a stream's head; whether its body is to be chunked."""
        call, hold = self.call, self.hold
        chunked = answer.content_length is None and call.message.version >= (1, 1)
        if (answer.content_length is None and not chunked) or not call.payload.is_eof():
            call.keep_alive = False
        call.write(
            b"HTTP/1.1 %d %b\r\n%b%b%b%b%b\r\n"
            % (
                answer.status,
                answer.reason,
                lines,
                b"Transfer-Encoding: chunked\r\n" if chunked else _framing(answer),
                answers.reserve_lines(hold.call_id, hold.offer.ceiling, hold.admitted),
                answers.rate_lines(hold.admitted),
                answers.connection_line(call),
            )
        )
        return chunked

    def _whole_framing(self, answer: Answer, body: bytes) -> bytes:
        """The length of a complete answer; of a HEAD or 304 the length it would have had."""
        if answer.status in {204, 304} or self.head.method == "HEAD":
            return _framing(answer)
        return b"Content-Length: %d\r\n" % len(body)

    def _settle(self, ending: Ending) -> Awaitable[Receipt]:
        """Settle with the units seen so far."""
        if self.meter is not None:
            units = self.meter.units()
        else:
            price = self.hold.offer.route.price
            units = (None,) * len(price.meters) if price is not None else ()
        return self.tools.settler.settle(self.hold, ending, self.status, units)

    async def _finish(self, ending: Ending) -> None:
        """Settle a call whose client gets nothing more."""
        self.call.interruptible = False
        await self._settle(ending)
        self.call.abort()

    async def _cut(self, answer: Answer, ending: Ending) -> None:
        """End an answer visibly unfinished, on both sides."""
        answer.abort()
        await self._finish(ending)

    async def _refuse(self, ending: Ending, refusal: Refusal) -> None:
        """Settle a call that got no answer from the agent, and say why."""
        self.call.interruptible = False
        self.status = refusal.status
        receipt = await self._settle(ending)
        lines = answers.price_lines(self.hold.call_id, receipt)
        answers.refuse(self.call, refusal, self.hold.offer.route.errors, self.hold.call_id, lines)

    async def _interrupted(self, *, sent: bool) -> None:
        """End the hold of a call whose client left, or that the worker's deadline has cut.

        It is settled for what was seen, and undone where the agent saw nothing of it.
        """
        call = self.call
        call.interruptible = False
        ending = Ending.CLIENT_DISCONNECT if call.gone else Ending.UNKNOWN
        if not sent:
            self.stage = HELD
        end = self._settle(ending) if sent else self.tools.settler.void(self.hold)
        if call.gone:
            call.uncancel()
            await end
            return
        await asyncio.shield(asyncio.ensure_future(end))
        call.abort()
        raise asyncio.CancelledError

    async def _drained(self) -> None:
        """Let a slow client take the end of an answer that is settled already."""
        try:
            await self.call.drained(self.tools.body_timeout_s)
        except (ConnectionError, TimeoutError):
            self.call.abort()


def _ending_of(status: int) -> Ending:
    if status < 400:
        return Ending.COMPLETED
    return Ending.CLIENT_ERROR if status < 500 else Ending.UPSTREAM_ERROR


def _framing(answer: Answer) -> bytes:
    if answer.content_length is None or answer.status == 204:
        return b""
    return b"Content-Length: %d\r\n" % answer.content_length

"""One admitted call, from its hold to its settlement: forward, meter, settle, answer.

    HELD ──mark──► DISPATCHED ──head──► ANSWERING ──end──► SETTLED
      │ client gone      │ refused, late, gone    │ truncated, late, gone, exhausted
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
from time import monotonic
from typing import TYPE_CHECKING

from gateway import errors
from gateway.counters import CountersUnavailable
from gateway.errors import Refusal
from gateway.proxy import answers
from gateway.proxy.allowance import Allowance
from gateway.proxy.decoders import METER_TOOLS
from gateway.proxy.forward import (
    CONTINUE,
    BodyTimeoutError,
    BodyTooLargeError,
    ClientGoneError,
    large_body,
    request_head,
)
from gateway.proxy.hold import beyond_bound, ending_of
from gateway.proxy.jsonrpc import ending_of_calls, last_event, refuse_admitted
from gateway.proxy.kept_back import gathered
from gateway.proxy.live import HELD
from gateway.proxy.stream_end import ExhaustedError, event_rest
from gateway.upstream import (
    CancelledUnsentError,
    UpstreamError,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from policies.catalog import Ending
from policies.meters.reading import NOTHING_READ

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.proxy.heads import RequestHead
    from gateway.proxy.hold import Hold, Receipt
    from gateway.proxy.offers import AnswerKind
    from gateway.proxy.roles import StreamRewriter, Tools, Watcher
    from gateway.proxy.server import Call
    from gateway.upstream import Answer
    from policies.meters import CallMeter
    from policies.meters.facts import RequestFacts
    from policies.meters.reading import Reading

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_COMPLETED = Ending.COMPLETED
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_LAST_CHUNK = b"0\r\n\r\n"
CLIENT_CLOSED_STATUS = 499
_NO_ANSWER = (b"", b"")
UPLOAD_ERRORS = (ClientGoneError, BodyTooLargeError, BodyTimeoutError)

log = logging.getLogger("tollkeeper.proxy")


class Exchange:
    """Carries one hold to its settlement. Used once."""

    __slots__ = (
        "call",
        "facts",
        "head",
        "hold",
        "meter",
        "rewriter",
        "rounds",
        "stage",
        "started",
        "status",
        "tail",
        "tools",
        "waited_for_client",
        "watcher",
    )

    def __init__(
        self,
        call: Call,
        head: RequestHead,
        hold: Hold,
        tools: Tools,
        facts: RequestFacts | None = None,
    ) -> None:
        """`facts` is what the price asks of the request, None where it asks nothing."""
        self.call = call
        self.head = head
        self.hold = hold
        self.tools = tools
        self.facts = facts
        self.meter: CallMeter | None = None
        self.watcher: Watcher | None = None
        self.rewriter: StreamRewriter | None = None
        self.stage = HELD
        self.rounds = 0
        self.started = monotonic()
        self.status = CLIENT_CLOSED_STATUS
        self.tail = b""  # the end of what was passed on
        self.waited_for_client = False

    async def run(self, body: bytes | None, start: bytes = b"") -> None:
        """Forward and answer; `body` is None when all behind `start` is still to be streamed."""
        call = self.call
        if call.gone:
            await self.tools.settler.void(self.hold)
            return
        call.interruptible = True
        try:
            answer = await self._send(body, start)
            self.status = answer.status
            if answer.body is None and self.hold.terms.bound is not None:
                answer = await gathered(answer, self.hold.offer)
            if answer.body is not None:
                call.interruptible = False
                await self._answer_whole(answer, answer.body)
            else:
                await self._answer_stream(answer)
        except CancelledUnsentError:
            await self._interrupted(sent=False)
        except asyncio.CancelledError:
            await self._interrupted(sent=True)
        except (*UPLOAD_ERRORS, UpstreamError) as exc:
            await self._failed(exc)
        except CountersUnavailable:
            await self._not_sent()
        except Exception:
            # A mistake of ours: the hold must not wait for its lease. Harmless if it had ended. The
            # meters are not asked, for they may be what is mistaken.
            call.interruptible = False
            await self._end(Ending.UNKNOWN, NOTHING_READ, whole=False)
            call.abort()
            raise
        finally:
            call.interruptible = False

    def elapsed_ms(self) -> int:
        """How long it has run."""
        return int((monotonic() - self.started) * 1000)

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

    def _send(self, body: bytes | None, start: bytes) -> Awaitable[Answer]:
        call, head, offer, tools = self.call, self.head, self.hold.offer, self.tools
        method = head.method
        if body is not None:
            return tools.client.send(
                offer.origin,
                request_head(call, head, offer, self.hold.call_id, len(body)),
                body,
                method=method.encode(),
                safe=method in _SAFE_METHODS,
                sending=partial(tools.mark, self),
            )
        if head.expects_continue and not start:
            call.write(CONTINUE)
        return tools.client.send(
            offer.origin,
            request_head(call, head, offer, self.hold.call_id, head.content_length),
            large_body(call, tools.body_timeout_s, offer.route.body_max_bytes, start, self.facts),
            method=method.encode(),
            safe=False,
            chunked=head.content_length is None,
            sending=partial(tools.mark, self),
        )

    async def _not_sent(self) -> None:
        """Refuse a call that could not be marked as sent on, and undo its hold."""
        self.call.interruptible = False
        self.stage = HELD
        refuse_admitted(self, errors.NOT_RESERVED)
        await self.tools.settler.void(self.hold)

    async def _answer_whole(self, answer: Answer, body: bytes) -> None:
        """Answer with what is here complete.

        Settled first, then written at once, with the price in its head.
        """
        call, hold = self.call, self.hold
        status = answer.status
        lines, kind = self._read_head(answer)
        plan = kind.meter_plan
        if plan is None or hold.terms.price is None:
            reading = NOTHING_READ
        else:
            elapsed_ms = self.elapsed_ms() if plan.timed else 0
            reading = plan.read_whole(
                METER_TOOLS, body, answer.headers, self.facts, elapsed_ms, hold.terms.calls
            )
        ending = _COMPLETED if status < 400 else ending_of(status)
        if hold.terms.bound is not None:
            cost = beyond_bound(hold, ending, reading)
            if cost is not None:
                await self._withhold(reading, cost, hold.terms.bound)
                return
        if self.rewriter is not None:
            body = self.rewriter.feed(body) + self.rewriter.end()
        if self.watcher is not None:
            self.watcher.begin(
                status, answer.reason, lines, self._whole_framing(answer, body), kind
            )
            self.watcher.feed(body)
        receipt = await self._end(ending, reading, whole=True)
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

    async def _withhold(self, reading: Reading, cost: int, bound: int) -> None:
        """Keep back an answer that costs more than its caller allows; that much is charged.

        An answer for less than its price would make a small X-Max-Credits the way to get it cheap.
        """
        refusal = errors.above_bound(cost, bound)
        self.status = refusal.status
        receipt = await self._end(Ending.EXHAUSTED, reading, whole=False)
        refuse_admitted(self, refusal, receipt)

    async def _answer_stream(self, answer: Answer) -> None:
        """Pass an answer as it comes. Its last bytes wait for the settlement."""
        call = self.call
        lines, kind = self._read_head(answer)
        if kind.meter_plan is not None and self.hold.terms.price is not None:
            self.meter = kind.meter_plan.open(
                METER_TOOLS, answer.headers, self.facts, self.hold.terms.calls
            )
        chunked = self._begin_stream(answer, lines)
        if self.watcher is not None:
            framing = _CHUNKED if chunked else answers.length_line(answer)
            self.watcher.begin(answer.status, answer.reason, lines, framing, kind)
        try:
            chunk = await self._pass_on(answer, kind, chunked=chunked)
        except ExhaustedError as exhausted:
            await self._exhaust(answer, kind, exhausted, chunked=chunked)
            return
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
        except (ConnectionError, TimeoutError, *UPLOAD_ERRORS):
            # The client left, stopped reading, or broke its upload while the answer was passing.
            await self._cut(answer, Ending.CLIENT_DISCONNECT)
            return
        except asyncio.CancelledError:
            answer.abort()
            raise
        call.interruptible = False
        ending = ending_of(answer.status)
        reading = self._reading()
        if not kind.event_stream and beyond_bound(self.hold, ending, reading) is not None:
            await self._cut(answer, Ending.EXHAUSTED)  # its end is kept back: see _withhold
            return
        receipt = await self._end(ending, reading, whole=True)
        self._write_end(kind, receipt, chunk, chunked=chunked)
        if call.connection.writing_paused:
            await self._drained()

    def _write_end(
        self, kind: AnswerKind, receipt: Receipt, chunk: bytes, *, chunked: bool
    ) -> None:
        """Write a stream's last part, with what it cost where that can be added."""
        if not chunked:
            self.call.write(chunk)
            return
        if kind.event_stream:
            chunk += answers.sse_receipt(receipt, self.tail + chunk)
        last = b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunk else b""
        self.call.write(last + _LAST_CHUNK)

    async def _pass_on(  # noqa: C901 - per chunk
        self, answer: Answer, kind: AnswerKind, *, chunked: bool
    ) -> bytes:
        """Meter and pass every part of a stream but the last, which is returned.

        Raises: ExhaustedError with a part that the hold does not pay for.
        """
        call, meter, watcher, rewriter = self.call, self.meter, self.watcher, self.rewriter
        plan = kind.meter_plan
        allowance = None
        if meter is not None and plan is not None and self.tools.raises is not None:
            allowance = Allowance(self.hold, meter, self.tools.raises, plan, self.elapsed_ms)
        while True:
            chunk = await answer.read()
            ended = not chunk or answer.ended
            if meter is not None and chunk:
                meter.feed(chunk)
            if rewriter is not None:
                chunk = rewriter.feed(chunk) + (rewriter.end() if ended else b"")
            if allowance is not None and not ended and not allowance.covered():
                hold = await allowance.cover(self.hold)
                if isinstance(hold, Refusal):
                    raise ExhaustedError(hold, chunk, allowance.reading(), allowance.lent)
                self.hold = hold
            if watcher is not None and chunk:
                watcher.feed(chunk)
            if ended:
                return chunk
            if chunk:
                call.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
                self.tail = chunk[-answers.SSE_END_BYTES :]
            if call.connection.writing_paused:
                self.waited_for_client = True
                await call.drained(self.tools.body_timeout_s)

    async def _exhaust(
        self, answer: Answer, kind: AnswerKind, exhausted: ExhaustedError, *, chunked: bool
    ) -> None:
        """End a stream that nobody can pay further: after the event under way, with one of ours.

        What passed is charged, at most what is held or lent; a client that leaves ends it no more.
        """
        call, hold, refusal = self.call, self.hold, exhausted.refusal
        call.interruptible = False
        log.info("call %s: ended in mid-stream: %s", hold.call_id, refusal.code)
        event = last_event(self, refusal, kind.media_type)
        rest = None
        if event and chunked:
            rest = await event_rest(
                answer, self.tail, exhausted.chunk, event_stream=kind.event_stream
            )
        answer.abort()
        self.hold = hold._replace(terms=hold.terms._replace(bound=max(hold.held, exhausted.lent)))
        receipt = await self._end(Ending.EXHAUSTED, exhausted.reading, whole=False)
        if rest is None:
            call.abort()
            return
        self.tail = b""
        self._write_end(kind, receipt, rest + event, chunked=True)
        if call.connection.writing_paused:
            await self._drained()

    def _read_head(self, answer: Answer) -> tuple[bytes, AnswerKind]:
        """The header lines that pass, and what kind of answer it is."""
        lines, kind_name = answers.read_headers(answer.headers)
        offer = self.hold.offer
        if offer.hidden_names:
            lines = answers.without(lines, offer.hidden_names)
        kind = offer.answer_kind(kind_name)
        if not kind.event_stream:
            self.rewriter = None  # such as a refusal
        return lines, kind

    def _begin_stream(self, answer: Answer, lines: bytes) -> bool:
        """Write a stream's head; whether its body is to be chunked."""
        call, hold = self.call, self.hold
        # What is rewritten has another length than the agent said.
        sized = answer.content_length is not None and self.rewriter is None
        chunked = not sized and call.message.version >= (1, 1)
        if not (sized or chunked) or not call.payload.is_eof():
            call.keep_alive = False
        call.write(
            b"HTTP/1.1 %d %b\r\n%b%b%b%b%b\r\n"
            % (
                answer.status,
                answer.reason,
                lines,
                answers.length_line(answer) if sized else _CHUNKED * chunked,
                answers.reserve_lines(hold.call_id, hold.held, hold.admitted),
                answers.rate_lines(hold.admitted),
                answers.connection_line(call),
            )
        )
        return chunked

    def _whole_framing(self, answer: Answer, body: bytes) -> bytes:
        """The length of a complete answer; of a HEAD or 304 the length it would have had."""
        if answer.status in {204, 304} or self.head.method == "HEAD":
            return answers.length_line(answer)
        return b"Content-Length: %d\r\n" % len(body)

    def _reading(self) -> Reading:
        """What the meters have read so far, also of a call that has had no answer."""
        meter = self.meter
        if meter is None:
            plan = self.hold.offer.answer_kind(_NO_ANSWER).meter_plan
            if plan is None:
                return NOTHING_READ
            meter = plan.open(METER_TOOLS, (), self.facts, self.hold.terms.calls)
        return meter.reading(self.elapsed_ms())

    async def _end(self, ending: Ending, reading: Reading, *, whole: bool) -> Receipt:
        """Settle, and tell who watches; `whole`: the client gets all of the agent's answer."""
        if self.hold.terms.calls:
            ending = ending_of_calls(ending, self.hold.terms, reading)
        receipt = await self.tools.settler.settle(self.hold, ending, self.status, reading)
        if self.watcher is not None:
            await self.watcher.end(ending, receipt, whole=whole)
        return receipt

    async def _finish(self, ending: Ending) -> None:
        """Settle a call whose client gets nothing more."""
        self.call.interruptible = False
        await self._end(ending, self._reading(), whole=False)
        self.call.abort()

    async def _cut(self, answer: Answer, ending: Ending) -> None:
        """End an answer visibly unfinished, on both sides."""
        answer.abort()
        await self._finish(ending)

    async def _refuse(self, ending: Ending, refusal: Refusal) -> None:
        """Settle a call that got no answer from the agent, and say why."""
        self.call.interruptible = False
        self.status = refusal.status
        receipt = await self._end(ending, self._reading(), whole=False)
        refuse_admitted(self, refusal, receipt)

    async def _interrupted(self, *, sent: bool) -> None:
        """End the hold of a call whose client left, or that the worker's deadline has cut.

        It is settled for what was seen, and undone where the agent saw nothing of it.
        """
        call = self.call
        call.interruptible = False
        ending = Ending.CLIENT_DISCONNECT if call.gone else Ending.UNKNOWN
        if not sent:
            self.stage = HELD
        end: Awaitable[object]
        if sent:
            end = self._end(ending, self._reading(), whole=False)
        else:
            end = self.tools.settler.void(self.hold)
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

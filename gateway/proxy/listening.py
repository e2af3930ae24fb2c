"""Streams on which a client only listens: a session's GET of the Model Context Protocol.

They cost nothing and may be silent for hours. So such a stream is settled, for nothing, when it
begins: it takes no place among the calls that an account may run at once, and no lease is renewed
for it. It has a bound of its own, connections of its own, and its agent may be silent; it ends with
its client, its agent, or as soon as this worker is to stop.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from gateway.errors import IN_FLIGHT_RETRY_AFTER_S, Refusal
from gateway.proxy.exchange import UPLOAD_ERRORS, Exchange
from gateway.proxy.jsonrpc import refuse_admitted
from gateway.upstream import UpstreamError
from policies.catalog import Ending
from policies.meters.reading import NOTHING_READ

if TYPE_CHECKING:
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.hold import Hold, Receipt
    from gateway.proxy.offers import AnswerKind
    from gateway.proxy.roles import Tools
    from gateway.proxy.server import Call
    from gateway.upstream import Answer
    from policies.meters.facts import RequestFacts

LISTENERS_PER_ACCOUNT_MAX = 256  # per worker
_TOO_MANY = Refusal(
    429,
    "concurrency_limited",
    f"This account listens to {LISTENERS_PER_ACCOUNT_MAX} streams already.",
    {"limit": LISTENERS_PER_ACCOUNT_MAX, "limit_source": "account"},
    IN_FLIGHT_RETRY_AFTER_S,
)

log = logging.getLogger("tollkeeper.proxy")


class Listeners:
    """How many streams each account listens to in this worker."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def enter(self, account_id: int) -> bool:
        """Count one more, unless there are too many."""
        count = self._counts.get(account_id, 0)
        if count >= LISTENERS_PER_ACCOUNT_MAX:
            return False
        self._counts[account_id] = count + 1
        return True

    def leave(self, account_id: int) -> None:
        """Count one less."""
        count = self._counts.pop(account_id) - 1
        if count:
            self._counts[account_id] = count


class Listening(Exchange):
    """Carries one such stream. An answer of another kind is passed as any other."""

    __slots__ = ("_listeners",)

    def __init__(  # noqa: PLR0917 - an Exchange's, and where it is counted
        self,
        call: Call,
        head: RequestHead,
        hold: Hold,
        tools: Tools,
        facts: RequestFacts | None,
        listeners: Listeners,
    ) -> None:
        super().__init__(call, head, hold._replace(offer=hold.offer.patient), tools, facts)
        self._listeners = listeners

    async def run(self, body: bytes | None, start: bytes = b"") -> None:
        """Forward and answer, if the account may listen to one more."""
        account_id = self.hold.principal.account_id
        if not self._listeners.enter(account_id):
            await self.tools.settler.void(self.hold)
            refuse_admitted(self, _TOO_MANY)
            return
        try:
            await super().run(body, start)
        finally:
            self._listeners.leave(account_id)

    async def _answer_stream(self, answer: Answer) -> None:
        lines, kind = self._read_head(answer)
        if not kind.event_stream or answer.status != 200:
            await super()._answer_stream(answer)
            return
        call = self.call
        call.interruptible = False
        receipt = await self._end(Ending.COMPLETED, NOTHING_READ, whole=False)
        if call.gone:
            answer.abort()
            return
        await self._listen(answer, lines, kind, receipt)

    async def _listen(
        self, answer: Answer, lines: bytes, kind: AnswerKind, receipt: Receipt
    ) -> None:
        call = self.call
        chunked = self._begin_stream(answer, lines)
        call.interruptible = call.idle = True
        chunk = b""
        try:
            chunk = await self._pass_on(answer, kind, chunked=chunked)
        except asyncio.CancelledError:
            # The client has gone, or this worker is to stop: then it may listen elsewhere.
            answer.abort()
            call.uncancel()
            if call.gone or not chunked:
                call.abort()
                return
        except (UpstreamError, ConnectionError, TimeoutError, *UPLOAD_ERRORS) as exc:
            log.info("call %s: its stream has ended: %r", self.hold.call_id, exc)
            answer.abort()
            call.abort()
            return
        finally:
            call.interruptible = call.idle = False
        self._write_end(kind, receipt, chunk, chunked=chunked)
        if call.connection.writing_paused:
            await self._drained()

"""One running call that has an idempotency key: it records its answer, and what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from gateway.proxy.live import HELD
from gateway.proxy.replays import Head, Replay
from policies.idempotency import IDEMPOTENT_ANSWER_MAX_BYTES, Keep, kept

if TYPE_CHECKING:
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.exchange import Exchange
    from gateway.proxy.hold import Receipt
    from gateway.proxy.offers import AnswerKind
    from policies.catalog import Ending
    from policies.idempotency import Claim

# What the answers of all running calls of a worker may take.
RECORDING_MAX_BYTES = 64 * 1024 * 1024


class Recording:
    """What the answers of a worker's running calls take in memory."""

    def __init__(
        self,
        *,
        answer_max_bytes: int = IDEMPOTENT_ANSWER_MAX_BYTES,
        max_bytes: int = RECORDING_MAX_BYTES,
    ) -> None:
        self.answer_max_bytes = answer_max_bytes
        self._left_bytes = max_bytes

    def take(self, size: int) -> bool:
        """Whether there is room for so many bytes more; they are taken then."""
        if size > self._left_bytes:
            return False
        self._left_bytes -= size
        return True

    def give_back(self, size: int) -> None:
        """They are kept elsewhere, or not at all."""
        self._left_bytes += size


class Keeper(Protocol):
    """Who keeps what has become of a call: `Idempotency`."""

    async def remember(self, keyed: KeyedCall, replay: Replay) -> None:
        """Keep what it was answered."""

    async def forget(self, keyed: KeyedCall) -> None:
        """Let a retry run."""

    def leave(self, keyed: KeyedCall) -> None:
        """Keep nothing and give nothing back."""


class KeyedCall:
    """Watches an exchange: records what its client gets, and keeps it before its last byte."""

    __slots__ = (
        "_deadline_ms",
        "_exchange",
        "_head",
        "_keeper",
        "_parts",
        "_recording",
        "_size",
        "claim",
        "ended",
        "principal",
    )

    def __init__(
        self,
        keeper: Keeper,
        recording: Recording,
        principal: Principal,
        claim: Claim,
        deadline_ms: int,
    ) -> None:
        """`deadline_ms`: it has to be admitted by then, by Redis' clock."""
        self._keeper = keeper
        self._recording = recording
        self._deadline_ms = deadline_ms
        self._exchange: Exchange | None = None
        self._head: Head | None = None
        self._parts: list[bytes] | None = []  # None: it does not fit
        self._size = 0
        self.principal = principal
        self.claim = claim
        self.ended = False

    def watch(self, exchange: Exchange) -> bool:
        """See what the call is answered.

        False: it was admitted too late, so that another call may have its key by now.
        """
        self._exchange = exchange
        exchange.watcher = self
        exchange.call.detached = True
        return exchange.hold.admitted.admitted_ms < self._deadline_ms

    def begin(
        self, status: int, reason: bytes, lines: bytes, framing: bytes, kind: AnswerKind
    ) -> None:
        """Take the head of the answer. Whoever leaves a stream that he has seen, ends it."""
        if self._exchange is not None and not self._exchange.call.gone:
            self._exchange.call.attach()
        self._head = Head(status, reason, lines, framing, kind.event_stream)

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the body."""
        parts = self._parts
        if parts is None:
            return
        size = len(chunk)
        if self._size + size > self._recording.answer_max_bytes or not self._recording.take(size):
            self._drop()
            if self._exchange is not None:  # nobody would ever get the rest
                self._exchange.call.attach()
            return
        self._size += size
        parts.append(chunk)

    async def end(self, ending: Ending, receipt: Receipt, *, whole: bool) -> None:
        """Keep what the call was answered, now that it is settled. Never fails."""
        self.ended = True
        charged, _, reserved = receipt  # a task may keep what it reserves, and be charged later
        status = 0
        if self._exchange is not None:
            status = self._exchange.status
            self._exchange.call.detached = False  # what still passes, as of MCP, is not kept
        fits = self._parts is not None and self._head is not None
        keep = kept(ending, status, charged or reserved or 0, whole=whole, fits=fits)
        if keep is Keep.NOTHING:
            self._drop()
            await self._keeper.forget(self)
            return
        replay = Replay(self.claim.call_id, ending, status, charged, reserved=reserved)
        if keep is Keep.ANSWER:
            replay = replay._replace(head=self._head, body=b"".join(self._parts or ()))
        self._drop()
        await self._keeper.remember(self, replay)

    async def forget(self) -> None:
        """Give the key back: the call was denied."""
        self.ended = True
        await self._keeper.forget(self)

    async def close(self) -> None:
        """See to a call that came to no `end`: if its hold was undone, a retry may run."""
        if self.ended:
            return
        self._drop()
        if self._exchange is not None and self._exchange.stage == HELD:
            await self.forget()
        else:
            self._keeper.leave(self)

    def _drop(self) -> None:
        self._recording.give_back(self._size)
        self._size = 0
        self._parts = None

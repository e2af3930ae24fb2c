"""What a WebSocket has used, and whether its hold covers it: nothing passes that is not covered.

    covered ──a frame, or time, beyond the hold──► asked ──Raised──► covered
       ▲                                             └── refused: the conversation is over
       └────── every `check_ms`: raised for one more interval like the busiest so far

Redis decides whether a hold can be raised, against credits and caps; asked in intervals it also
says whether key and account may go on. Between two answers a conversation uses what is held and no
more, so that it never costs what nobody can pay: also while Redis is away.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.counters import CountersUnavailable
from gateway.proxy.allowance import ask_for
from policies.decision import (
    AccountSuspended,
    InsufficientCredits,
    KeyRefused,
    Raised,
    ShardLost,
    SpendCapReached,
)
from policies.pricing import at_most
from policies.units import format_credits

if TYPE_CHECKING:
    from websockets.typing import BytesLike

    from gateway.proxy.allowance import Raises
    from gateway.proxy.hold import Hold
    from policies.catalog import Source
    from policies.decision import Raising
    from policies.meters import CallMeter
    from policies.meters.facts import RequestFacts

# A hold that is asked for again while Redis does not answer: how often, and until when.
RETRY_S = 0.25
REDIS_WAIT_S = 5.0
_DURATION = "duration"
# So many frames, of together so many bytes, are covered in advance where the hold has room for
# them: they are counted, and their cost is not computed one by one.
FRAMES_AHEAD = 64
BYTES_AHEAD = 64 * 1024

log = logging.getLogger("tollkeeper.proxy")


class Denied(NamedTuple):
    """Why a conversation can't go on; with a code of the contract before it, for programs.

    `later`: it is not the caller's fault, and can be tried again.
    """

    reason: str
    later: bool = False


KEY_REVOKED = Denied("key_revoked")
ACCOUNT_SUSPENDED = Denied("account_suspended")
UNAVAILABLE = Denied("temporarily_unavailable", later=True)


class Holder(Protocol):
    """A call with a hold, its meter, and what its price asks of the request."""

    hold: Hold
    meter: CallMeter | None
    facts: RequestFacts | None


class Cover:
    """Watches over one conversation. The call's hold is replaced as it is raised."""

    __slots__ = (
        "_ahead_bytes",
        "_ahead_frames",
        "_ahead_until_ms",
        "_asking",
        "_busiest",
        "_call",
        "_interval_ms",
        "_meter",
        "_raises",
        "_since",
        "_sources",
        "tight",
    )

    def __init__(self, call: Holder, raises: Raises, interval_ms: int) -> None:
        """Watch over a call that has opened its meter, if its price has any."""
        price = call.hold.terms.price
        self._call = call
        self._meter = call.meter
        self._raises = raises
        self._interval_ms = interval_ms
        self._asking = asyncio.Lock()
        self._sources = [spec.sources[0] for spec in price.meters] if price is not None else []
        # Units of the busiest interval so far, and those at the beginning of this one.
        self._busiest = (0,) * len(self._sources)
        self._since = self._units(0)
        self._ahead_frames = self._ahead_bytes = self._ahead_until_ms = 0
        self.tight = call.meter is not None  # a frame that passes may be one of the last

    def note(self, data: BytesLike, *, inbound: bool, begins: bool) -> None:
        """A frame of a message passes, perhaps the message's first."""
        meter = self._meter
        if meter is None:
            return
        if begins:
            meter.note_messages(int(inbound), int(not inbound))
        if not inbound:
            meter.feed(bytes(data))
        elif self._call.facts is not None:
            facts = self._call.facts
            facts.body_bytes = (facts.body_bytes or 0) + len(data)

    def covers(self, elapsed_ms: int, size: int, *, inbound: bool, begins: bool) -> bool:
        """Whether the hold pays for this frame, too, after so much time. Hot."""
        if self._meter is None:
            return True
        if (
            self._ahead_frames > 0
            and size <= self._ahead_bytes
            and elapsed_ms <= self._ahead_until_ms
        ):
            self._ahead_frames -= 1
            self._ahead_bytes -= size
            return True
        return self._look_ahead(
            elapsed_ms, self._with(elapsed_ms, size, inbound=inbound, begins=begins)
        )

    def lasts_ms(self, elapsed_ms: int, most_ms: int) -> int:
        """For how much longer the hold pays if only time passes, up to `most_ms`; 0: not at all."""
        if self._paid_at(elapsed_ms + most_ms):
            return most_ms
        return max(self._last_paid(elapsed_ms - 1, elapsed_ms + most_ms) + 1 - elapsed_ms, 0)

    def paid_ms(self, elapsed_ms: int) -> int:
        """How much of the time that has passed the hold pays for; usually all of it."""
        return elapsed_ms if self._paid_at(elapsed_ms) else self._last_paid(0, elapsed_ms)

    async def cover(
        self, elapsed_ms: int, size: int, *, inbound: bool, begins: bool
    ) -> Denied | None:
        """Raise the hold for a frame that it does not cover; or why that can't be."""
        async with self._asking:
            units = self._with(elapsed_ms, size, inbound=inbound, begins=begins)
            if self._look_ahead(elapsed_ms, units):  # another frame has had it raised meanwhile
                return None
            return await self._raise(elapsed_ms, units)

    async def check(self, elapsed_ms: int) -> Denied | None:
        """At the end of an interval: raise for one more; or why the conversation is over."""
        async with self._asking:
            units = self._units(elapsed_ms)
            self._learn(units)
            self._since = units
            return await self._raise(elapsed_ms, units)

    async def _raise(self, elapsed_ms: int, units: tuple[int, ...]) -> Denied | None:
        """Hold what these units cost, and what an interval more may."""
        self._learn(units)
        self._ahead_frames = 0
        hold = self._call.hold
        bound = hold.terms.bound
        least = self._cost(units)
        if bound is not None and least > bound:
            return Denied(f"spend_cap_reached: your X-Max-Credits is {format_credits(bound)}")
        target = self._cost(self._after_an_interval(elapsed_ms, units))
        if bound is not None:
            target = min(target, bound)
        if target <= hold.held:
            least = target = 0  # it is only asked whether key and account may go on
        decision = await self._asked(least, target)
        if isinstance(decision, Raised):
            self._call.hold = hold.raised(decision.held, decision.allocation, decision.counted)
            return None
        if isinstance(decision, CountersUnavailable | ShardLost) and self._cost(units) <= hold.held:
            log.warning("call %s: its hold can't be raised: %r", hold.call_id, decision)
            return None  # what is held is there to be used, and no more
        if isinstance(decision, InsufficientCredits):
            # What is held and not used yet would have paid for a part of it.
            unused = hold.held - self._cost(self._units(self.paid_ms(elapsed_ms)))
            needs = format_credits(decision.needed + unused)
            has = format_credits(decision.available + unused)
            return Denied(f"insufficient_credits: needs {needs}, has {has}")
        return _denied(decision)

    def _after_an_interval(self, elapsed_ms: int, units: tuple[int, ...]) -> tuple[int, ...]:
        """These units and those of one more interval, as busy as the busiest so far."""
        later = self._units(elapsed_ms + self._interval_ms)
        return tuple(
            [
                max(count, at_then) + (0 if source.kind == _DURATION else busy)
                for count, at_then, busy, source in zip(
                    units, later, self._busiest, self._sources, strict=True
                )
            ]
        )

    async def _asked(self, least: int, target: int) -> Raising | CountersUnavailable:
        """The answer of Redis; it is waited for only where nothing can pass without it."""
        hold = self._call.hold
        loop = asyncio.get_running_loop()
        deadline = loop.time() + REDIS_WAIT_S
        while True:
            decision: Raising | CountersUnavailable
            try:
                decision = await ask_for(self._raises, hold, least, target)
            except CountersUnavailable as failure:
                decision = failure
            away = isinstance(decision, CountersUnavailable | ShardLost)
            if not away or least <= hold.held or loop.time() >= deadline:
                return decision
            await asyncio.sleep(RETRY_S)

    def _look_ahead(self, elapsed_ms: int, units: tuple[int, ...]) -> bool:
        """Whether these units are covered; and if so, whether some more are, just in case."""
        if self._cost(units) > self._call.hold.held:
            return False
        until_ms = elapsed_ms + self._interval_ms
        more = [
            max(count, at_then) + _ahead(source)
            for count, at_then, source in zip(
                units, self._units(until_ms), self._sources, strict=True
            )
        ]
        self.tight = self._cost(tuple(more)) > self._call.hold.held
        if not self.tight:
            self._ahead_frames, self._ahead_bytes = FRAMES_AHEAD, BYTES_AHEAD
            self._ahead_until_ms = until_ms
        return True

    def _learn(self, units: tuple[int, ...]) -> None:
        """How busy this interval has been so far."""
        self._busiest = tuple(
            [
                max(busy, count - before)
                for busy, count, before in zip(self._busiest, units, self._since, strict=True)
            ]
        )

    def _last_paid(self, paid_ms: int, beyond_ms: int) -> int:
        """The last millisecond that the hold pays for, between one that it does and another."""
        while beyond_ms - paid_ms > 1:
            middle_ms = (paid_ms + beyond_ms) // 2
            if self._paid_at(middle_ms):
                paid_ms = middle_ms
            else:
                beyond_ms = middle_ms
        return paid_ms

    def _paid_at(self, elapsed_ms: int) -> bool:
        return self._cost(self._units(elapsed_ms)) <= self._call.hold.held

    def _units(self, elapsed_ms: int) -> tuple[int, ...]:
        """What is used by then."""
        if self._meter is None:
            return ()
        return tuple([count or 0 for count in self._meter.reading(elapsed_ms).units])

    def _with(self, elapsed_ms: int, size: int, *, inbound: bool, begins: bool) -> tuple[int, ...]:
        """What is used by then with one more frame."""
        units = self._units(elapsed_ms)
        return tuple(
            [
                count + _of_frame(source, size, inbound=inbound, begins=begins)
                for count, source in zip(units, self._sources, strict=True)
            ]
        )

    def _cost(self, units: tuple[int, ...]) -> int:
        """Microcredits of so many units, wherever tiers find the account and whatever the bound."""
        return at_most(self._call.hold.terms, units)


def _denied(decision: Raising | CountersUnavailable) -> Denied:
    """Why a hold was not raised."""
    match decision:
        case SpendCapReached(limit=limit, source=source, window=window):
            cap = f"{format_credits(limit)} ({source}, {window})"
            return Denied(f"spend_cap_reached: the cap is {cap}")
        case KeyRefused():
            return KEY_REVOKED
        case AccountSuspended():
            return ACCOUNT_SUSPENDED
    return UNAVAILABLE


def _of_frame(source: Source, size: int, *, inbound: bool, begins: bool) -> int:
    """How many units of a source a frame is."""
    match source.kind, source.argument:
        case ("websocket.messages", ""):
            return int(begins)
        case ("websocket.messages", way):
            return int(begins and inbound == (way == "in"))
        case ("request.bytes", _):
            return size if inbound else 0
        case ("response.bytes", _):
            return 0 if inbound else size
    return 0


def _ahead(source: Source) -> int:
    """The most units of a source that the frames can be which are covered in advance."""
    match source.kind:
        case "websocket.messages":
            return FRAMES_AHEAD
        case "request.bytes" | "response.bytes":
            return BYTES_AHEAD
    return 0

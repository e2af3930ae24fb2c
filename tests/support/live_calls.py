"""Holds and live calls as the proxy makes them, without a proxy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from gateway.proxy.hold import Hold
from gateway.proxy.live import HELD
from gateway.proxy.offers import Offer
from policies.decision import Admitted
from policies.meters.reading import Reading
from tests.support.gateway import chat_route

if TYPE_CHECKING:
    from collections.abc import Sequence

CHAT = Offer(chat_route("http://127.0.0.1:9", id=7), None)


def hold(call_id: str, *, account_id: int = 5, shard: int = 3, session: str = "s-1") -> Hold:
    """A hold on the chat route: 1.1 credits of one lot."""
    principal = SimpleNamespace(
        account_id=account_id,
        platform_id=1,
        key_number=8,
        contexts=b"1,%d,8" % account_id,
        keys=SimpleNamespace(shard=shard),
        usable_until_ms=2**62,
        discount=0,
        used={},
    )
    admitted = Admitted(call_id, 1, 4, 98_900_000, "12:1100000", 1_000_000, 0, 0, "A.cd@9")
    return Hold(call_id, cast("Any", principal), CHAT, admitted, session, CHAT.terms)


class Call:
    """A call under way."""

    def __init__(self, of: Hold, units: Sequence[int | None] | None = None) -> None:
        self.hold = of
        self.stage = HELD
        self.rounds = 0
        self.meter: Any = None
        if units is not None:
            self.meter = SimpleNamespace(reading=lambda _elapsed_ms: Reading(tuple(units)))

    def elapsed_ms(self) -> int:
        return 0

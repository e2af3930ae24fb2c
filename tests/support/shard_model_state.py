"""What a shard holds, as values of the reference model, and how Redis spells each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.limits import Counter

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.burndown import Lot
    from policies.delegation import Share
    from policies.settlement import Posting


@dataclass
class Account:
    """A loaded account, or (`epoch` None) the note that it was amended while it was not loaded."""

    epoch: int | None = None
    amended: tuple[int, int] | None = None
    facts: dict[str, str] = field(default_factory=dict)  # status, limits, rules, keys
    order: list[int] = field(default_factory=list)
    lots: dict[int, Lot] = field(default_factory=dict)
    counters: dict[str, str] = field(default_factory=dict)  # "K5.cd" and the like
    shares: dict[int, Share] = field(default_factory=dict)  # by delegated key
    running: int = 0
    tat_us: int = 0
    month_end_ms: int = 0
    count: int = 0

    def in_order(self) -> list[Lot]:
        return [self.lots[grant_id] for grant_id in self.order]

    def change(self, grant_id: int, **by: int) -> None:
        lot = self.lots[grant_id]
        self.lots[grant_id] = lot._replace(
            **{name: getattr(lot, name) + delta for name, delta in by.items()}
        )

    def limit(self, name: str) -> int:
        return int(self.facts[name])

    def order_text(self) -> str:
        return " ".join(token(lot) for lot in self.in_order())

    def postings_text(self, postings: Iterable[Posting]) -> str:
        return " ".join(f"{token(self.lots[grant_id])}:{part}" for grant_id, part in postings)

    def fields(self) -> dict[str, str]:
        """The account's hash."""
        fields: dict[str, str | int] = {}
        if self.amended:
            fields |= {"amended_epoch": self.amended[0], "amended_seq": self.amended[1]}
        if self.epoch is not None:
            fields |= self.facts | self.counters
            fields |= {f"p:{key_id}": str(share) for key_id, share in self.shares.items()}
            fields |= {"epoch": self.epoch, "lots": self.order_text(), "running": self.running}
            fields |= {"tat": self.tat_us, "month_end": self.month_end_ms, "count": self.count}
        for lot in self.lots.values():
            values = {"a": lot.available, "h": lot.held, "s": lot.settled, "w": lot.withdrawn}
            values |= {"e": lot.expires_ms, "f": lot.effective_ms}
            fields |= {f"{name}:{lot.grant_id}": value for name, value in values.items()}
        return {name: str(value) for name, value in fields.items()}


def is_counter(name: str) -> bool:
    """Whether an account's field counts for a rule, "A.cd", "K5.cc", or for tiers, "u:2:token"."""
    return re.fullmatch(r"[AKR][0-9]*\.[a-z]{2}|u:[0-9]+:[a-z0-9_]+", name) is not None


def token(lot: Lot) -> str:
    return f"{lot.grant_id}o" if lot.overage else str(lot.grant_id)


def counter(text: str | None) -> Counter:
    """A window's counter from "end:used"; none is one that has counted nothing for ever."""
    end_ms, _, used = (text or "0:0").partition(":")
    return Counter(int(end_ms), int(used))


@dataclass
class Hold:
    """A running call. `score` is 2 * deadline + stage, as the leases have it."""

    account_id: int
    admitted_ms: int
    held: int
    due: int
    allocation: tuple[Posting, ...]
    allocation_text: str
    counted: tuple[str, ...]
    context: str
    score: int
    units: str = ""

    @property
    def session(self) -> str:
        return self.context.rpartition(",")[2]

    @property
    def deadline_ms(self) -> int:
        return self.score // 2

    @property
    def dispatched(self) -> bool:
        return self.score % 2 == 1

    def text(self) -> str:
        numbers = (self.account_id, self.admitted_ms, self.held, self.due)
        parts = (*numbers, self.units, " ".join(self.counted), self.allocation_text, self.context)
        return "|".join(["h", *map(str, parts)])


@dataclass(frozen=True)
class Ended:
    """A settled call, `expired` if the reaper did it; kept until it is acknowledged."""

    outbox_id: str
    expired: bool

    def text(self) -> str:
        return f"{'x' if self.expired else 's'}|{self.outbox_id}"


@dataclass(frozen=True)
class Changed:
    """A change of the ledger that was made; kept until it is acknowledged."""

    outbox_id: str

    def text(self) -> str:
        return f"c|{self.outbox_id}"


@dataclass(frozen=True)
class Settled:
    """A settlement on its way to Postgres."""

    call_id: str
    context: str
    held: int
    admitted_ms: int
    settled_ms: int
    charged: int
    uncollected: int
    postings: str
    result: str

    def entry(self) -> dict[str, str]:
        return {"v": "|".join(map(str, vars(self).values()))}


@dataclass(frozen=True)
class Withdrawn:
    """A change of the ledger on its way to Postgres."""

    change_id: str
    kind: str
    owner: str
    at_ms: int
    call_id: str
    postings: str
    taken: int

    def entry(self) -> dict[str, str]:
        parts = (self.change_id, self.kind, self.owner, self.at_ms, self.call_id, self.postings)
        return {"c": "|".join(map(str, parts))}

"""What must be: every call and every lot as the simulation knows them, and what that allows.

The model is told what each call's own code knew at each moment; it never asks Redis or Postgres.
What a call may have cost in the end follows from how far it came:

    never sent on             nothing, and no settlement
    ended, its worker lived   exactly what it owed
    ended, its worker died    exactly that, once it was told; before, that or as the next line
    sent on, its worker died  [the last checkpoint that Redis has executed, the last one made]

Two deaths at once may lose more: a worker that dies with calls of a shard that loses its data
before they were settled leaves nobody who knows them (`Call.forgotten_allowed`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from policies.catalog import Caps
    from tests.simulation.virtual_loop import Process


class Violation(AssertionError):  # noqa: N818 -- named for what is the case
    """The product did what it must not."""


class Tariff(NamedTuple):
    """A route as the model prices it, in microcredits; `streams` sends checkpoints.

    With `tiers` units are cheaper once so many were used, and `per_unit` is what the first cost.
    """

    name: str
    per_request: int
    per_unit: int
    reserve_units: int
    streams: bool
    overshoots: bool = False  # uses more units than were reserved
    trust: int = 0  # microcredits that an account may use of it while Redis is away
    raises: bool = False  # its hold is raised while it streams
    tiers: tuple[tuple[int | None, int], ...] = ()  # up to, per unit

    @property
    def ceiling(self) -> int:
        """What a call holds."""
        return self.per_request + self.per_unit * self.reserve_units

    def cost(self, units: int) -> int:
        """What so many units cost, at most."""
        return self.per_request + self.per_unit * units

    def cost_min(self, units: int) -> int:
        """What so many units cost at least."""
        cheapest = min((price for _, price in self.tiers), default=self.per_unit)
        return self.per_request + cheapest * units


@dataclass(slots=True)
class Call:
    """One call, as its caller's code knew it."""

    call_id: str
    account_id: int
    key_id: int
    session: str
    tariff: Tariff
    process: Process
    shard: int
    asked_step: int
    admitted_ms: int = 0
    refused: bool = False
    voided: bool = False
    dispatched: bool = False
    trusted: bool = False
    checkpoint: int = 0  # the last `due` that Redis has executed
    due_max: int = 0  # the greatest that was ever made
    held: int = 0  # the most that it was told to hold
    owed: int | None = None  # once it ended; in tiers, the most that it can owe
    owed_min: int = 0
    told: bool = False
    told_charged: int = 0
    uncertain: bool = False  # told what it owes, while Redis could not be asked to charge it
    unsafe: bool = False  # told, but its worker died while only that knew it: both stores were away
    lost_data: bool = False  # Redis lost data while it was under way
    mark_lost: bool = False  # the mark of its dispatch was never executed
    refunds: int = 0  # that were asked for
    refunded: bool = False

    def owes(self, units: int) -> None:
        """It has ended, and its price counts so many units."""
        self.owed, self.owed_min = self.tariff.cost(units), self.tariff.cost_min(units)

    @property
    def over(self) -> bool:
        """Whether its caller's code is done with it, or will never be."""
        return self.told or self.refused or not self.process.alive

    def allowed(self) -> tuple[int, int, bool]:
        """The least and the most it may have cost in the end, and whether it may be unknown."""
        if not self.dispatched:
            return 0, 0, True
        if self.trusted and not self.process.alive:
            return self.owed_min, self.owed or 0, self.unsafe or not self.told
        certain = self.process.alive or (self.told and not self.unsafe and not self.lost_data)
        if self.owed is not None and certain:
            return self.owed_min, self.owed, False
        held = max(self.held, self.tariff.ceiling)
        least = min(self.tariff.cost(0), held)
        low = least if self.lost_data else max(self.checkpoint, least)
        high = min(held, max(self.due_max, least))
        if self.owed is not None:
            low, high = min(low, self.owed_min), max(high, self.owed)
        return low, high, self.forgotten_allowed

    @property
    def forgotten_allowed(self) -> bool:
        """Whether no settlement may be the right answer."""
        if not self.dispatched:
            return True
        if self.process.alive:
            return False
        return self.lost_data or self.mark_lost


@dataclass(slots=True)
class Lot:
    """A grant: all totals that it has ever had, the last one being what it has."""

    grant_id: int
    account_id: int
    totals: list[int]


@dataclass(slots=True)
class Account:
    """An account, its keys, and whether it can ever run out of credits."""

    account_id: int
    name: str
    platform_id: int
    shard: int
    rich: bool
    caps: Caps  # of its plan
    # Of each key, caps in total and per day that may be in force: the last is what was asked for.
    key_caps: dict[int, list[tuple[int, int]]] = field(default_factory=dict)
    key_caps_ms: dict[int, int] = field(default_factory=dict)  # when they were told last
    lots: dict[int, Lot] = field(default_factory=dict)


class Model:
    """Accounts, lots and calls."""

    def __init__(self) -> None:
        self.accounts: dict[int, Account] = {}
        self.calls: dict[str, Call] = {}
        self.unsettled: dict[str, Call] = {}  # not compared with Postgres at rest yet
        self.counts: dict[str, int] = {}

    def note(self, what: str) -> None:
        """Count something, for the summary."""
        self.counts[what] = self.counts.get(what, 0) + 1

    def ask(self, call: Call) -> None:
        """A call is about to ask for admission."""
        self.calls[call.call_id] = call
        self.unsettled[call.call_id] = call

    def lose_data(self, shards: set[int] | None) -> None:
        """Redis has lost data: calls under way may be forgotten if their worker dies, too."""
        for call in self.unsettled.values():
            if shards is None or call.shard in shards:
                call.lost_data = True

    def running(self) -> list[Call]:
        """Calls whose code still runs."""
        return [call for call in self.unsettled.values() if not call.over]

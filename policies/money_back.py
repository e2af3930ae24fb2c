"""What of a payment's credits goes when money goes back, and what comes again when it does not.

Pure integers. Of a payment's lots so much is to be gone as of its money is: in proportion to what
it paid, over all refunds and disputes together, never step by step, so that rounding can't add up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Cause = Literal["refund", "dispute"]


class PaidBack(NamedTuple):
    """What of a payment has gone back, in minor units.

    `disputed` are amounts that a payer's bank has drawn or keeps: disputes not won.
    """

    refunded_minor: int = 0
    disputed_minor: int = 0


class Move(NamedTuple):
    """Money of a payment that went back, or came again (below 0), by the name of what did it.

    `made_ms` None: nobody says when.
    """

    name: str
    cause: Cause
    amount_minor: int
    made_ms: int | None


class Step(NamedTuple):
    """One step of taking (`amount` above 0) or giving again (below 0), in microcredits.

    Of the amount so much was taken of lots, or given again, and so much became debt, or ceased to.
    The rest had ended unused before and needed no taking: neither does it come again.
    """

    amount: int
    taken: int
    owed: int

    @property
    def lapsed(self) -> int:
        """What had ended unused."""
        return abs(self.amount) - self.taken - self.owed


class Standing(NamedTuple):
    """What all steps of a payment come to, in microcredits."""

    amount: int = 0
    taken: int = 0
    lapsed: int = 0
    owed: int = 0


def paid_back(moves: Iterable[Move]) -> PaidBack:
    """What all of these come to."""
    of = {"refund": 0, "dispute": 0}
    for move in moves:
        of[move.cause] += move.amount_minor
    return PaidBack(of["refund"], of["dispute"])


def target_microcredits(granted: int, amount_minor: int, back: PaidBack) -> int:
    """How much of what a payment gave is to be gone, in microcredits, rounded down.

    Money can't go back twice: a disputed part that is refunded, too, counts once. A payment of
    nothing gives nothing back.
    """
    if amount_minor <= 0:
        return 0
    gone_minor = min(back.refunded_minor + back.disputed_minor, amount_minor)
    return granted * gone_minor // amount_minor


def left_microcredits(lots: Sequence[int], gone: int) -> list[int]:
    """What each of these lots has left when so much of them is to be gone, of the first first."""
    left = []
    for given in lots:
        taken = min(given, gone)
        gone -= taken
        left.append(given - taken)
    return left


def standing_of(steps: Iterable[Step]) -> Standing:
    """The sum of steps that are done."""
    amount = taken = lapsed = owed = 0
    for step in steps:
        sign = 1 if step.amount > 0 else -1
        amount += step.amount
        taken += sign * step.taken
        lapsed += sign * step.lapsed
        owed += sign * step.owed
    return Standing(amount, taken, lapsed, owed)


def taking(amount: int, taken: int, lost: int, standing: Standing) -> Step:
    """A step that took so much of `amount`; the rest is owed, but for what had ended unused before.

    `lost` is all that the payment's lots lost unused by now, apart from such steps.
    """
    rest = amount - taken
    lapsed = min(rest, max(lost - standing.lapsed, 0))
    return Step(amount, taken, rest - lapsed)


def giving(amount: int, standing: Standing) -> Step:
    """The step that gives so much again: what was owed first, then what had lapsed, then lots."""
    owed = min(amount, standing.owed)
    lapsed = min(amount - owed, standing.lapsed)
    return Step(-amount, amount - owed - lapsed, owed)

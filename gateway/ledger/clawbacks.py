"""Taking back what a payment gave: its lots, and the steps by which credits left them again.

A step is written before Redis is asked, with the id of the change that each lot will see, and
finished when Postgres has what Redis took; docs/money-back.md has the whole way.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, Session, rows
from gateway.ledger.lots import NewLot, insert_lot
from gateway.ledger.untold import note_untold
from policies.money_back import Step, paid_back

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from gateway.ledger.billing import Paid
    from policies.money_back import Move


class Payment(NamedTuple):
    """A payment, and what says where it was made."""

    transaction_id: int
    account_id: int
    invoice_id: str | None
    checkout_session_id: str | None
    payment_intent_id: str | None
    charge_id: str | None
    amount_minor: int
    refunded_minor: int
    disputed_minor: int


class Charge(NamedTuple):
    """An attempt at a payment; `failure` None: it succeeded."""

    payment_intent_id: str | None
    charge_id: str
    failure: str | None


class PaidLot(NamedTuple):
    """A lot of a payment: what that gave it, and what left it otherwise than by settling.

    `debt_paid` of this went to what was owed before, `rolled` into a lot of the next period.
    `has_lapsed`: it has ended, and nothing of it rolls over; what it still has is of no use.
    """

    grant_id: int
    given_microcredits: int
    withdrawn_microcredits: int
    debt_paid_microcredits: int
    rolled_microcredits: int
    priority: int
    has_lapsed: bool


class Part(NamedTuple):
    """What a step moves on one lot, by a change of this id (32 hex digits)."""

    grant_id: int
    change_id: str
    microcredits: int = 0  # as long as nobody knows


class Clawback(NamedTuple):
    """A step of a payment, and its parts."""

    clawback_id: str  # 32 hex digits
    cause: str  # refund | dispute
    step: Step
    parts: tuple[Part, ...]
    is_done: bool


class OpenClawback(NamedTuple):
    """A step of taking that is not done yet."""

    account_id: int
    platform_id: int
    account_name: str
    transaction_id: int
    amount_microcredits: int
    parts: tuple[Part, ...]


class Clawbacks(Database):
    """Payments as far as they go back, and the steps of taking back."""

    async def payment_of(
        self, platform_id: int, intent_id: str | None, charge_id: str, *, livemode: bool
    ) -> int | None:
        """Which payment an intent or a charge is of; None: neither was written."""
        found = await self._session.value(
            "payment_find", platform_id, livemode, intent_id, charge_id
        )
        return None if found is None else int(found)

    async def payment_named(
        self, platform_id: int, business_key: str, *, livemode: bool
    ) -> int | None:
        """The payment of an invoice ("invoice:in_…") or a session ("checkout:cs_…")."""
        found = await self._session.value("payment_named", platform_id, livemode, business_key)
        return None if found is None else int(found)

    async def payment(
        self, platform_id: int, transaction_id: int, *, livemode: bool
    ) -> Payment | None:
        """A payment of the platform and mode."""
        record = await self._session.one("payment_get", platform_id, livemode, transaction_id)
        return Payment(**record) if record else None

    async def payment_customer(
        self, platform_id: int, account_id: int, *, livemode: bool
    ) -> str | None:
        """Under whose lock the account's payments are worked on."""
        found = await self._session.value("payment_customer", platform_id, livemode, account_id)
        return None if found is None else str(found)

    async def note_charge(self, transaction_id: int, charge: Charge) -> None:
        """Write which charge a payment was made with, or why one of it failed."""
        await self._session.value("payment_charged", transaction_id, *charge)

    async def clawbacks_of(self, transaction_id: int) -> list[Clawback]:
        """Every step of a payment, oldest first."""
        return await clawbacks_of(self._session, transaction_id)

    async def open_clawbacks(self, *, older_than_ms: int, limit: int) -> list[str]:
        """Steps of taking that were left undone, the oldest first."""
        records = await self._session.all("clawback_open", older_than_ms, limit)
        return [row["clawback_id"] for row in records]

    @asynccontextmanager
    async def clawback_locked(
        self, clawback_id: str
    ) -> AsyncIterator[tuple[Session, OpenClawback | None]]:
        """A transaction in which nobody else works on this step; None: it is done, or in work."""
        async with self.transaction_apart() as session:
            record = await session.one("clawback_lock", clawback_id)
            if record is None:
                yield session, None
            else:
                fields = {**record, "parts": _parts(record["parts"])}
                yield session, OpenClawback(**fields)


async def locked_payment(
    session: Session, platform_id: int, transaction_id: int, *, livemode: bool
) -> Payment | None:
    """A payment that nobody else works on until the transaction ends."""
    record = await session.one("payment_lock", platform_id, livemode, transaction_id)
    return Payment(**record) if record else None


async def payments_giving(session: Session, paid: Paid, ends_ms: Iterable[int]) -> list[Payment]:
    """Payments of money for the same subscription whose lots end at one of these moments."""
    found = await session.all(
        "payment_list_giving",
        *paid.mode,
        paid.account_id,
        paid.subscription_id,
        sorted(set(ends_ms)),
    )
    return rows(Payment, found)


async def payment_lots(session: Session, transaction_id: int) -> list[PaidLot]:
    """The lots of a payment, those that pay last first."""
    return rows(PaidLot, await session.all("payment_lots", transaction_id))


async def clawbacks_of(session: Session, transaction_id: int) -> list[Clawback]:
    """Every step of a payment, oldest first."""
    return [
        Clawback(
            row["clawback_id"],
            row["cause"],
            Step(row["amount_microcredits"], row["taken_microcredits"], row["owed_microcredits"]),
            _parts(row["parts"]),
            row["is_done"],
        )
        for row in await session.all("clawback_list", transaction_id)
    ]


async def note_paid_back(session: Session, transaction_id: int, moves: Sequence[Move]) -> None:
    """Write what went back of a payment and when, and what that comes to; it is locked.

    A move that nobody dates is dated when it is first written.
    """
    back = paid_back(moves)
    await session.value(
        "payment_paid_back", transaction_id, back.refunded_minor, back.disputed_minor
    )
    await session.value(
        "payment_back_replace",
        transaction_id,
        [move.name for move in moves],
        [move.made_ms for move in moves],
        [move.amount_minor for move in moves],
    )


async def open_taking(session: Session, transaction_id: int, clawback: Clawback) -> None:
    """Write a step of taking, before Redis is asked for any of it."""
    await _insert(session, transaction_id, clawback)


async def finish_taking(
    session: Session, clawback_id: str, step: Step, parts: Sequence[Part]
) -> None:
    """Write what a step took, and owe what was spent. Once."""
    await session.value("clawback_finish", clawback_id, step.taken, step.owed, _written(parts))


async def give_again(session: Session, payment: Payment, clawback: Clawback) -> None:
    """Undo a part of what was taken, at once: debt first, then lots, then a lot of its own.

    The parts are what is wanted of lots that it was taken of, those that pay first first. What has
    ended takes nothing any more: that becomes the new lot, until the account's period ends.
    """
    account = await session.one("account_period_lock", payment.account_id)
    if account is None:
        return
    clawback_id, step = clawback.clawback_id, clawback.step
    name = f"clawback:{clawback_id}"
    left = step.taken + step.owed
    left -= await session.value("debt_forgive", payment.account_id, clawback_id, left) or 0
    given = []
    for part in clawback.parts:
        amount = min(part.microcredits, left)
        if amount and await session.value(
            "grant_credit", part.grant_id, part.change_id, amount, name
        ):
            given.append(part._replace(microcredits=amount))
            left -= amount
    if left:
        lot = NewLot(
            "refund",
            left,
            await _priority(session, payment.transaction_id),
            expires_ms=account["end_ms"] if account["end_ms"] > account["now_ms"] else None,
            business_key=name,
        )
        grant_id = await insert_lot(session, payment.account_id, lot)
        await session.value("clawback_lot_insert", grant_id, payment.transaction_id)
    await _insert(session, payment.transaction_id, clawback._replace(parts=tuple(given)))
    await note_untold(session, payment.account_id)


async def _priority(session: Session, transaction_id: int) -> int:
    lots = await payment_lots(session, transaction_id)
    return min((lot.priority for lot in lots), default=0)


async def _insert(session: Session, transaction_id: int, clawback: Clawback) -> None:
    step = clawback.step
    await session.value(
        "clawback_insert",
        clawback.clawback_id,
        transaction_id,
        clawback.cause,
        step.amount,
        _written(clawback.parts),
        step.taken,
        step.owed,
        clawback.is_done,
    )


def _written(parts: Sequence[Part]) -> str:
    return json.dumps(
        [
            {
                "grant": part.grant_id,
                "change": part.change_id,
                "microcredits": str(part.microcredits),
            }
            for part in parts
        ]
    )


def _parts(text: str) -> tuple[Part, ...]:
    found: list[Mapping[str, str]] = json.loads(text)
    return tuple(
        Part(int(part["grant"]), part["change"], int(part["microcredits"])) for part in found
    )

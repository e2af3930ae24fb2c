"""Takes back what a payment gave, as far as its money went back; gives again what comes again.

How much is to be gone is reckoned anew each time, from the payment's charges as they are now: so it
makes no difference which event said that something had changed, or how often. docs/money-back.md.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from gateway.ledger.clawbacks import (
    Clawback,
    Part,
    clawbacks_of,
    give_again,
    locked_payment,
    note_paid_back,
    open_taking,
    payment_lots,
)
from gateway.operations.clawbacks import finish_clawback
from gateway.operations.withdraw import NotTakenError
from gateway.stripe_sync.errors import StripeMissingError
from policies.money_back import (
    Move,
    Step,
    giving,
    paid_back,
    standing_of,
    target_microcredits,
)
from policies.spans import SECOND_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.ledger.clawbacks import PaidLot, Payment
    from gateway.ledger.database import Session
    from gateway.stripe_sync.sync import Sync
    from policies.money_back import PaidBack

# Money that stays where it was. A refund that waits for its bank is on its way.
NOT_REFUNDED = ("failed", "canceled")
# Disputes for which the bank has no money of ours: an inquiry ("warning_…") is only a question, and
# what prevented one is a refund. Of all others it has, or keeps it, while they are appealed, too.
NOT_DRAWN = (
    "won",
    "prevented",
    "warning_needs_response",
    "warning_under_review",
    "warning_closed",
)
# A step is finished before another one is reckoned with it; somebody may open one meanwhile.
LOOKS_MAX = 3


async def take_back_of(sync: Sync, transaction_id: int) -> None:
    """Make a payment's credits what they are to be after all that went back of its money.

    Called for every charge that changes, and by whoever has just written a payment: its charge may
    have changed before. Idempotent.

    Raises: StripeUnavailableError, LedgerUnavailable; NotTakenError or NotToldError when Redis does
    not answer: what was begun is finished by the next who comes, at the latest by a job.
    """
    payment = await sync.ledger.payment(sync.platform_id, transaction_id, livemode=sync.livemode)
    if payment is None:
        return
    for _ in range(LOOKS_MAX):
        for clawback in await sync.ledger.clawbacks_of(transaction_id):
            if not clawback.is_done:
                await finish_clawback(
                    sync.ledger, sync.counters, clawback.clawback_id, ready=sync.ready
                )
        if await _step(sync, payment):
            return
    raise NotTakenError(f"payment {transaction_id} is being taken back by somebody else")


async def _step(sync: Sync, payment: Payment) -> bool:
    """Write the step that is due, if one is, and do it; False: another one has to be done first."""
    customer_id = await sync.ledger.payment_customer(
        sync.platform_id, payment.account_id, livemode=sync.livemode
    )
    async with sync.customer_locked(customer_id or f"account {payment.account_id}") as session:
        locked = await locked_payment(
            session, sync.platform_id, payment.transaction_id, livemode=sync.livemode
        )
        if locked is None:
            return True
        moves = await moves_of(sync, locked)
        back = paid_back(moves)
        steps = await clawbacks_of(session, locked.transaction_id)
        lots = await payment_lots(session, locked.transaction_id)
        granted = sum(lot.given_microcredits for lot in lots)
        target = target_microcredits(granted, locked.amount_minor, back)
        due = target - sum(step.step.amount for step in steps)
        if due and not all(step.is_done for step in steps):
            return False
        await note_paid_back(session, locked.transaction_id, moves)
        if due:
            clawback = _clawback(due, _cause(locked, back), lots, steps)
            await _write(session, locked, clawback)
    if due > 0:
        await finish_clawback(sync.ledger, sync.counters, clawback.clawback_id, ready=sync.ready)
    elif due < 0:
        await sync.tell(payment.account_id)
    return True


async def _write(session: Session, payment: Payment, clawback: Clawback) -> None:
    if clawback.is_done:
        await give_again(session, payment, clawback)
    else:
        await open_taking(session, payment.transaction_id, clawback)


def _clawback(due: int, cause: str, lots: Sequence[PaidLot], steps: Sequence[Clawback]) -> Clawback:
    """The step that takes so much (above 0), or gives so much again."""
    clawback_id = uuid.uuid4().hex
    if due > 0:
        parts = tuple(Part(lot.grant_id, uuid.uuid4().hex) for lot in lots)
        return Clawback(clawback_id, cause, Step(due, 0, 0), parts, is_done=False)
    step = giving(-due, standing_of(done.step for done in steps))
    taken = dict.fromkeys([lot.grant_id for lot in reversed(lots)], 0)
    for done in steps:
        sign = 1 if done.step.amount > 0 else -1
        for part in done.parts:
            taken[part.grant_id] = taken.get(part.grant_id, 0) + sign * part.microcredits
    return Clawback(clawback_id, cause, step, _returned(taken, step.taken), is_done=True)


def _returned(taken: dict[int, int], microcredits: int) -> tuple[Part, ...]:
    """So much for lots that it was taken of, those that pay first first."""
    parts = []
    for grant_id, most in taken.items():
        amount = min(max(most, 0), microcredits)
        if amount:
            parts.append(Part(grant_id, uuid.uuid4().hex, amount))
            microcredits -= amount
    return tuple(parts)


def _cause(payment: Payment, back: PaidBack) -> str:
    return "refund" if back.disputed_minor == payment.disputed_minor else "dispute"


async def moves_of(sync: Sync, payment: Payment) -> list[Move]:
    """How a payment's money moved since it was paid, over all charges that it was made with."""
    moves = []
    for charge in await _charges(sync, payment):
        if charge["amount_refunded"]:
            async for refund in sync.api.pages(
                lambda v1, params: v1.refunds.list_async(params), charge=charge["id"]
            ):
                moves += _moves_of_refund(refund)
        if charge["disputed"]:
            async for dispute in sync.api.pages(
                lambda v1, params: v1.disputes.list_async(params), charge=charge["id"]
            ):
                moves += _moves_of_dispute(dispute)
    return moves


async def paid_back_before(sync: Sync, payment: Payment, before_ms: int) -> PaidBack:
    """What of a payment had gone back by a moment, also if some of it has come again since.

    But of a refund that failed nobody says when: it never counts. Moments are whole seconds.
    """
    before_ms -= before_ms % SECOND_MS
    return paid_back(
        move
        for move in await moves_of(sync, payment)
        if move.made_ms is not None and move.made_ms < before_ms
    )


def _moves_of_refund(refund: dict[str, Any]) -> list[Move]:
    if refund["status"] in NOT_REFUNDED:
        return []
    return [Move(refund["id"], "refund", refund["amount"], refund["created"] * SECOND_MS)]


def _moves_of_dispute(dispute: dict[str, Any]) -> list[Move]:
    """Its money is drawn and given again as a whole, by turns; where it is now, its status says.

    The amount is the dispute's: what it does to our balance may be in another currency. A move that
    Stripe does not list is made up for: the first one was made with the dispute, of any other
    nobody says when.
    """
    amount: int = dispute["amount"]
    moves: list[Move] = []
    is_drawn = False
    # Of one second, the drawing comes first.
    for one in sorted(
        dispute["balance_transactions"], key=lambda one: (one["created"], one["amount"])
    ):
        if is_drawn != (one["amount"] < 0):
            is_drawn = not is_drawn
            made_ms = one["created"] * SECOND_MS
            moves.append(Move(one["id"], "dispute", amount if is_drawn else -amount, made_ms))
    if is_drawn != (dispute["status"] not in NOT_DRAWN):
        made_ms = None if moves else dispute["created"] * SECOND_MS
        moves.append(Move(dispute["id"], "dispute", -amount if is_drawn else amount, made_ms))
    return moves


async def _charges(sync: Sync, payment: Payment) -> list[dict[str, Any]]:
    """The charges by which a payment was made: an invoice may have several."""
    intents, charges = set(), set()
    if payment.payment_intent_id:
        intents.add(payment.payment_intent_id)
    elif payment.charge_id:
        charges.add(payment.charge_id)
    if payment.invoice_id:
        async for made in sync.api.pages(
            lambda v1, params: v1.invoice_payments.list_async(params),
            invoice=payment.invoice_id,
            status="paid",
        ):
            intents.add(made["payment"].get("payment_intent"))
            charges.add(made["payment"].get("charge"))
    found = {}
    for intent in sorted(filter(None, intents)):
        async for charge in sync.api.pages(
            lambda v1, params: v1.charges.list_async(params),
            payment_intent=intent,
        ):
            found[charge["id"]] = charge
    for charge_id in sorted(filter(None, charges)):
        if charge_id not in found:
            found[charge_id] = await charge_by(sync, charge_id)
    return [charge for charge in found.values() if charge["status"] == "succeeded"]


async def charge_by(sync: Sync, charge_id: str) -> dict[str, Any]:
    """A charge as it is now."""
    return await sync.api.ask(lambda v1: v1.charges.retrieve_async(charge_id))


async def charge_of_refund(sync: Sync, refund_id: str) -> str | None:
    """The charge that a refund is of; None: there is no such refund, or it is of no charge."""
    try:
        refund = await sync.api.ask(lambda v1: v1.refunds.retrieve_async(refund_id))
    except StripeMissingError:
        return None
    charge_id: str | None = refund["charge"]
    return charge_id

"""Finishes steps of taking back: what a payment gave leaves its lots, what was spent becomes debt.

A step is in Postgres before anything is taken, with the id of the change that each lot will see
(gateway/stripe_sync/refunds.py writes it). Whoever finishes it has it locked, and asks first which
of these changes were made already, by somebody who then died: so nothing is taken twice, and
together never more than the step's amount.

    step                                    after a death there
    --------------------------------------  --------------------------------------------------------
    1 tell Redis all that Postgres says     nothing has happened: the step is still open
    2 take from a lot, in Redis             the change is in the outbox, and its id in the step:
                                            who finishes it finds it
    3 carry it to Postgres                  the same, found in the ledger
    4 write what was taken, and what is     all of it is there, or none, and then 1 to 3 find that
      owed; the step is done                everything was taken
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.counters.errors import CountersUnavailable
from gateway.ledger.clawbacks import clawbacks_of, finish_taking, payment_lots
from gateway.operations.publish import publish_account
from gateway.operations.withdraw import NotTakenError, never_ready, withdraw
from policies.money_back import standing_of, taking

if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.clawbacks import Clawback, OpenClawback, PaidLot, Part
    from gateway.ledger.rows import AccountRow
    from gateway.operations.withdraw import Ready

KIND = "adjust"


async def finish_clawback(
    ledger: Ledger, counters: Counters, clawback_id: str, *, ready: Ready = never_ready
) -> bool:
    """Take what a step is to take, and owe what was spent of it. Once, whoever does it.

    False: it is done, or somebody else is at it. `ready` is as in `withdraw`.

    Raises: NotToldError, NotTakenError, LedgerUnavailable: the step stays open, for another try.
    """
    async with ledger.clawback_locked(clawback_id) as (session, opened):
        if opened is None:
            return False
        # A lot that Redis does not know yet has nothing that could be taken.
        await publish_account(ledger, counters, opened.account_id, opened.account_name)
        lots = await payment_lots(session, opened.transaction_id)
        lapsed = {lot.grant_id for lot in lots if lot.has_lapsed}
        parts = await _Taking(ledger, counters, ready).take(opened, but=lapsed)
        lots = await payment_lots(session, opened.transaction_id)
        withdrawn = await _withdrawn(counters, opened.account_id, lots)
        steps = [
            step for step in await clawbacks_of(session, opened.transaction_id) if step.is_done
        ]
        taken = sum(part.microcredits for part in parts)
        step = taking(
            opened.amount_microcredits,
            taken,
            _lost(lots, withdrawn) - _taken(steps) - taken,
            standing_of(done.step for done in steps),
        )
        await finish_taking(session, clawback_id, step, parts)
    return True


class _Taking:
    """Takes from lot after lot."""

    def __init__(self, ledger: Ledger, counters: Counters, ready: Ready) -> None:
        self._ledger = ledger
        self._counters = counters
        self._ready = ready

    async def take(self, opened: OpenClawback, *, but: AbstractSet[int]) -> list[Part]:
        """Take until the amount is reached, but not of these lots; what each gave."""
        account = await self._ledger.account(opened.platform_id, opened.account_id)
        if account is None:
            raise NotTakenError(f'the account "{opened.account_name}" is gone')
        # All that was taken before is counted before more is: a lot may have had nothing available
        # then, and have something now.
        parts = [await self._take_of(account, part, 0) for part in opened.parts]
        missing = opened.amount_microcredits - sum(part.microcredits for part in parts)
        for place, part in enumerate(parts):
            if missing and not part.microcredits and part.grant_id not in but:
                parts[place] = await self._take_of(account, part, missing)
                missing -= parts[place].microcredits
        return parts

    async def _take_of(self, account: AccountRow, part: Part, microcredits: int) -> Part:
        """What the part's change has taken in the ledger's account, when asked for so much, or 0.

        Redis knows a change until Postgres has it: so Redis is asked first, and what counts is what
        Postgres has afterwards.
        """
        taken = await withdraw(
            self._ledger,
            self._counters,
            account,
            part.grant_id,
            kind=KIND,
            microcredits=microcredits,
            change_id=part.change_id,
            ready=self._ready,
        )
        recorded = await self._ledger.change_taken(account.account_id, part.change_id)
        if taken and recorded is None:
            raise NotTakenError(f'what was taken from "{account.name}" is on its way to Postgres')
        return part._replace(microcredits=recorded or 0)


async def _withdrawn(
    counters: Counters, account_id: int, lots: Sequence[PaidLot]
) -> dict[int, int]:
    """All that left each lot unsettled, as Redis says, or Postgres where Redis does not know it.

    What one that has lapsed still has, because no job has come by, has left it, too.
    """
    try:
        fields = await counters.look(counters.keys(account_id)) or {}
    except CountersUnavailable as error:
        raise NotTakenError(str(error)) from error
    return {
        lot.grant_id: max(int(fields.get(f"w:{lot.grant_id}", 0)), lot.withdrawn_microcredits)
        + (int(fields.get(f"a:{lot.grant_id}", 0)) if lot.has_lapsed else 0)
        for lot in lots
    }


def _lost(lots: Sequence[PaidLot], withdrawn: dict[int, int]) -> int:
    """What of a payment's lots ended unused, or was taken back: neither spent nor rolled over."""
    return sum(
        withdrawn[lot.grant_id] - lot.debt_paid_microcredits - lot.rolled_microcredits
        for lot in lots
    )


def _taken(steps: Sequence[Clawback]) -> int:
    """What earlier steps took of the lots, whatever they gave again since."""
    return sum(part.microcredits for done in steps if done.step.amount > 0 for part in done.parts)

"""Calls that were made: refund one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.ledger.changes import Refund, RefundRefused
from gateway.operations.errors import UsageError
from gateway.operations.grants import check_note
from gateway.operations.publish import publish_account
from policies.catalog import RefundExpired

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.rows import AccountRow

_CALL_ID = re.compile(r"[0-9a-f]{32}")
_REFUSALS = {
    RefundRefused.UNKNOWN: "there is no settled call {}",
    RefundRefused.REFUNDED: "call {} is refunded already",
    RefundRefused.NOTHING: "call {} cost nothing",
}


async def refund_call(
    ledger: Ledger, counters: Counters, platform_id: int, text: str, *, note: str = ""
) -> Refund:
    """Give back all that a call cost, once, as its account's plan says.

    Raises: UsageError when the call is unknown, cost nothing or is refunded already; NotToldError
    when Redis could not be told.
    """
    check_note(note)
    call_id, account = await _find(ledger, platform_id, text)
    plans = {plan.slug: plan for plan in await ledger.plans(platform_id)}
    plan = plans.get(account.plan_slug or "")
    policy = plan.refund_expired if plan else RefundExpired.GRANT
    refund = await ledger.refund_call(platform_id, call_id, note, policy)
    if isinstance(refund, RefundRefused):
        raise UsageError(_REFUSALS[refund].format(call_id))
    await publish_account(ledger, counters, account.account_id, account.name)
    return refund


def normal_call_id(text: str) -> str | None:
    """A call's id as it is kept, 32 of 0-9 and a-f; None for a text that is none."""
    call_id = text.strip().lower().replace("-", "")
    return call_id if _CALL_ID.fullmatch(call_id) else None


async def _find(ledger: Ledger, platform_id: int, text: str) -> tuple[str, AccountRow]:
    """The id as it is kept, and whose call it is."""
    call_id = normal_call_id(text)
    if call_id is None:
        raise UsageError(
            f'"{text}" is no call: its id is the X-Request-Id of its answer, 32 of 0-9 and a-f'
        )
    account = await ledger.account_of_call(platform_id, call_id)
    if account is None:
        raise UsageError(
            f"there is no settled call {call_id}: it never was, still runs, or is on its way"
        )
    return call_id, account

"""Receipts: what one call cost, who paid, by which price, and what came back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.calls import normal_call_id

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from gateway.ledger.inquiries import ReceiptEntry, ReceiptRow


class Receipt(NamedTuple):
    """A call as a receipt shows it.

    What was charged when the call was settled, was corrected later (below 0: less) and came back
    by a refund add up to what it costs now.
    """

    call: ReceiptRow
    charged_microcredits: int
    corrected_microcredits: int
    refunded_microcredits: int

    @property
    def net_microcredits(self) -> int:
        """What the call costs, after all that has happened to it."""
        return self.charged_microcredits + self.corrected_microcredits - self.refunded_microcredits


async def show_receipt(
    ledger: Ledger, platform_id: int, request_id: str, *, account_id: int | None = None
) -> Receipt | None:
    """The receipt of a request id (that of `X-Request-Id`, 32 hex digits), or None.

    None also for a call of another platform or, with `account_id`, of another account, for one that
    still runs or is on its way to Postgres, and for a text that is no id.
    """
    call_id = normal_call_id(request_id)
    call = None
    if call_id is not None:
        call = await ledger.receipt(platform_id, call_id, account_id=account_id)
    if call is None:
        return None
    return Receipt(
        call,
        call.settlement.charged_microcredits,
        -_sum(call.entries, "late"),
        _sum(call.entries, "refund", "grant"),
    )


def _sum(entries: list[ReceiptEntry], *kinds: str) -> int:
    return sum(entry.microcredits for entry in entries if entry.kind in kinds)

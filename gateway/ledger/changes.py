"""What moves credits of lots apart from grants and settled calls: `ledger_changes`.

What takes credits was decided in Redis and is recorded here (`record_changes`). What gives credits
back is decided here, and Redis is told afterwards (gateway/operations).
"""

from __future__ import annotations

import logging
import uuid
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, Session
from gateway.ledger.recorder import in_halves
from policies.catalog import RefundExpired
from policies.settlement import Posting
from policies.units import format_credits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from policies.settlement import LedgerChange

log = logging.getLogger("tollkeeper.ledger")


class RecordedChanges(NamedTuple):
    """What became of changes: how many are new, what is in Postgres now, what it refuses."""

    inserted: int
    durable: Sequence[LedgerChange]
    refused: Sequence[LedgerChange]


class SettledCall(NamedTuple):
    """How a call was settled, in microcredits.

    `postings` are those of the settlement alone; `adjusted` and `refunded` say what happened since.
    """

    call_id: str
    platform_id: int
    account_id: int
    ending: str
    flags: str
    charged_microcredits: int
    settled_ms: int
    adjusted: bool
    refunded: bool
    postings: tuple[Posting, ...]


class Refund(NamedTuple):
    """What became of a call's credits: back in their lots, in a new lot, or forfeited."""

    account_id: int
    restored_microcredits: int
    granted_microcredits: int
    forfeited_microcredits: int
    grant_id: int | None  # the new lot


class RefundRefused(StrEnum):
    """Why a call is not refunded."""

    UNKNOWN = "unknown"  # the platform has no settlement of it
    REFUNDED = "refunded"  # it was, before
    NOTHING = "nothing"  # it cost nothing


class Changes(Database):
    """Changes of lots."""

    async def record_changes(self, changes: Sequence[LedgerChange]) -> RecordedChanges:
        """Write what scripts took from lots, exactly once per change id.

        A change that Postgres refuses is found by halving, logged, and left out.

        Raises: LedgerUnavailable; part may be written. Send all of it again.
        """
        rows = list({change.change_id: change for change in reversed(changes)}.values())
        inserted, refused = await in_halves(rows, self._send_changes, "change")
        refused_ids = {change.change_id for change in refused}
        durable = [change for change in changes if change.change_id not in refused_ids]
        return RecordedChanges(inserted, durable, refused)

    async def change_taken(self, account_id: int, change_id: str) -> int | None:
        """The microcredits that a change took from the account; None: there is no such change."""
        taken = await self._session.value("change_taken", change_id, account_id)
        return None if taken is None else int(taken)

    async def settlement_of(self, call_id: str) -> SettledCall | None:
        """How the call was settled; None: Postgres has no settlement of it."""
        async with self.transaction(snapshot=True) as session:
            return await _settled_call(session, call_id)

    async def credit_call(
        self, call_id: str, kind: str, postings: Iterable[Posting], note: str = ""
    ) -> bool:
        """Give credits of a settled call back to lots, once per call and kind.

        `kind` is "late", the correction of a settlement that took too much, or "refund". False: the
        call has such a change already, was refunded, or is not settled here; or there is nothing to
        give. A lot that has ended gets its credits, too; they are then withdrawn from it like those
        of a hold that ends late.

        Raises: LedgerRejected for another kind or a lot that would pass 2^53.
        """
        parts = list(postings)
        if not parts:
            return False
        async with self.transaction() as session:
            await session.one("call_lock", call_id)
            if await session.value("change_exists", call_id, "refund"):
                return False
            return await _credit(session, call_id, kind, parts, note)

    async def credit_grant(
        self, grant_id: int, microcredits: int, note: str, *, change_id: str | None = None
    ) -> int | None:
        """Adjust a lot upwards; answers whose it is, None for no lot or one that has ended.

        With a `change_id` (32 hex digits) it is done once, however often it is asked for.
        """
        account_id = await self._session.value(
            "grant_credit", grant_id, change_id or uuid.uuid4(), microcredits, note
        )
        return None if account_id is None else int(account_id)

    async def refund_call(
        self, platform_id: int, call_id: str, note: str, policy: RefundExpired
    ) -> Refund | RefundRefused:
        """Give back all that a call cost, late correction included, in one transaction.

        Each lot gets what it paid. What lots paid that have ended becomes a new lot until the end
        of the account's period (for ever without one), or is forfeited, as the policy says.
        """
        async with self.transaction() as session:
            await session.one("call_lock", call_id)
            settled = await _settled_call(session, call_id)
            if settled is None or settled.platform_id != platform_id:
                return RefundRefused.UNKNOWN
            if settled.refunded:
                return RefundRefused.REFUNDED
            parts = [
                row
                for row in await session.all("call_postings", call_id)
                if row["taken_microcredits"] > 0
            ]
            if not parts:
                return RefundRefused.NOTHING
            ended = [row for row in parts if row["ended"]]
            lost = sum(row["taken_microcredits"] for row in ended)
            granting = policy is RefundExpired.GRANT
            if lost and not granting:
                reason = f"{format_credits(lost)} credits of ended grants are forfeited"
                note = f"{note}; {reason}" if note else reason
            postings = [
                Posting(row["grant_id"], row["taken_microcredits"])
                for row in parts
                if not row["ended"]
            ]
            await _credit(session, call_id, "refund", postings, note)
            grant_id = None
            if lost and granting:
                priority = min(row["priority"] for row in ended)
                grant_id = await session.value(
                    "grant_refund", settled.account_id, lost, call_id, priority, note
                )
        restored = sum(posting.microcredits for posting in postings)
        given, forfeited = (lost, 0) if granting else (0, lost)
        return Refund(settled.account_id, restored, given, forfeited, grant_id)

    async def _send_changes(self, changes: Sequence[LedgerChange]) -> int:
        rows = [
            (
                change.change_id,
                change.kind,
                change.platform_id,
                change.account_id,
                change.call_id or None,
                change.at_ms,
                *posting,
            )
            for change in changes
            for posting in change.postings
        ]
        if not rows:
            return 0
        answer = await self._session.one("change_record", *map(list, zip(*rows, strict=True)))
        if answer is None:
            return 0
        if answer["grants_missing"]:
            log.error("%d grants that changes name do not exist", answer["grants_missing"])
        return int(answer["inserted"])


async def _settled_call(session: Session, call_id: str) -> SettledCall | None:
    record = await session.one("call_settled", call_id)
    if record is None:
        return None
    postings = tuple(
        Posting(row["grant_id"], row["settled_microcredits"])
        for row in await session.all("call_postings", call_id)
        if row["settled_microcredits"]
    )
    return SettledCall(**record, postings=postings)


async def _credit(
    session: Session, call_id: str, kind: str, postings: Sequence[Posting], note: str
) -> bool:
    # The id of a correction is its call's, as that of one which takes more (policies/settlement).
    answer = await session.one(
        "call_credit",
        call_id,
        call_id if kind == "late" else uuid.uuid4(),
        kind,
        note,
        [posting.grant_id for posting in postings],
        [posting.microcredits for posting in postings],
    )
    if answer is None:
        return False
    if answer["grants_missing"]:
        log.error("%d grants that call %s drew on do not exist", answer["grants_missing"], call_id)
    return bool(answer["changed"])

"""Idempotency keys in Redis: which call has claimed one, and what it was answered.

The record of a key stays for a day, its answer only for as long as retries usually come: Postgres
has it, too. Keys live in their account's shard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from gateway.counters.base import Base
from gateway.counters.replies import lost, not_loaded
from gateway.counters.resp import bulks
from policies.decision import AccountSuspended, GuardChanged, KeyRefused, NotLoaded, ShardLost
from policies.idempotency import (
    IDEMPOTENT_TTL_MS,
    Answered,
    AnsweredBefore,
    Claimed,
    Ended,
    InProgress,
    OtherRequest,
    Vanished,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.counters.keys import AccountKeys
    from policies.idempotency import Claim

# A claim waits so long for its call to be admitted; what a dead worker's claim holds up.
CLAIM_LEASE_MS = 30_000
# Between settling a call and remembering its answer lies one round trip.
ANSWER_GRACE_MS = 5_000
ANSWER_TTL_MS = 600_000
# What answers of one account may take in Redis, in ANSWER_TTL_MS; beyond it receipts are kept.
ACCOUNT_ANSWERS_MAX_BYTES = 32 * 1024 * 1024

Over = AnsweredBefore | Ended | Vanished
Claiming = (
    Claimed
    | InProgress
    | OtherRequest
    | Answered
    | Over
    | KeyRefused
    | AccountSuspended
    | GuardChanged
    | NotLoaded
    | ShardLost
)


Remembered = Literal["OK", "RECEIPT", "KEPT"]

_REMEMBERED: Mapping[bytes, Remembered] = {b"OK": "OK", b"RECEIPT": "RECEIPT", b"KEPT": "KEPT"}
_REFUSALS: Mapping[bytes, Claiming] = {
    b"RUNNING": InProgress(),
    b"OTHER": OtherRequest(),
    b"KEY": KeyRefused(),
    b"SUSPENDED": AccountSuspended(),
}


class Claims(Base):
    """Claims of idempotency keys."""

    claim_lease_ms = CLAIM_LEASE_MS
    answer_grace_ms = ANSWER_GRACE_MS
    answer_ttl_ms = ANSWER_TTL_MS
    account_answers_max_bytes = ACCOUNT_ANSWERS_MAX_BYTES

    async def claim(
        self,
        keys: AccountKeys,
        claim: Claim,
        key_id: bytes,
        *,
        takes_over: str = "",
        guard: int = 0,
    ) -> Claiming:
        """Claim a key for a call, or say what became of the call that has it.

        `takes_over` is a call that is known to be over and has left no answer; `key_id` that of the
        API key, and `guard` as in `admit`.
        """
        state = keys.state
        names = (state.meta, keys.name, state.holds, state.outbox, *_names(keys, claim)[:2])
        reply = await self._run(
            state,
            "claim",
            bulks(names),
            claim.call_id,
            *self._known(state),
            key_id,
            claim.fingerprint,
            self.claim_lease_ms,
            IDEMPOTENT_TTL_MS,
            self.answer_grace_ms,
            takes_over,
            guard,
        )
        return _claiming(reply)

    async def remember(
        self, keys: AccountKeys, claim: Claim, answer: bytes, receipt: bytes
    ) -> Remembered:
        """Keep what a call was answered, or its receipt where the account keeps too much already.

        KEPT: another call has the key by now.
        """
        reply = await self._run(
            keys.state,
            "remember",
            bulks(_names(keys, claim)),
            claim.call_id,
            claim.fingerprint,
            self.claim_lease_ms,
            IDEMPOTENT_TTL_MS,
            answer,
            receipt,
            self.answer_ttl_ms,
            self.account_answers_max_bytes,
        )
        return _REMEMBERED[reply[0]]

    async def claim_anew(self, keys: AccountKeys, claim: Claim) -> bool:
        """Say that a running call has a key, where Redis has lost that. False: another call has."""
        return await self.remember(keys, claim, b"", b"") != "KEPT"

    async def forget(self, keys: AccountKeys, claim: Claim) -> bool:
        """Give a key back. False: it is not this call's, or the call has been answered."""
        names = bulks(_names(keys, claim)[:1])
        reply = await self._run(keys.state, "forget", names, claim.call_id)
        return bool(reply[0] == b"OK")

    async def note_loss(self, shard: int) -> None:
        """Say in a closed shard that claims may have been lost; they go by Postgres for a day."""
        state = self._shards[shard]
        await self._ask(state.link, "HSET", state.meta, "lost", await self._now_ms(state))


def _claiming(reply: list[Any]) -> Claiming:  # noqa: PLR0911 - one per reply
    """What a claim's reply says."""
    status, *said = reply[0], *reply[3:]
    refusal = _REFUSALS.get(status)
    if refusal is not None:
        return refusal
    match status:
        case b"NEW":
            return Claimed(said[0], bool(said[1]))
        case b"DONE":
            return Answered(said[0])
        case b"STORED":
            return AnsweredBefore(said[0].decode())
        case b"ENDED":
            return Ended(said[0].decode(), said[2].decode(), said[3], said[1])
        case b"GONE":
            return Vanished(said[0].decode())
        case b"GUARD":
            return GuardChanged(said[0])
        case b"LOAD":
            return not_loaded(reply)
    return lost(reply)


def _names(keys: AccountKeys, claim: Claim) -> tuple[str, str, str]:
    """The record of a key, its answer, and what the account's answers take."""
    tag, account_id, digest = keys.state.tag, keys.account_id, claim.digest
    return (
        f"{tag}:i:{account_id}:{digest}",
        f"{tag}:ia:{account_id}:{digest}",
        f"{tag}:ib:{account_id}",
    )

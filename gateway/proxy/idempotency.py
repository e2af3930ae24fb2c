"""Calls with an idempotency key: the first runs, whoever comes again gets its answer.

The states of an account's key, and the write that leaves each. Its record in Redis has the
fingerprint of the request, the call that has the key, and until when that has to be admitted:

    free ──claim──► claimed ──admit──► running ──settle──► settled ──remember──► answered
      ▲                │ denied, void     │  charged nothing,  │                      │
      └────forget──────┴──────────────────┴─────no answer──────┘        24 h ──► free ┘

What a retry gets, and what a death after each write leaves:

    record    its call                        a retry gets              if the worker dies now
    --------  ------------------------------  ------------------------  --------------------------
    claimed   may yet be admitted             409                       the deadline passes: lost
    claimed   has a hold, running or not      409                       the lease ends: lost if it
                                                                        was undone, else settled
    claimed   settled, within the grace       409                       settled
    claimed   settled, its worker is dead     a receipt; the answer     the next retry looks again
              (outbox, or Postgres)           if Postgres has it
    claimed   lost: deadline over, no hold,   runs, in its place        as `claimed`
              no settlement
    answered  over                            the answer, from Redis    nothing is left to do
                                              or from Postgres

Why a call is never charged twice, whoever dies:

- A claim is taken before the hold, and a call that was admitted after its claim's deadline (both by
  Redis' clock) is undone before it is sent on. So at every moment before a call's end one of three
  is there: a deadline that has not passed, a hold, a settlement.
- Its mark is confirmed by Redis before it is sent on: a worker that was stopped for so long that
  its hold was undone sends nothing.
- A settlement leaves the outbox only for Postgres, and a hold leaves the shard only by an ending.
  So who finds neither deadline nor hold, and then no settlement in Postgres, may run; it takes
  over from exactly the call it has looked for.
- A key is forgotten only after its call's hold was undone or settled at nothing.
- What is remembered is a fact: it is written whatever the shard's epoch is.

When a shard has lost its data, living workers claim anew for their running calls and bring their
answers to Postgres before it opens (their report to its rebuilder waits for both), and for a day
each new claim there is looked up in Postgres first. What is left: a call whose worker dies, or is
cut off, at the very moment at which Redis loses its data is not known, and its retry runs.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

from gateway import errors
from gateway.counters import CountersUnavailable
from gateway.errors import Refusal, refusal_of
from gateway.ledger.answers import AnswerRow
from gateway.ledger.errors import LedgerUnavailable
from gateway.proxy.keyed import KeyedCall
from gateway.proxy.replays import Replay, parse_replay
from policies.decision import AccountSuspended, GuardChanged, KeyRefused, NotLoaded, ShardLost
from policies.idempotency import (
    Answered,
    AnsweredBefore,
    Claim,
    Claimed,
    Ended,
    InProgress,
    OtherRequest,
    Vanished,
    fingerprint,
    key_digest,
    may_run_again,
)

if TYPE_CHECKING:
    from gateway.counters import AccountKeys
    from gateway.counters.claims import Claiming, Remembered
    from gateway.ledger.answers import CallFate, KeptAnswer
    from gateway.proxy.admission import Quest
    from gateway.proxy.authenticate import Principal
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.keyed import Recording

# Load the account, wait for the shard, take over, claim: four; the rest for races with others.
CLAIM_ATTEMPTS_MAX = 8
IN_PROGRESS_RETRY_AFTER_S = 1

IN_PROGRESS = Refusal(
    409,
    "idempotency_in_progress",
    "A call with this Idempotency-Key is running. Its answer will be there when it has ended.",
    retry_after_s=IN_PROGRESS_RETRY_AFTER_S,
)
MISMATCH = Refusal(
    422,
    "idempotency_mismatch",
    "This Idempotency-Key was sent with another method, path, query or body. A key is for one "
    "request and its retries.",
)
_UNKNOWN = errors.unavailable("Idempotency keys can't be looked up at the moment.")

log = logging.getLogger("tollkeeper.proxy")


class ClaimScripts(Protocol):
    """Where keys are claimed: `Counters`."""

    async def claim(
        self,
        keys: AccountKeys,
        claim: Claim,
        key_id: bytes,
        *,
        takes_over: str = "",
        guard: int = 0,
    ) -> Claiming:
        """Claim a key, or say what became of the call that has it."""

    async def remember(
        self, keys: AccountKeys, claim: Claim, answer: bytes, receipt: bytes
    ) -> Remembered:
        """Keep what a call was answered."""

    async def claim_anew(self, keys: AccountKeys, claim: Claim) -> bool:
        """Say that a running call has a key."""

    async def forget(self, keys: AccountKeys, claim: Claim) -> bool:
        """Give a key back."""


class AnswerBook(Protocol):
    """What Postgres knows of calls that have ended: `Ledger`."""

    async def answer_of(self, account_id: int, digest: str) -> KeptAnswer | None:
        """What the last call that had a key was answered."""

    async def fate_of(self, call_id: str) -> CallFate | None:
        """How a call ended."""


class AnswerQueue(Protocol):
    """The way of answers to Postgres."""

    def add(self, row: AnswerRow) -> bool:
        """Take one; never blocks."""


class Readiness(Protocol):
    """Sees to what the scripts miss: `Admission`."""

    async def make_ready(self, principal: Principal, asked: NotLoaded | ShardLost) -> bool:
        """Load the account, or wait for the shard; False: it is of no use to ask again."""

    async def guard_again(self, quest: Quest, changed: GuardChanged) -> Refusal | None:
        """Check the call against what its key is for now."""


class Idempotency:
    """Claims keys before calls are admitted, and keeps what these are answered."""

    def __init__(
        self,
        scripts: ClaimScripts,
        book: AnswerBook,
        queue: AnswerQueue,
        readiness: Readiness,
        recording: Recording,
    ) -> None:
        """`recording` bounds what the answers of running calls take."""
        self._scripts = scripts
        self._book = book
        self._queue = queue
        self._readiness = readiness
        self._recording = recording
        self._running: dict[str, KeyedCall] = {}

    async def begin(
        self, head: RequestHead, quest: Quest, body: bytes
    ) -> KeyedCall | Replay | Refusal:
        """Claim the request's key for a call, before it is admitted; or answer from what is known.

        Whoever gets a `KeyedCall` must bring it to its `end`, or give its key back by `forget`.
        """
        call_id = quest.call_id
        claim = Claim(key_digest(head.idempotency_key), call_id, _fingerprint(head, body))
        try:
            return await self._begin(quest, claim)
        except (CountersUnavailable, LedgerUnavailable) as error:
            log.warning("call %s: its idempotency key can't be looked up: %s", call_id, error)
            return _UNKNOWN
        except Exception:
            log.exception("call %s: its idempotency key can't be looked up", call_id)
            return _UNKNOWN

    async def tell_again(self) -> None:
        """Claim anew for every running call: a shard has lost its data.

        Raises: CountersUnavailable.
        """
        for keyed in list(self._running.values()):
            await self._scripts.claim_anew(keyed.principal.keys, keyed.claim)

    async def remember(self, keyed: KeyedCall, replay: Replay) -> None:
        """Keep what a call was answered, in Redis now and in Postgres soon. Never fails."""
        answer, receipt = replay.encode(), replay.receipt().encode()
        remembered: Remembered = "OK"
        try:
            remembered = await self._scripts.remember(
                keyed.principal.keys, keyed.claim, answer, receipt
            )
        except CountersUnavailable as error:
            log.warning("call %s: only Postgres keeps its answer: %s", replay.call_id, error)
        except Exception:
            log.exception("call %s: its answer could not be kept in Redis", replay.call_id)
        self._running.pop(keyed.claim.call_id, None)
        if remembered != "KEPT":
            if remembered == "RECEIPT":
                answer = receipt
            self._save(keyed.principal, keyed.claim, answer, receipt=answer == receipt)

    async def forget(self, keyed: KeyedCall) -> None:
        """Let a retry run. Should it fail, the claim's deadline does the same. Never fails."""
        self._running.pop(keyed.claim.call_id, None)
        await self._give_back(keyed.principal, keyed.claim)

    def leave(self, keyed: KeyedCall) -> None:
        """Keep nothing and give nothing back: how the call ended is for Redis to know."""
        self._running.pop(keyed.claim.call_id, None)

    async def _begin(self, quest: Quest, claim: Claim) -> KeyedCall | Replay | Refusal:
        principal, takes_over = quest.principal, ""
        for _ in range(CLAIM_ATTEMPTS_MAX):
            said = await self._scripts.claim(
                principal.keys,
                claim,
                principal.key_id,
                takes_over=takes_over,
                guard=principal.guard_version,
            )
            match said:
                case GuardChanged():
                    refusal = await self._readiness.guard_again(quest, said)
                    if refusal is not None:
                        return refusal
                case NotLoaded() | ShardLost():
                    if not await self._readiness.make_ready(principal, said):
                        break
                    if principal.closed:
                        return errors.UNAUTHENTICATED
                case AnsweredBefore() | Ended() | Vanished():
                    found = await self._found(principal, claim, said)
                    if found is not None:
                        return found
                    takes_over = said.call_id
                case Claimed():
                    return await self._claimed(principal, claim, said)
                case _:
                    return _known(principal, said)
        return _UNKNOWN

    async def _claimed(
        self, principal: Principal, claim: Claim, claimed: Claimed
    ) -> KeyedCall | Replay | Refusal:
        """The call may run, unless Redis has lost what Postgres knows."""
        if claimed.after_loss:
            try:
                kept = await self._book.answer_of(principal.account_id, claim.digest)
            except Exception:
                await self._give_back(principal, claim)
                raise
            if kept is not None and kept.fingerprint != claim.fingerprint:
                await self._give_back(principal, claim)
                return MISMATCH
            if kept is not None:
                await self._scripts.remember(principal.keys, claim, kept.answer, kept.answer)
                return parse_replay(kept.answer)
        keyed = KeyedCall(self, self._recording, principal, claim, claimed.deadline_ms)
        self._running[claim.call_id] = keyed
        return keyed

    async def _found(
        self, principal: Principal, claim: Claim, over: AnsweredBefore | Ended | Vanished
    ) -> Replay | Refusal | None:
        """What is left of a call that is over; None: nothing, and the key may be taken over.

        Raises: LedgerUnavailable.
        """
        first = claim._replace(call_id=over.call_id)
        kept = await self._book.answer_of(principal.account_id, claim.digest)
        if kept is not None and kept.call_id == over.call_id:
            await self._scripts.remember(principal.keys, first, kept.answer, kept.answer)
            return parse_replay(kept.answer)
        if isinstance(over, Ended):
            receipt = Replay(*over)
        else:
            fate = await self._book.fate_of(over.call_id)
            if fate is None:
                return _UNKNOWN if isinstance(over, AnsweredBefore) else None
            receipt = Replay(over.call_id, *fate)
        if isinstance(over, AnsweredBefore):
            return receipt
        if may_run_again(receipt.ending, receipt.charged):
            return None
        encoded = receipt.encode()
        await self._scripts.remember(principal.keys, first, encoded, encoded)
        self._save(principal, first, encoded, receipt=True)
        return receipt

    async def _give_back(self, principal: Principal, claim: Claim) -> None:
        try:
            await self._scripts.forget(principal.keys, claim)
        except CountersUnavailable as error:
            log.warning("call %s: its key is free when its claim is over: %s", claim.call_id, error)
        except Exception:
            log.exception("call %s: its key is free when its claim is over", claim.call_id)

    def _save(self, principal: Principal, claim: Claim, answer: bytes, *, receipt: bool) -> None:
        digest, call_id, print_ = claim
        self._queue.add(
            AnswerRow(
                principal.platform_id,
                principal.account_id,
                digest,
                print_,
                call_id,
                receipt,
                answer,
            )
        )


def _known(
    principal: Principal,
    said: Answered | InProgress | OtherRequest | KeyRefused | AccountSuspended,
) -> Replay | Refusal:
    """What Redis alone answers."""
    match said:
        case Answered(answer=answer):
            return parse_replay(answer)
        case InProgress():
            return IN_PROGRESS
        case OtherRequest():
            return MISMATCH
        case _:
            principal.usable_until_ms = 0
            return refusal_of(said, None)


def _fingerprint(head: RequestHead, body: bytes) -> str:
    """Of the request as the agent would get it: method, target, what the body is, the body."""
    kinds = [b"", b""]
    for line in head.lines:
        name, _, value = line.partition(b":")
        lower = name.lower()
        if lower == b"content-type":
            kinds[0] = value.strip()
        elif lower == b"content-encoding":
            kinds[1] = value.strip()
    return fingerprint(head.method.encode(), head.path.encode(), head.query.encode(), *kinds, body)

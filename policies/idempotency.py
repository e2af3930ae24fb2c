"""One answer per idempotency key: what a key is, which requests are equal, and what is kept.

`Idempotency-Key` is that of draft-ietf-httpapi-idempotency-key-header: a quoted string of RFC 8941
(`"a1b2"`); clients that send the bare text (`a1b2`) mean the same key. A key belongs to an account.
"""

from __future__ import annotations

import hashlib
import re
from enum import Enum
from typing import NamedTuple

from policies.catalog import Ending

KEY_CHARACTERS_MAX = 255
# An answer beyond it is not kept: who asks again gets a receipt.
IDEMPOTENT_ANSWER_MAX_BYTES = 256 * 1024
# How long a key is remembered.
IDEMPOTENT_TTL_MS = 24 * 3_600_000

_BARE = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~:/=@-]+")
_QUOTED = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])+)"')
_ESCAPED = re.compile(rb"\\(.)")
# What an agent answers that did not handle the call: busy, or too many calls.
_NOT_HANDLED = frozenset({429, 503, 529})
_FINAL = frozenset({Ending.COMPLETED, Ending.CLIENT_ERROR})


def parse_key(value: bytes) -> bytes | None:
    """The key that a header's value stands for; None if it is none, or too long."""
    if _BARE.fullmatch(value):
        key = value
    elif quoted := _QUOTED.fullmatch(value):
        key = _ESCAPED.sub(rb"\1", quoted[1])
    else:
        return None
    return key if len(key) <= KEY_CHARACTERS_MAX else None


def key_digest(key: bytes) -> str:
    """What a key is named by in stores: 32 hex digits, whatever is in it."""
    return hashlib.sha256(key).hexdigest()[:32]


def fingerprint(*parts: bytes) -> str:
    """64 hex digits that equal requests share: method, target, what the body is, and the body."""
    hashed = hashlib.sha256()
    for part in parts:
        hashed.update(b"%d:" % len(part))
        hashed.update(part)
    return hashed.hexdigest()


class Claim(NamedTuple):
    """A call that wants a key, by its digest, for a request of this fingerprint."""

    digest: str
    call_id: str
    fingerprint: str


class Keep(Enum):
    """What is kept of a call that has ended."""

    ANSWER = "answer"
    RECEIPT = "receipt"  # that it ended, and what it cost
    NOTHING = "nothing"  # its key is free again


def kept(ending: Ending, status: int, charged: int, *, whole: bool, fits: bool) -> Keep:
    """What is kept of a call; `charged` in microcredits, or what is still held for its task.

    `whole`: its agent has answered to the end; `fits`: all of that was recorded. A call that cost
    nothing and has no whole answer may run again, and so may one that the agent turned away.
    """
    if not charged and (not whole or status in _NOT_HANDLED):
        return Keep.NOTHING
    if whole and fits and ending in {*_FINAL, Ending.UPSTREAM_ERROR}:
        return Keep.ANSWER
    return Keep.RECEIPT


def may_run_again(ending: str, charged: int) -> bool:
    """The same of a call of which nothing but its settlement is left."""
    return not charged and ending not in _FINAL


# What the shard says of a key that is claimed.


class Claimed(NamedTuple):
    """The key is this call's. It has to be admitted before `deadline_ms`, by Redis' clock.

    `after_loss`: Redis has lost data within the key's time, so Postgres may know more of it.
    """

    deadline_ms: int
    after_loss: bool


class InProgress(NamedTuple):
    """Another call has it, and may still be running."""


class OtherRequest(NamedTuple):
    """Another request has it."""


class Answered(NamedTuple):
    """The call that had it was answered so."""

    answer: bytes


class AnsweredBefore(NamedTuple):
    """The call that had it was answered; its answer is not in Redis any more."""

    call_id: str


class Ended(NamedTuple):
    """The call that had it is settled, and its worker did not live to remember the answer."""

    call_id: str
    ending: str
    status: int
    charged: int  # microcredits


class Vanished(NamedTuple):
    """The call that had it has no hold any more, and Redis does not know what became of it."""

    call_id: str

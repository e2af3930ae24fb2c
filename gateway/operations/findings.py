"""What an audit finds: one disagreement each, in words for operators and values for programs."""

from __future__ import annotations

from typing import NamedTuple

CONSERVATION = "I1"
ONCE = "I2"
NO_OVERSELL = "I3"
NO_LEAK = "I4"


class Finding(NamedTuple):
    """Two places that must agree and do not, or a bound that is broken.

    `expected` and `found` are microcredits where `is_amount`, else counts or words.
    """

    invariant: str
    check: str  # stable name of the check, for programs: "redis_lot_sum"
    account_id: int  # 0: no single account
    subject: str  # "grant 12", "call 0197…", "hour 2026-11-20T10:00Z route 3 key 4"
    expected: int | str
    found: int | str
    meaning: str
    is_amount: bool = True

"""Keys that are carved out of other keys: their bounds, and what of them counts in their parents.

The whole budget of a delegated key counts in its parent's cap in total from the moment it is carved
(`lua/carve.lua`), so that however many keys are carved out of one, and out of these, together they
can't spend more than it may. Once a key is over, it counts with what it used (`lua/giveback.lua`).

    used(key) = what its own calls were charged or hold + the share of each key carved out of it
    share(key) = its budget, until that was given back; then what it had used when it last was
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Keys above one another: a delegated key has at most so many ancestors.
DELEGATION_DEPTH_MAX = 4
# Delegated keys of an account that are not closed: all of them are loaded into Redis at once.
DELEGATED_KEYS_MAX = 500

_SHARE = re.compile(r"([0-9]{1,16}):([0-9]{1,16})(?::([0-9]{1,16}))?", re.ASCII)


class Share(NamedTuple):
    """How a delegated key counts in its parent: `p:<key id>` of an account's hash, as `str` says.

    "17:5000000" is carved out of key 17 with five credits; "17:5000000:1200000" is over, and of
    its budget 1.2 credits still count. A key without a share was never carved, or is gone.
    """

    parent_key_id: int
    budget_microcredits: int
    used_microcredits: int | None = None

    def __str__(self) -> str:
        text = f"{self.parent_key_id}:{self.budget_microcredits}"
        return text if self.used_microcredits is None else f"{text}:{self.used_microcredits}"

    @property
    def counted_microcredits(self) -> int:
        """What it takes of its parent's cap."""
        used = self.used_microcredits
        return self.budget_microcredits if used is None else used


def parse_share(text: str) -> Share:
    """The share in "17:5000000" or "17:5000000:1200000".

    Raises: ValueError when the text is none.
    """
    match = _SHARE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no share of a key")
    used = None if match[3] is None else int(match[3])
    return Share(int(match[1]), int(match[2]), used)

"""Delegated keys as the random machine's Postgres has them: which there are, and what they used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.delegation import Share
from policies.spans import DAY_MS
from tests.support.shard_sums import PARENTS, ROOTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from random import Random

BUDGETS = [1, 5, 20, 20, 40, 100]
LASTS_MS = [1000, 65_000, DAY_MS, DAY_MS, -1]
RULES = ["", "", "", "cd:30", "cc:2 cm:50", "gv:4", "rs:3 qm:9 cs:25"]


@dataclass
class Row:
    """One key."""

    parent_id: int
    budget: int
    expires_ms: int
    rules: str
    revoked: bool = False

    def text(self) -> str:
        state = -1 if self.revoked else self.expires_ms
        return f"{state} ct:{self.budget} up:{self.parent_id} {self.rules}".strip()

    def share(self) -> str:
        return str(Share(self.parent_id, self.budget))


class Rows:
    """By account and key: parents are there as long as what was carved out of them."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self._rows: dict[tuple[int, int], Row] = {}

    def get(self, account_id: int, key_id: int) -> Row | None:
        return self._rows.get((account_id, key_id))

    def of(self, account_id: int) -> dict[int, Row]:
        """In the order of `PARENTS`, each parent before its children."""
        return {key: row for key in PARENTS if (row := self.get(account_id, key))}

    def add(self, account_id: int, key_id: int, now_ms: int, budget: int = 0) -> Row | None:
        """A new one, unless its parent is not there; with this budget it lasts for long."""
        parent_id = PARENTS[key_id]
        if parent_id not in ROOTS and not self.get(account_id, parent_id):
            return None
        lasts_ms = DAY_MS if budget else self.random.choice(LASTS_MS)
        budget = budget or self.random.choice(BUDGETS)
        row = Row(parent_id, budget, now_ms + lasts_ms, self.random.choice(RULES))
        self._rows[account_id, key_id] = row
        return row

    def close(self, account_id: int, key_id: int) -> None:
        self._rows.pop((account_id, key_id), None)

    def is_parent(self, account_id: int, key_id: int) -> bool:
        return any(row.parent_id == key_id for row in self.of(account_id).values())

    def seeds(self, account_id: int, facts: Mapping[str, str]) -> dict[str, str]:
        """What an account with these facts is loaded with of its delegated keys."""
        seeds: dict[str, str] = {}
        known = {root for root in ROOTS if f"k:{root}" in facts}
        for key_id, row in self.of(account_id).items():
            if row.parent_id in known:
                known.add(key_id)
                carved = self.carved(account_id, key_id)
                own = self.random.choice([0, 0, min(3, row.budget)])
                used = max(min(own, row.budget - carved), 0) + carved
                seeds |= {f"k:{key_id}": row.text(), f"p:{key_id}": row.share()}
                seeds[f"K{key_id}.ct"] = f"0:{used}"
        for root in ROOTS:
            name, carved = f"K{root}.ct", self.carved(account_id, root)
            if root in known and carved and ("ct:" in facts[f"k:{root}"] or name in facts):
                own = int(facts.get(name, "0:0").partition(":")[2])
                seeds[name] = f"0:{own + carved}"
        return seeds

    def carved(self, account_id: int, key_id: int) -> int:
        """The budgets that are carved out of a key, or to be."""
        rows = self.of(account_id).values()
        return sum(row.budget for row in rows if row.parent_id == key_id)

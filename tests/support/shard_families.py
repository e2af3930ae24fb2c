"""What keys and the keys carved out of them may have spent together, told by calls' replies alone.

As `shard_sums`, this knows neither the model nor the scripts. A family is a key and all that was
carved out of it, and out of that. What it spent, and what its running calls hold, is never more
than the cap in total of the key at its head, or than what counted there when it was loaded; but for
what calls owed beyond their holds.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from policies.delegation import parse_share

if TYPE_CHECKING:
    from collections.abc import Mapping

Key = tuple[int, int]  # account, key
ACCOUNT, HELD, CONTEXT = 1, 3, 8


class Families:
    """`parents` of delegated keys; `bounds` of those with a cap in total."""

    def __init__(self) -> None:
        self.parents: dict[Key, int] = {}
        self.bounds: dict[Key, int] = {}
        self._spent: Counter[Key] = Counter()

    def loaded(self, account_id: int, fields: Mapping[str, str], folded: Mapping[str, str]) -> None:
        """All keys of the account are as these fields say, less and with what live holds add."""
        self.forget(account_id)
        shares = {int(name[2:]): text for name, text in fields.items() if name[:2] == "p:"}
        for key_id, text in shares.items():
            self.parents[account_id, key_id] = parse_share(text).parent_key_id
        for name, text in fields.items():
            if name[:2] != "k:" or not (limit := _total(text)):
                continue
            key_id = int(name[2:])
            counter = f"K{key_id}.ct"
            self.bounds[account_id, key_id] = max(limit, _used(folded.get(counter)))
            own = _used(fields.get(counter))
            for share in map(parse_share, shares.values()):
                if share.parent_key_id == key_id:
                    own -= share.counted_microcredits
            self._spent[account_id, key_id] = max(own, 0)

    def forget(self, account_id: int) -> None:
        for kept in (self.parents, self.bounds, self._spent):
            for key in [key for key in kept if key[0] == account_id]:
                del kept[key]  # type: ignore[attr-defined]

    def amended(self, account_id: int, key_id: int, text: str) -> None:
        """A cap that is raised binds at its new height; one that goes away binds no more."""
        limit, key = _total(text), (account_id, key_id)
        if key in self.bounds:
            if limit:
                self.bounds[key] = max(self.bounds[key], limit)
            else:
                del self.bounds[key]

    def carved(self, account_id: int, parent_id: int, key_id: int, budget: int) -> None:
        if (account_id, key_id) not in self.parents:
            self.parents[account_id, key_id] = parent_id
            self.bounds[account_id, key_id] = budget
            self._spent[account_id, key_id] = 0

    def raised_by_another(self, account_id: int, key_id: int) -> None:
        """A call of this key was raised by the caps of another one: its own did not bind it."""
        head: int | None = key_id
        while head is not None:
            self.bounds.pop((account_id, head), None)
            head = self.parents.get((account_id, head))

    def closed(self, account_id: int, key_id: int) -> None:
        """What it spent was its parent's to spend."""
        key = (account_id, key_id)
        self.bounds.pop(key, None)
        spent, parent = self._spent.pop(key, 0), self.parents.pop(key, None)
        if parent is not None:
            self._spent[account_id, parent] += spent

    def ended(self, parts: list[str], charged: int) -> None:
        self._spent[_key(parts)] += min(charged, int(parts[HELD]))

    def check(self, live: Mapping[str, list[str]], account_ids: set[int]) -> None:
        """Of accounts that are loaded with all their holds."""
        spent = Counter(self._spent)
        for parts in live.values():
            spent[_key(parts)] += int(parts[HELD])
        totals: Counter[Key] = Counter()
        for (account_id, key_id), amount in spent.items():
            head: int | None = key_id
            while head is not None:
                totals[account_id, head] += amount
                head = self.parents.get((account_id, head))
        for key, bound in self.bounds.items():
            if key[0] in account_ids:
                assert totals[key] <= bound, (key, totals[key], bound)


def _key(parts: list[str]) -> Key:
    return int(parts[ACCOUNT]), int(parts[CONTEXT].split(",")[2])


def _total(text: str) -> int:
    found = re.search(r"\bct:([0-9]+)", text)
    return int(found[1]) if found else 0


def _used(text: Any) -> int:
    return int(str(text).partition(":")[2]) if text else 0

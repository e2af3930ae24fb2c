"""What a shard's numbers must add up to, told by its calls' replies and nothing else.

Knows neither the model nor the scripts: it is told which calls were admitted, how they ended, what
was granted and seeded, and compares sums with Redis' state (`LuaShard.state`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from policies.delegation import parse_share
from policies.settlement import parse_postings
from tests.support.shard_families import Families

Live = dict[str, list[str]]  # call id: parts of its hold's text
ACCOUNT, HELD, COUNTED, ALLOCATION, CONTEXT = 1, 3, 6, 7, 8
State = dict[str, Any]
# Keys that nothing is carved from, and by delegated key the one that it is carved from: one is a
# level too deep.
ROOTS = (5, 6)
PARENTS = {51: 5, 52: 5, 61: 6, 511: 51, 5111: 511, 51111: 5111, 511111: 51111}
KEYS = (*ROOTS, *PARENTS)


class Sums:
    """`granted` by account and lot; accounts in `disturbed` were loaded without their holds.

    A delegated key's share is one more that its parent's cap in total counts (policies/delegation).
    """

    def __init__(self) -> None:
        self.families = Families()
        self.granted: dict[tuple[int, int], int] = {}
        self.disturbed: set[int] = set()
        # By place (account, counter, window or session): what was there when it was first seen, and
        # what calls that ended since were charged.
        self._begun: dict[tuple[Any, ...], int] = {}
        self._charged: Counter[tuple[Any, ...]] = Counter()
        self._window: dict[tuple[int, str], str] = {}  # by account and counter: its window's end
        self._unsure: set[tuple[Any, ...]] = set()

    def loaded(self, account_id: int, fields: dict[str, str]) -> None:
        """Every lot of the account is now as these fields say; its counters begin anew."""
        for name in [name for name in self.granted if name[0] == account_id]:
            del self.granted[name]
        for token in fields["lots"].split():
            grant_id = token.rstrip("o")
            total = sum(int(fields.get(f"{name}:{grant_id}", "0")) for name in "ahsw")
            self.granted[account_id, int(grant_id)] = total
        self.forget(account_id)

    def forget(self, account_id: int) -> None:
        """Its counters are gone or new: what they are when next seen is their beginning."""
        for places in (self._begun, self._charged, self._window):
            for place in [place for place in places if place[0] == account_id]:
                if len(place) == 2 or place[1][0] != "S":
                    del places[place]  # type: ignore[attr-defined]
        self._unsure = {p for p in self._unsure if p[0] != account_id or p[1][0] == "S"}

    def uncapped(self, account_id: int, key_id: int, *, running: bool) -> None:
        """The key's cap in total is gone; if calls run that were counted, they stay counted."""
        place = (account_id, f"K{key_id}.ct", "0")
        self._begun.pop(place, None)
        self._charged.pop(place, None)
        if running:
            self._unsure.add(place)

    def closed(self, account_id: int, key_id: int, counted: int) -> None:
        """A delegated key is forgotten; what it used stays counted in its parent."""
        parent = self.families.parents.get((account_id, key_id))
        if parent is not None:
            self._charged[account_id, f"K{parent}.ct", "0"] += counted
        self.uncapped(account_id, key_id, running=False)
        self.families.closed(account_id, key_id)

    def credited(self, account_id: int, grant_id: int, total: int) -> None:
        known = self.granted.get((account_id, grant_id), 0)
        self.granted[account_id, grant_id] = max(known, total)

    def ended(self, parts: list[str], charged: int, *, session_told: bool) -> None:
        """A live call has ended: it is no longer held, but charged so much."""
        self.families.ended(parts, charged)
        for place in _places(parts):
            self._charged[place] += charged
            if place[1][0] == "S" and not session_told:
                self._unsure.add(place)

    def session_lost(self, account_id: int, session: str) -> None:
        """Calls that are in it may end in another of the same name."""
        for scope in ("A", *(f"K{key_id}" for key_id in KEYS)):
            self._unsure.add((account_id, f"S.{scope}", session))

    def rebuilt(self) -> None:
        """Sessions still count the holds that were put aside, of which some come back."""
        self._unsure |= {place for place in self._begun if place[1][0] == "S"}

    def check(self, state: State) -> None:
        live = {c: t.split("|", 8) for c, t in state["holds"].items() if t[0] == "h"}
        assert state["leases"].keys() == live.keys()  # I4: every hold has a deadline
        held: Counter[tuple[int, int]] = Counter()
        counted: Counter[tuple[Any, ...]] = Counter()
        calls: Counter[tuple[int, str]] = Counter()
        for parts in live.values():
            account_id = int(parts[ACCOUNT])
            for grant_id, amount in parse_postings(parts[ALLOCATION]):
                held[account_id, grant_id] += amount
            calls[account_id, "running"] += 1
            calls.update((account_id, token) for token in parts[COUNTED].split() if "cc" in token)
            for place in _places(parts):
                counted[place] += int(parts[HELD])
        sure = set()
        for account_id, fields in state["accounts"].items():
            if "epoch" in fields and fields["epoch"] == state["meta"].get("epoch"):  # it is loaded
                self._check_lots(account_id, fields, held)
                if account_id not in self.disturbed:
                    _count_shares(account_id, fields, counted)
                    self._check_counters(account_id, fields, calls, counted)
                    sure.add(account_id)
        self.families.check(live, sure)
        for (account_id, session), spent in state["sessions"].items():
            for scope, used in spent.items():
                self._check_sum((account_id, f"S.{scope}", session), int(used), counted)

    def _check_counters(
        self,
        account_id: int,
        fields: dict[str, str],
        calls: Counter[tuple[int, str]],
        counted: Counter[tuple[Any, ...]],
    ) -> None:
        assert int(fields["running"]) == calls[account_id, "running"]
        for name, text in fields.items():
            if name.endswith(".cc"):
                assert int(text) == calls[account_id, name]
            elif name[-3:] in (".cd", ".cm", ".ct"):
                end, _, used = text.partition(":")
                self._enter_window(account_id, name, end)
                self._check_sum((account_id, name, end), int(used), counted)

    def _check_lots(
        self, account_id: int, fields: dict[str, str], held: Counter[tuple[int, int]]
    ) -> None:
        for token in fields["lots"].split():
            grant_id = int(token.rstrip("o"))
            numbers = [int(fields[f"{name}:{grant_id}"]) for name in "ahsw"]
            assert min(numbers) >= 0  # I3, overage included
            assert sum(numbers) == self.granted[account_id, grant_id]  # I1
            if account_id not in self.disturbed:
                assert numbers[1] == held[account_id, grant_id]

    def _enter_window(self, account_id: int, name: str, end: str) -> None:
        """A window that is entered a second time has lost count of what was in it before."""
        if self._window.get((account_id, name)) != end:
            self._window[account_id, name] = end
            if (account_id, name, end) in self._begun:
                self._unsure.add((account_id, name, end))

    def _check_sum(
        self, place: tuple[Any, ...], used: int, counted: Counter[tuple[Any, ...]]
    ) -> None:
        assert used >= 0
        if place not in self._begun:
            self._begun[place] = max(used - counted[place] - self._charged[place], 0)
        if place not in self._unsure:
            assert used == self._begun[place] + counted[place] + self._charged[place], place


def _count_shares(
    account_id: int, fields: dict[str, str], counted: Counter[tuple[Any, ...]]
) -> None:
    for name, text in fields.items():
        if name.startswith("p:"):
            share = parse_share(text)
            counted[account_id, f"K{share.parent_key_id}.ct", "0"] += share.counted_microcredits


def _places(parts: list[str]) -> list[tuple[Any, ...]]:
    """Where a call's spending is counted: caps by window, caps of its session."""
    account_id, session = int(parts[ACCOUNT]), parts[CONTEXT].rpartition(",")[2]
    places: list[tuple[Any, ...]] = []
    for token in parts[COUNTED].split():
        name, _, end = token.partition("@")
        if name[0] == "S":
            places.append((account_id, name, session))
        elif end:
            places.append((account_id, name, end))
    return places

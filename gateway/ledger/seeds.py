"""What Redis is loaded with: accounts as Postgres has them, and what their sessions have spent.

Holds are not known here: an account is loaded when Redis does not have it, or with the holds of
running calls folded in (policies/rebuild.py).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, Session, rows
from gateway.ledger.specs import key_from_spec, plan_from_spec
from policies.delegation import Share
from policies.limits import (
    CAPS,
    PERIOD,
    QUOTAS,
    Counter,
    Rule,
    account_limits,
    delegated_rules_text,
    key_text,
    month_end_ms,
    parse_rules,
    rules_text,
    window_end_ms,
)
from policies.periods import MONTHS, months_after_ms, period_end_ms
from policies.pricing import POSITION_MAX
from policies.spans import DAY_MS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from asyncpg import Record

State = dict[str, str | int]

REVOKED = -1  # the state of a key


class SessionSpend(NamedTuple):
    """What calls with one key have spent in one session that Redis would remember.

    `counts_in` are the key itself and those that it was carved from.
    """

    account_id: int
    session: str
    key_id: int
    counts_in: list[int]
    spent_microcredits: int


class _Scope(NamedTuple):
    """Quotas and caps to be seeded: of the account, a key or a route, and what counts in them."""

    name: str
    rules: Sequence[Rule]
    since_ms: int = 0  # nothing of it was used before
    key_ids: AbstractSet[int] | None = None  # of the calls that count; None: of all
    route_id: int | None = None


class _Key(NamedTuple):
    """A key that is not closed."""

    key_id: int
    rules: str
    parent_key_id: int | None
    budget_microcredits: int  # of a delegated one
    created_ms: int


class _Account:
    """One account while its state is put together."""

    def __init__(self, facts: Record) -> None:
        self.account_id: int = facts["account_id"]
        self.platform_id: int = facts["platform_id"]
        self.now_ms: int = facts["now_ms"]
        self.start_ms: int = facts["start_ms"]
        self.end_ms: int = facts["end_ms"]
        self.tiers: bool = facts["tiers"]
        plan, next_ms = None, 0
        if facts["plan"] is not None:
            plan = plan_from_spec(facts["plan_slug"], json.loads(facts["plan"]))
            if self.end_ms:
                months = MONTHS[plan.period]
                next_ms = period_end_ms(facts["anchor_ms"], self.end_ms, months)
        self.limits = account_limits(
            plan, self.end_ms, next_ms, discount=facts["discount"], tiers=self.tiers
        )
        rules = parse_rules(self.limits.rules)
        self.period = next((rule for rule in rules if rule.kind == PERIOD), None)
        self.scopes = [_Scope("A", _counted(rules))]
        self.keys: dict[int, _Key] = {}  # parents before what was carved out of them
        self.state: State = {
            "status": facts["status"],
            "rpm": self.limits.rpm,
            "rpmonth": self.limits.rpmonth,
            "conc": self.limits.conc,
            "rules": self.limits.rules,
            "month": facts["month"],
            "count": 0,
            "lots": "",
        }

    def add_key(self, row: Record) -> None:
        key_id, parent_id, budget = row["key_id"], row["parent_key_id"], row["budget_microcredits"]
        # What a revoked key may do is nobody's question any more, and they become many.
        over = row["state"] == REVOKED and parent_id is None
        rules = "" if over else _key_rules(row)
        self.keys[key_id] = _Key(key_id, rules, parent_id, budget, row["created_ms"])
        self.state[f"k:{key_id}"] = key_text(row["state"], rules)

    def add_key_scopes(self) -> None:
        """Calls with a delegated key count for the keys that it was carved from, too."""
        families = {key_id: {key_id} for key_id in self.keys}
        for key in reversed(self.keys.values()):
            if key.parent_key_id in families:
                families[key.parent_key_id] |= families[key.key_id]
        for key in self.keys.values():
            rules = _counted(parse_rules(key.rules))
            since_ms = max(key.created_ms - DAY_MS, 0)  # clocks may differ, if not so much
            self.scopes.append(_Scope(f"K{key.key_id}", rules, since_ms, families[key.key_id]))

    def add_shares(self, usage: Sequence[Record]) -> None:
        """Seed the caps in total of keys, in which whatever was carved out of them counts whole.

        Also what is over: it counts so until it is closed, for Redis gives back the rest again.
        """
        used = dict.fromkeys(self.keys, 0)
        for row in usage:
            if row["key_id"] in used:
                used[row["key_id"]] += row["spent_total"]
        for key in self.keys.values():
            if key.parent_key_id is not None:
                share = Share(key.parent_key_id, key.budget_microcredits)
                self.state[f"p:{key.key_id}"] = str(share)
                if key.parent_key_id in used:
                    used[key.parent_key_id] += key.budget_microcredits
        for key_id, microcredits in used.items():
            if f"K{key_id}.ct" in self.state:
                self.state[f"K{key_id}.ct"] = str(Counter(0, microcredits))

    def add_lot(self, lot: Record) -> None:
        grant_id = lot["grant_id"]
        token = f"{grant_id}o" if lot["is_overage"] else str(grant_id)
        lots = self.state["lots"]
        self.state["lots"] = f"{lots} {token}" if lots else token
        self.state[f"a:{grant_id}"] = lot["available_microcredits"]
        self.state[f"s:{grant_id}"] = lot["settled_microcredits"]
        self.state[f"w:{grant_id}"] = lot["withdrawn_microcredits"]
        self.state[f"e:{grant_id}"] = lot["expires_ms"]
        self.state[f"f:{grant_id}"] = lot["effective_ms"]

    def counts(self) -> bool:
        """Whether anything has to be counted from what was used before."""
        return bool(self.limits.rpmonth) or any(scope.rules for scope in self.scopes)

    def since_ms(self) -> int:
        """How far back."""
        kinds = {rule.kind for scope in self.scopes for rule in scope.rules}
        totals = [s for s in self.scopes if any(rule.kind == "ct" for rule in s.rules)]
        begins = [self.now_ms - self.now_ms % DAY_MS, *(scope.since_ms for scope in totals)]
        if self.limits.rpmonth or kinds & {"cm", "qm"}:
            begins.append(_month_begin_ms(self.now_ms))
        if "qp" in kinds:
            begins.append(self.quota_ms())
        return min(begins)

    def quota_ms(self) -> int:
        """When the window began that quotas and tiers per billing period count now."""
        if self.period is not None:
            if self.now_ms < self.period.limit:
                return self.start_ms
            if self.now_ms < self.period.parameter:
                return self.period.limit
        return _month_begin_ms(self.now_ms)

    def add_usage(self, usage: Sequence[Record]) -> None:
        """Seed the count of the month and the counters of every scope."""
        if self.limits.rpmonth:
            self.state["count"] = sum(row["calls_month"] for row in usage)
        columns = {
            "qm": "calls_month",
            "qp": "calls_quota",
            "cd": "spent_day",
            "cm": "spent_month",
            "ct": "spent_total",
        }
        by_key: dict[int, list[Record]] = {}
        for row in usage:
            by_key.setdefault(row["key_id"], []).append(row)
        for scope in self.scopes:
            of_scope = usage
            if scope.key_ids is not None:
                of_scope = [row for key in scope.key_ids for row in by_key.get(key, ())]
            elif scope.route_id is not None:
                of_scope = [row for row in usage if row["route_id"] == scope.route_id]
            for rule in scope.rules:
                end_ms = window_end_ms(rule.kind, self.now_ms, self.period)
                used = sum(row[columns[rule.kind]] for row in of_scope)
                self.state[f"{scope.name}.{rule.kind}"] = str(Counter(end_ms, used))
        self.add_shares(usage)

    def add_tiers(self, moved: Record) -> None:
        """Seed how far the account has moved through the tiers of a unit on a route."""
        end_ms = window_end_ms("qp", self.now_ms, self.period)
        units = min(int(moved["units"]), POSITION_MAX)
        self.state[f"u:{moved['route_id']}:{moved['unit']}"] = str(Counter(end_ms, units))


class Seeds(Database):
    """What Redis is loaded with."""

    async def account_state(self, account_id: int) -> State | None:
        """The fields of the account's hash in Redis, for `Counters.load`; None without the account.

        As of one instant: status; limits of its plan, with the period they count in; every key with
        its limits; each lot that has something left, in burn-down order; the counters of its
        quotas, caps and tiers, from what was settled.
        """
        return (await self.account_states([account_id])).get(account_id)

    async def account_states(self, account_ids: Sequence[int]) -> dict[int, State]:
        """The same of many accounts, all as of the same instant; those there are."""
        wanted = list(account_ids)
        async with self.transaction(snapshot=True) as session:
            facts = await session.all("account_facts", wanted)
            accounts = {row["account_id"]: _Account(row) for row in facts}
            for key in await session.all("account_keys", wanted):
                accounts[key["account_id"]].add_key(key)
            for account in accounts.values():
                account.add_key_scopes()
            for lot in await session.all("account_lots", wanted):
                accounts[lot["account_id"]].add_lot(lot)
            platforms = {account.platform_id for account in accounts.values()}
            for route in await session.all("route_rules", list(platforms)):
                route_id = route["route_id"]
                rules = _counted(parse_rules(_rules(route["spec"])))
                for account in accounts.values():
                    if account.platform_id == route["platform_id"]:
                        account.scopes.append(_Scope(f"R{route_id}", rules, route_id=route_id))
            await _add_usage(session, [each for each in accounts.values() if each.counts()])
            await _add_tiers(session, [each for each in accounts.values() if each.tiers])
        return {account_id: account.state for account_id, account in accounts.items()}

    async def session_spend(self, since_ms: int) -> list[SessionSpend]:
        """What the sessions have spent that were used since then, each since it began anew.

        Those of accounts with a cap per session, of their own or of a key. A session begins anew
        after a pause longer than from `since_ms` until now.
        """
        return rows(SessionSpend, await self._session.all("session_spend", since_ms))


async def _add_usage(session: Session, accounts: Sequence[_Account]) -> None:
    if not accounts:
        return
    records = await session.all(
        "account_usage",
        [account.account_id for account in accounts],
        [account.platform_id for account in accounts],
        [account.since_ms() for account in accounts],
        [account.quota_ms() for account in accounts],
    )
    by_account: dict[int, list[Record]] = {account.account_id: [] for account in accounts}
    for row in records:
        by_account[row["account_id"]].append(row)
    for account in accounts:
        account.add_usage(by_account[account.account_id])


async def _add_tiers(session: Session, accounts: Sequence[_Account]) -> None:
    if not accounts:
        return
    by_id = {account.account_id: account for account in accounts}
    begins = [account.quota_ms() for account in accounts]
    for moved in await session.all("account_tiers", list(by_id), begins):
        by_id[moved["account_id"]].add_tiers(moved)


def _rules(spec: str) -> str:
    """The limits and caps of a route's stored spec."""
    return rules_text(*key_from_spec(json.loads(spec)))


def _key_rules(row: Record) -> str:
    limits, caps = key_from_spec(json.loads(row["spec"]))
    if row["parent_key_id"] is None:
        return rules_text(limits, caps, row["guard_version"])
    return delegated_rules_text(
        limits,
        caps,
        parent_key_id=row["parent_key_id"],
        budget_microcredits=row["budget_microcredits"],
        guard_version=row["guard_version"],
    )


def _counted(rules: Iterable[Rule]) -> list[Rule]:
    """Those whose use is counted in the account's hash for longer than a call or a minute."""
    return [rule for rule in rules if rule.kind in (*QUOTAS, *CAPS) and rule.kind != "cs"]


def _month_begin_ms(now_ms: int) -> int:
    return months_after_ms(month_end_ms(now_ms), -1)

"""Billing periods: what a plan gives, period by period, each exactly once.

Whatever gives something locks the account's row first and names what it gives by a business key.
Lots begin where the period does and end where it does, so that a renewal which is late takes and
gives nothing else than one in time; periods that nobody renewed are made up for one by one.
"""

from __future__ import annotations

import json
from types import EllipsisType
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.database import Database, Session, rows
from gateway.ledger.lots import NewLot, insert_lot
from gateway.ledger.rows import AccountRow
from gateway.ledger.specs import plan_from_spec
from policies.periods import MONTHS, period_end_ms
from policies.rollover import rolled_over
from policies.settlement import LedgerChange, Posting
from policies.spans import DAY_MS

if TYPE_CHECKING:
    from asyncpg import Record

    from policies.catalog import Plan

PLAN_PRIORITY = 0
# After everything that was given or bought.
OVERAGE_PRIORITY = 1_000_000
RENEWALS_MAX = 1_000
ROLLOVERS_MAX = 1_000
ROLLOVER_LOOK_BACK_MS = 31 * 86_400_000


class DueRenewal(NamedTuple):
    """An account whose period is over."""

    account_id: int
    platform_id: int
    name: str
    period_end_ms: int


class Trial(NamedTuple):
    """Credits to try things with, for some days."""

    microcredits: int
    days: int


class SignupTerms(NamedTuple):
    """What a platform gives to new accounts. Without a plan they are on none."""

    plan_slug: str | None
    trial: Trial | None


class AccountChange(NamedTuple):
    """What becomes of an account; None leaves as it is.

    So does `...` of the discount, of which None is what its plan says.
    """

    name: str | None = None
    status: str | None = None
    plan_slug: str | None = None
    discount_basis_points: int | EllipsisType | None = ...


class Periods(Database):
    """Accounts' plans and periods."""

    async def create_account(
        self,
        platform_id: int,
        name: str,
        plan_slug: str | None = None,
        *,
        first_microcredits: int | None = None,
        first_source: str = "manual",
        trial: Trial | None = None,
    ) -> int | None:
        """A new account's id; None when the name is taken or there is no such plan.

        In one transaction it begins the first period of its plan and gets what that gives. With
        `first_microcredits` it gets these instead of the plan's credits, for ever; 0 for nothing.
        A trial is given beside them, once in the account's life.
        """
        async with self.transaction() as session:
            account_id = await session.value("account_insert", platform_id, name, plan_slug)
            if account_id is None:
                return None
            account = await session.one("account_period_lock", account_id)
            if account is not None and account["plan"] is not None:
                await _begin_period(
                    session, account, _plan(account), gives_credits=first_microcredits is None
                )
            if first_microcredits:
                lot = NewLot(first_source, first_microcredits, PLAN_PRIORITY)
                await insert_lot(session, account_id, lot)
            if trial is not None and account is not None:
                await _give_trial(session, account, trial)
        return int(account_id)

    async def signup_terms(self, platform_id: int) -> SignupTerms | None:
        """What accounts get that are made without a plan; None without such a platform."""
        record = await self._session.one("platform_signup", platform_id)
        if record is None:
            return None
        credits_ = record["trial_microcredits"]
        trial = Trial(credits_, record["trial_days"]) if credits_ else None
        return SignupTerms(record["plan_slug"], trial)

    async def change_account(
        self, platform_id: int, account_id: int, change: AccountChange
    ) -> AccountRow | None:
        """Change an account at once in all that is named; as it is then.

        None when the platform has no such account, or no such plan: then nothing is changed.

        Raises: LedgerRejected when the name is taken.
        """
        async with self.transaction() as session:
            before = await session.one("account_period_lock", account_id)
            if before is None or before["platform_id"] != platform_id:
                return None
            plan = change.plan_slug
            if plan is not None and not await _put_on_plan(session, account_id, plan):
                return None
            has_discount = not isinstance(change.discount_basis_points, EllipsisType)
            await session.value(
                "account_change",
                account_id,
                change.name,
                change.status,
                has_discount,
                change.discount_basis_points if has_discount else None,
            )
            record = await session.one("account_get", platform_id, account_id)
            return AccountRow(**record) if record else None

    async def due_renewals(
        self, before_ms: int | None = None, *, limit: int = RENEWALS_MAX
    ) -> list[DueRenewal]:
        """Accounts with a plan whose period ends at or before a moment, longest over first.

        By default that moment is now by Postgres' clock, which no node's clock can put forward.
        """
        return rows(DueRenewal, await self._session.all("account_renewals", before_ms, limit))

    async def renewals_ahead(self, ahead_ms: int, *, limit: int = RENEWALS_MAX) -> list[DueRenewal]:
        """Accounts whose period ends within so much time and who lack what the next one gives."""
        return rows(DueRenewal, await self._session.all("account_renewals_ahead", ahead_ms, limit))

    async def prepare_period(self, account_id: int, over_ms: int) -> bool:
        """Give what the plan gives for the period after the one that ends at `over_ms`.

        Ahead of time, so that there is no moment without: the lots begin when that period does. The
        account's period stays until `renew`. False: it has another period by now, or no plan.
        """
        async with self.transaction() as session:
            account = await session.one("account_period_lock", account_id)
            if account is None or not _is_due(account, over_ms):
                return False
            plan = _plan(account)
            end_ms = period_end_ms(account["anchor_ms"], over_ms, MONTHS[plan.period])
            await _give_lots(session, account_id, plan, over_ms, end_ms)
        return True

    async def renew(self, account_id: int, over_ms: int) -> bool:
        """Begin the period after the one that ends at `over_ms`, and give what the plan gives.

        Exactly once, in one transaction. False: somebody else did, or the account has no plan. An
        account that was not renewed for long is due again afterwards.
        """
        async with self.transaction() as session:
            account = await session.one("account_period_lock", account_id)
            if account is None or not _is_due(account, over_ms):
                return False
            await _give_period(session, account, _plan(account), account["anchor_ms"], over_ms)
        return True

    async def rollovers_due(
        self, *, look_back_ms: int = ROLLOVER_LOOK_BACK_MS, limit: int = ROLLOVERS_MAX
    ) -> list[LedgerChange]:
        """Expiries of plan lots of the last `look_back_ms` that nobody has rolled over yet.

        Oldest first. Those older than ROLLOVER_LOOK_BACK_MS need not be looked for: most of them
        are there because their plan left nothing of them.
        """
        return [
            LedgerChange(
                row["change_id"],
                0,
                "",
                "expire",
                row["platform_id"],
                row["account_id"],
                "",
                row["at_ms"],
                (Posting(row["grant_id"], row["microcredits"]),),
            )
            for row in await self._session.all("rollover_due", limit, look_back_ms)
        ]

    async def rollover_lot(self, change: LedgerChange) -> int | None:
        """Give the rest of an expired plan lot again, for the next period, as the plan says.

        Exactly once per recorded change. Answers the new lot; None: the plan leaves nothing of it,
        the account has no period, or the change is no recorded expiry of a plan's lot.
        """
        async with self.transaction() as session:
            account = await session.one("account_period_lock", change.account_id)
            rest = await session.one("rollover_rest", change.change_id)
            if account is None or rest is None or not account["plan"] or not account["end_ms"]:
                return None
            plan = _plan(account)
            end_ms = _period_end_after(account, plan, rest["expires_ms"])
            rolled_already = await session.value("rollover_sum", change.account_id, end_ms)
            amount = rolled_over(
                plan,
                rest["microcredits"],
                rollovers=rest["rollovers"],
                rolled_already=rolled_already,
            )
            if not amount and not rolled_over(
                plan, rest["microcredits"], rollovers=rest["rollovers"], rolled_already=0
            ):
                return None
            # That nothing was left of the plan's maximum is recorded, too: it was decided.
            lot = NewLot(
                source="rollover",
                amount_microcredits=amount,
                priority=rest["priority"],
                effective_ms=rest["expires_ms"],
                expires_ms=end_ms,
                note="" if amount else "the plan's maximum was rolled over already",
                business_key=f"rollover:{change.change_id}",
                rollovers=rest["rollovers"] + 1,
            )
            return await insert_lot(session, change.account_id, lot)


async def _give_trial(session: Session, account: Record, trial: Trial) -> None:
    lot = NewLot(
        source="trial",
        amount_microcredits=trial.microcredits,
        priority=PLAN_PRIORITY,
        effective_ms=account["now_ms"],
        expires_ms=account["now_ms"] + trial.days * DAY_MS,
        business_key=f"trial:{account['account_id']}",
    )
    await insert_lot(session, account["account_id"], lot)


def _period_end_after(account: Record, plan: Plan, moment_ms: int) -> int:
    """When the account's period ends that holds a moment, which may be to come."""
    if account["start_ms"] <= moment_ms < account["end_ms"]:
        return int(account["end_ms"])
    return period_end_ms(account["anchor_ms"], moment_ms, MONTHS[plan.period])


async def _put_on_plan(session: Session, account_id: int, plan_slug: str) -> bool:
    """Put an account on a plan, begin a period and give what that gives.

    What earlier periods gave stays until its own end, but overage, which a period has once, and
    what was given ahead for a period that does not come any more. An account that is on the plan
    already keeps its period. False when the account, or the plan on its platform, does not exist.
    """
    before = await session.one("account_period_lock", account_id)
    if before is None:
        return False
    if before["plan_slug"] != plan_slug:
        await session.value("clock_period_note", account_id)
    if not await session.value("account_plan_set", account_id, plan_slug):
        return False
    if before["plan_slug"] == plan_slug and before["end_ms"]:
        return True
    account = await session.one("account_period_lock", account_id)
    if account is None:
        return False
    await session.value("grant_end_overage", account_id, account["now_ms"])
    await session.value("grant_revoke_ahead", account_id)
    await _begin_period(session, account, _plan(account))
    return True


async def begin_period(session: Session, account_id: int, plan_slug: str) -> None:
    """Put an account that has no plan on one, from now on by the clock."""
    await _put_on_plan(session, account_id, plan_slug)


async def _begin_period(
    session: Session, account: Record, plan: Plan, *, gives_credits: bool = True
) -> None:
    """The account's first period of a plan: it begins now, and all others count from there."""
    now_ms = account["now_ms"]
    await _give_period(session, account, plan, now_ms, now_ms, gives_credits=gives_credits)


async def _give_period(
    session: Session,
    account: Record,
    plan: Plan,
    anchor_ms: int,
    start_ms: int,
    *,
    gives_credits: bool = True,
) -> None:
    account_id = account["account_id"]
    end_ms = period_end_ms(anchor_ms, start_ms, MONTHS[plan.period])
    await session.value("account_period_set", account_id, anchor_ms, start_ms, end_ms)
    await _give_lots(session, account_id, plan, start_ms, end_ms, gives_credits=gives_credits)


async def _give_lots(
    session: Session,
    account_id: int,
    plan: Plan,
    start_ms: int,
    end_ms: int,
    *,
    gives_credits: bool = True,
) -> None:
    """What the plan gives for a period, once: what was given ahead stays as it is."""
    lots = []
    if gives_credits and plan.credits_microcredits:
        lots.append(("plan", plan.credits_microcredits, PLAN_PRIORITY))
    if plan.overage_cap_microcredits:
        lots.append(("overage", plan.overage_cap_microcredits, OVERAGE_PRIORITY))
    for source, amount, priority in lots:
        business_key = f"{source}:{account_id}:{start_ms}"
        lot = NewLot(source, amount, priority, start_ms, end_ms, business_key=business_key)
        await insert_lot(session, account_id, lot)


def _is_due(account: Record, over_ms: int) -> bool:
    """Whether the clock renews the account, after the period that ends then."""
    return (
        account["plan"] is not None
        and account["renewed_by"] == "clock"
        and account["end_ms"] == over_ms
    )


def _plan(account: Record) -> Plan:
    return plan_from_spec(account["plan_slug"], json.loads(account["plan"]))

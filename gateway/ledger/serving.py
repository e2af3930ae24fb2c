"""Accounts that go by a subscription: their plan, their period, their overage; and back again.

While one serves, the clock renews nothing (periods.py). Like everything that changes an account's
plan or period, this locks its row first.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.lots import NewLot, insert_lot
from gateway.ledger.periods import OVERAGE_PRIORITY, begin_period
from gateway.ledger.specs import plan_from_spec
from policies.billing import Slice, period_at
from policies.periods import MONTHS

if TYPE_CHECKING:
    from gateway.ledger.database import Session
    from gateway.ledger.subscriptions import Mode, SubscriptionFacts
    from policies.billing import Period
    from policies.catalog import Plan


class Serving(NamedTuple):
    """The subscription that an account goes by, its plan here, and the period that makes."""

    facts: SubscriptionFacts
    plan: Plan
    period: Period


class ServedAccount(NamedTuple):
    """An account as it goes now; `signup_plan` is what it falls back to, None: nothing."""

    account_id: int
    platform_id: int
    plan_slug: str | None
    renewed_by: str  # clock | subscription
    payment_suspended: bool
    start_ms: int
    end_ms: int
    signup_plan: str | None
    now_ms: int


async def lock_account(session: Session, account_id: int) -> ServedAccount | None:
    """The account, for this transaction alone to change; None: there is no such."""
    record = await session.one("account_standing_lock", account_id)
    return ServedAccount(**record) if record else None


async def plan_of(session: Session, platform_id: int, slug: str | None) -> Plan | None:
    """The platform's plan of this name."""
    spec = await session.value("plan_spec", platform_id, slug)
    return None if spec is None or slug is None else plan_from_spec(slug, json.loads(spec))


def period_of(facts: SubscriptionFacts, plan: Plan, now_ms: int) -> Period | None:
    """The period that an account has by a subscription; None: Stripe has said none."""
    if facts.period_start_ms is None or facts.period_end_ms is None:
        return None
    whole = Slice(facts.period_start_ms, facts.period_end_ms)
    return period_at(plan, facts.months or MONTHS[plan.period], whole, now_ms)


async def follow(session: Session, account: ServedAccount, serving: Serving) -> None:
    """The account goes by a subscription: put it on its plan, and in its period.

    What was given ahead for a period by the clock will not come; what was paid for stays. A period
    has one lot of overage, and a plan's ends with the plan. Which period by the clock it leaves is
    noted, to fall back to.
    """
    plan, period = serving.plan.slug, serving.period
    if account.renewed_by == "clock":
        await session.value("clock_period_note", account.account_id)
        await session.value("grant_revoke_ahead", account.account_id)
    if account.renewed_by == "clock" or account.plan_slug != plan:
        await session.value("grant_end_overage_but", account.account_id, None)
    same = (account.renewed_by, account.plan_slug, account.start_ms, account.end_ms)
    if same != ("subscription", plan, period.start_ms, period.end_ms):
        await session.value("account_follow", account.account_id, plan, *period)


async def give_overage(
    session: Session, account: ServedAccount, mode: Mode, serving: Serving, *, bridge_ms: int
) -> None:
    """The room beyond its grants that a period has, once it is paid for; one lot at a time."""
    facts, plan, period = serving
    if not plan.overage_cap_microcredits or not facts.quantity:
        return
    business_key = mode.key_of_lot(f"{facts.stripe_id}:overage:{period.start_ms}:{plan.slug}")
    if await session.value("paid_lot_known", business_key) or not await session.value(
        "billing_period_paid",
        account.account_id,
        mode.livemode,
        facts.stripe_id,
        period.start_ms,
        period.end_ms,
    ):
        return
    await session.value("grant_end_overage_but", account.account_id, business_key)
    lot = NewLot(
        "overage",
        plan.overage_cap_microcredits * facts.quantity,
        OVERAGE_PRIORITY,
        min(period.start_ms, account.now_ms),
        period.end_ms + bridge_ms,
        business_key=business_key,
    )
    await insert_lot(session, account.account_id, lot)


async def fall_back(session: Session, account: ServedAccount) -> None:
    """No subscription serves any more: the signup plan, by the clock, from now on; or no plan.

    A period of that plan gives once, however often the account leaves it and comes back: until the
    one that it left is over it goes on in that, with what it still has. Then a new one begins. An
    account that went by the clock is left alone.
    """
    if account.renewed_by == "clock":
        return
    account_id, signup_plan = account.account_id, account.signup_plan
    await session.value("grant_end_overage_but", account_id, None)
    if await session.value("account_return", account_id, signup_plan) is not None:
        return
    await session.value("account_leave", account_id)
    if signup_plan is not None:
        await begin_period(session, account_id, signup_plan)


async def suspend_for_payment(session: Session, account: ServedAccount, *, suspended: bool) -> None:
    """Refuse the account's calls for want of payment, or not any more."""
    if account.payment_suspended != suspended:
        await session.value("account_payment_suspend", account.account_id, suspended)

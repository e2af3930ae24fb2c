"""What follows from all subscriptions of an account: who serves it, and what it loses unpaid.

Reads nothing but the books and the time, so it can be done at any moment, by anybody who has the
account's row; done again, it changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.ledger.billing import Notice, note_event
from gateway.ledger.serving import (
    Serving,
    fall_back,
    follow,
    give_overage,
    lock_account,
    period_of,
    plan_of,
    suspend_for_payment,
)
from gateway.ledger.subscriptions import SubscriptionRow, decide_subscriptions, subscriptions_of
from gateway.ledger.untold import note_untold
from policies import dunning
from policies.billing import ENTITLING, Contender, served
from policies.dunning import Stage, Unpaid

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.ledger.database import Session
    from gateway.ledger.serving import ServedAccount
    from gateway.stripe_sync.sync import Sync
    from policies.catalog import Plan


async def decide(sync: Sync, session: Session, account_id: int) -> None:
    """Decide by which subscription the account goes from now on, and write all of it."""
    account, mode = await lock_account(session, account_id), sync.mode
    if account is None:
        return
    before = await subscriptions_of(session, account_id, livemode=sync.livemode)
    plans = {
        slug: plan
        for slug in {row.facts.plan_slug for row in before}
        if (plan := await plan_of(session, account.platform_id, slug)) is not None
    }
    after = _decided(sync, account, before, plans)
    await decide_subscriptions(session, account_id, after, livemode=sync.livemode)
    serving = _serving(account, after, plans)
    if serving is None:
        await fall_back(session, account)
    else:
        await follow(session, account, serving)
        bridge_ms = sync.options.bridge_ms
        await give_overage(session, account, mode, serving, bridge_ms=bridge_ms)
    suspended = any(row.stage is Stage.SUSPENDED for row in after)
    await suspend_for_payment(session, account, suspended=suspended)
    for old, new in zip(before, after, strict=True):
        for notice in _notices(old, new):
            await note_event(session, mode, account_id, notice)


async def decide_account(sync: Sync, account_id: int) -> None:
    """The same in a transaction of its own, for what time alone has changed; tells Redis."""
    async with sync.ledger.transaction() as session:
        await decide(sync, session, account_id)
        await note_untold(session, account_id)
    await sync.tell(account_id)


def unpaid_in_books(row: SubscriptionRow) -> Unpaid | None:
    """What of a subscription was not paid when it was last looked at."""
    facts = row.facts
    if facts.unpaid_invoice_id is None or facts.unpaid_since_ms is None:
        return None
    return Unpaid(facts.unpaid_invoice_id, facts.failures, facts.unpaid_since_ms)


def _decided(
    sync: Sync,
    account: ServedAccount,
    rows: Sequence[SubscriptionRow],
    plans: dict[str | None, Plan],
) -> list[SubscriptionRow]:
    rules = sync.options.dunning
    stages = {
        row.facts.stripe_id: dunning.stage_at(unpaid_in_books(row), account.now_ms, rules)
        for row in rows
    }
    decision = served(
        Contender(
            row.facts.stripe_id,
            row.facts.status,
            row.facts.started_ms,
            stages[row.facts.stripe_id],
            row.facts.plan_slug in plans and row.facts.period_end_ms is not None,
        )
        for row in rows
    )
    after = []
    for row in rows:
        stripe_id = row.facts.stripe_id
        after.append(
            row._replace(
                serves=stripe_id == decision.by,
                superseded_by=decision.by if stripe_id in decision.superseded else None,
                stage=dunning.with_another(stages[stripe_id], is_served=decision.by is not None),
            )
        )
    return after


def _serving(
    account: ServedAccount, rows: Sequence[SubscriptionRow], plans: dict[str | None, Plan]
) -> Serving | None:
    row = next((row for row in rows if row.serves), None)
    if row is None:
        return None
    plan = plans[row.facts.plan_slug]
    period = period_of(row.facts, plan, account.now_ms)
    return None if period is None else Serving(row.facts, plan, period)


def _notices(old: SubscriptionRow, new: SubscriptionRow) -> Iterator[Notice]:
    """What the account is to be told of a subscription that has changed so."""
    facts = new.facts
    detail: dict[str, object] = {"subscription": facts.stripe_id, "plan": facts.plan_slug}
    unpaid = {**detail, "invoice": facts.unpaid_invoice_id}
    if new.superseded_by and new.superseded_by != old.superseded_by:
        about = (facts.stripe_id, new.superseded_by)
        yield Notice("subscription_superseded", about, {**detail, "by": new.superseded_by})
    if old.serves and facts.status not in ENTITLING:
        ended = (facts.stripe_id, facts.period_end_ms)
        yield Notice("subscription_ended", ended, {**detail, "status": facts.status})
    for stage in dunning.told(old.stage, new.stage):
        tried = {"failures": facts.failures, "unpaid_since_ms": facts.unpaid_since_ms}
        yield Notice(dunning.EVENTS[stage], (facts.unpaid_invoice_id,), {**unpaid, **tried})
    if old.stage is not Stage.NONE and facts.unpaid_since_ms is None:
        yield Notice(dunning.RECOVERED, (facts.unpaid_invoice_id,), unpaid)

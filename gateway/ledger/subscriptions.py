"""Subscriptions as the books keep them, and whose Stripe's customers are.

Functions take a `Session`: whoever works on a customer's objects has one, in whose transaction all
that follows from them is written. What only looks is in the class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.ledger.database import Database, Session, rows
from policies.dunning import Stage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOME_MAX = 1_000
# So business keys of what Stripe's objects gave begin; grant_revoke_ahead.sql leaves these alone.
STRIPE_LOTS = "stripe:"


class Mode(NamedTuple):
    """A platform's Stripe in one mode: what ids of Stripe's are unique in."""

    platform_id: int
    livemode: bool

    def key_of_lot(self, given: str) -> str:
        """The business key of a lot, by what of Stripe's it was given for."""
        return f"{STRIPE_LOTS}{int(self.livemode)}:{given}"


class SubscriptionFacts(NamedTuple):
    """A subscription as Stripe has it. Times are ms; None: there is no such time.

    `plan_slug` None: what it pays for is no plan here. `discount_minor`: what lasting coupons take
    off of `unit_amount` x `quantity`. `next_…`: what a schedule changes it to.
    `unpaid_…` and `failures` are of the oldest invoice that fell due and is not paid.
    """

    stripe_id: str
    customer_id: str
    status: str
    plan_slug: str | None
    product_id: str | None
    price_id: str | None
    item_id: str | None
    quantity: int
    currency: str | None
    unit_amount: int | None
    months: int | None
    discount_minor: int
    period_start_ms: int | None
    period_end_ms: int | None
    trial_end_ms: int | None
    cancel_ms: int | None
    canceled_ms: int | None
    started_ms: int
    ended_ms: int | None
    collection_paused: bool
    schedule_id: str | None = None
    next_plan_slug: str | None = None
    next_price_id: str | None = None
    next_quantity: int | None = None
    next_months: int | None = None
    next_unit_amount: int | None = None
    next_ms: int | None = None
    unpaid_invoice_id: str | None = None
    unpaid_since_ms: int | None = None
    failures: int = 0


class SubscriptionRow(NamedTuple):
    """The same, and what follows from it."""

    facts: SubscriptionFacts
    serves: bool
    superseded_by: str | None
    stage: Stage


class UnpaidRow(NamedTuple):
    """A subscription that is not paid for, and the stage that it was last seen at.

    `is_served`: another one serves its account, or still it.
    """

    id: int
    stripe_id: str
    unpaid_invoice_id: str
    unpaid_since_ms: int
    failures: int
    dunning_stage: str
    is_served: bool
    now_ms: int


class SupersededRow(NamedTuple):
    """A live subscription whose account has a newer one."""

    stripe_id: str
    now_ms: int


class OverRow(NamedTuple):
    """An account whose period is over, and the subscription that renews it.

    `is_over`: so is the subscription's own; `is_stale`: for so long that something was missed.
    """

    account_id: int
    stripe_id: str
    is_over: bool
    is_stale: bool


class Subscriptions(Database):
    """Subscriptions, to look at."""

    async def subscriptions(self, account_id: int, *, livemode: bool) -> list[SubscriptionRow]:
        """Every subscription that an account ever had in a mode, newest first."""
        return await subscriptions_of(self._session, account_id, livemode=livemode)

    async def customer_of_account(self, mode: Mode, account_id: int) -> str | None:
        """The customer that an account is now."""
        return await find_customer(self._session, mode, account_id)

    async def unpaid_subscriptions(self, mode: Mode, after: int = 0) -> list[UnpaidRow]:
        """Those that are not paid for, some at a time, by id."""
        return rows(
            UnpaidRow, await self._session.all("subscription_unpaid", *mode, after, SOME_MAX)
        )

    async def superseded_subscriptions(
        self, mode: Mode, account_id: int | None = None
    ) -> list[SupersededRow]:
        """Those, of an account or of all, whose place another has taken and that are live; some."""
        found = await self._session.all("subscription_superseded", *mode, SOME_MAX, account_id)
        return rows(SupersededRow, found)

    async def subscribed_periods_over(self, mode: Mode, *, stale_ms: int) -> list[OverRow]:
        """Accounts of subscriptions whose period is over, longest first; some."""
        return rows(
            OverRow, await self._session.all("subscription_over", *mode, stale_ms, SOME_MAX)
        )


async def lock_objects(session: Session, mode: Mode, name: str) -> None:
    """Wait until nobody else works on a customer's objects, or what else has a name, and do."""
    await session.value("billing_lock", *mode, name)


async def find_customer(session: Session, mode: Mode, account_id: int) -> str | None:
    """The customer that an account is now."""
    found = await session.value("customer_find", *mode, account_id)
    return None if found is None else str(found)


async def count_customers(session: Session, mode: Mode, account_id: int) -> int:
    """How many customers an account has been, those that were deleted too."""
    return int(await session.value("customer_count", *mode, account_id))


async def has_account(session: Session, platform_id: int, account_id: int) -> bool:
    """Whether a platform has this account."""
    return bool(await session.value("account_exists", platform_id, account_id))


async def account_of_customer(session: Session, mode: Mode, customer_id: str) -> int | None:
    """Whose the customer is, also one that was deleted."""
    found = await session.value("customer_account", *mode, customer_id)
    return None if found is None else int(found)


async def save_customer(session: Session, mode: Mode, customer_id: str, account_id: int) -> bool:
    """The customer is this account's from now on; False: nothing was changed.

    It is somebody's already, the account is another customer, or the platform has none such.
    """
    found = await session.value("customer_insert", *mode, customer_id, account_id)
    return found is not None


async def delete_customer(session: Session, mode: Mode, customer_id: str) -> None:
    """The customer is gone at Stripe."""
    await session.value("customer_delete", *mode, customer_id)


async def save_subscription(
    session: Session, mode: Mode, account_id: int, facts: SubscriptionFacts
) -> int:
    """Write a subscription as it is now; whose it is: a known one stays its account's."""
    found = await session.value("subscription_save", *mode, facts.stripe_id, account_id, *facts[1:])
    return int(found)


async def find_subscription(
    session: Session, mode: Mode, stripe_id: str
) -> Mapping[str, Any] | None:
    """Whose a subscription is that the books know: account_id, customer_id."""
    record = await session.one("subscription_account", *mode, stripe_id)
    return dict(record) if record else None


async def subscriptions_of(
    session: Session, account_id: int, *, livemode: bool
) -> list[SubscriptionRow]:
    """Every subscription that an account ever had in a mode, newest first."""
    found = []
    for record in await session.all("subscription_list", account_id, livemode):
        *facts, serves, superseded_by, stage = record.values()
        row = SubscriptionRow(SubscriptionFacts(*facts), serves, superseded_by, Stage(stage))
        found.append(row)
    return found


async def decide_subscriptions(
    session: Session, account_id: int, decided: Sequence[SubscriptionRow], *, livemode: bool
) -> None:
    """Write what follows from all subscriptions of an account for each of them."""
    serving = next((row.facts.stripe_id for row in decided if row.serves), None)
    await session.value("subscription_step_down", account_id, livemode, serving)
    for row in decided:
        await session.value(
            "subscription_decide",
            account_id,
            livemode,
            row.facts.stripe_id,
            row.serves,
            row.superseded_by,
            row.stage.value,
        )

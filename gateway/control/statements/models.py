"""Statements as the API writes them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.control.api.fields import Credits, Id, Model, Moment, SignedCredits
from gateway.control.api.money import Amount, Currency, LineKind
from gateway.control.transactions.models import Transaction


class RouteUse(Model):
    """What was called of a route."""

    route_id: Id
    route: str | None = Field(description="null: it is gone.")
    calls: int
    calls_completed: int
    charged_credits: Credits


class GivenCredits(Model):
    """What was given, by where it came from; and what became of it since, but for its calls."""

    source: Literal["plan", "pack", "trial", "coupon", "manual", "rollover", "refund"]
    credits: Credits
    credited_credits: Credits = Field(description="Added since, or given back by calls.")
    taken_credits: Credits = Field(
        description="Taken away, as when a payment goes back, or for what was owed before."
    )
    expired_credits: Credits = Field(description="Unused.")


class OverageUse(Model):
    """What a billing period, which the month touches, used beyond its grants."""

    from_: Moment = Field(serialization_alias="from")
    until: Moment | None
    used_credits: SignedCredits
    currency: Currency | None = Field(description="null: nothing was charged for it so far.")
    amount: Amount | None


class LineSum(Model):
    """What was paid for a plan, a pack or overage; without tax."""

    currency: Currency
    kind: LineKind
    slug: str
    quantity: int = Field(
        description="Bought, less what was given back by a change within a period."
    )
    amount: Amount


class MoneySum(Model):
    """All payments of the month in one currency."""

    currency: Currency
    paid: Amount = Field(description="With tax.")
    tax: Amount
    refunded: Amount = Field(description="Paid back of these payments, whenever it was.")
    open: Amount = Field(description="Not paid yet.")


class Statement(Model):
    """A month of an account, made from the books. It is no tax document: Stripe's invoices are."""

    account_id: Id
    account: str
    month: str
    from_: Moment = Field(serialization_alias="from")
    until: Moment
    final: bool = Field(description="The month is over. Refunds may still change it.")
    plan: str | None = Field(
        description="The account's plan, now; null when it has none, and for a month that is over."
    )
    calls: int
    charged_credits: Credits
    routes: list[RouteUse]
    given: list[GivenCredits]
    overage: list[OverageUse]
    lines: list[LineSum]
    totals: list[MoneySum]
    payments: list[Transaction]

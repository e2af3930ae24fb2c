"""Payments as the API writes them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.control.api.fields import Credits, Id, Model, Moment, Page, PageQuery
from gateway.control.api.money import Amount, Currency, LineKind, Mode

Status = Literal["pending", "processing", "succeeded", "failed", "refunded", "cancelled"]
Kind = Literal["subscription", "renewal", "change", "pack", "overage", "other"]


class Transaction(Model):
    """An invoice or a Checkout session: what somebody owes, pays or paid."""

    id: Id
    account_id: Id
    mode: Mode
    kind: Kind
    status: Status
    currency: Currency
    amount: Amount = Field(description="With tax.")
    tax: Amount
    refunded: Amount = Field(description="Paid back of it.")
    disputed: Amount = Field(description="Of disputes that are open or lost.")
    created_at: Moment
    paid_at: Moment | None
    failure: str | None = Field(description="Why it was not paid, in Stripe's words.")
    invoice_id: str | None
    checkout_session_id: str | None
    payment_intent_id: str | None
    charge_id: str | None
    subscription_id: str | None


class Transactions(Page[Transaction]):
    """A part of the payments. It may be short, or empty, and still go on."""


class Line(Model):
    """What a payment was for."""

    kind: LineKind
    slug: str = Field(description="Of the plan or pack; empty for others.")
    quantity: int
    amount: Amount = Field(description="After discounts, without tax; below 0: given back.")
    proration: bool = Field(description="Of a change within a period.")
    period_start: Moment | None
    period_end: Moment | None


class GrantGiven(Model):
    """Credits that it gave."""

    grant_id: Id
    credits: Credits


class TransactionWithLines(Transaction):
    """A payment with what it was for, and what it gave."""

    lines: list[Line]
    grants: list[GrantGiven]
    taken_back_credits: Credits = Field(
        description="Of what it gave, gone with the money that went back: taken, owed where it was "
        "spent, or expired unused before."
    )


class MyTransactionsQuery(PageQuery):
    """Which of an account's own payments."""

    status: Status | None = None
    kind: Kind | None = None
    currency: Currency | None = None
    mode: Mode | None = None
    from_: Moment | None = Field(default=None, alias="from", description="Due since.")
    until: Moment | None = Field(default=None, description="Due before.")


class TransactionsQuery(MyTransactionsQuery):
    """Which payments of a platform."""

    account_id: Id | None = None

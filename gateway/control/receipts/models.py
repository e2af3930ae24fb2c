"""Receipts as the API writes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gateway.control.api.fields import Credits, Id, Model, Moment, SignedCredits
from gateway.control.settlements.models import Settlement


class Posting(Model):
    """What the call moved in one grant; what the grant paid is below 0."""

    kind: Literal["settle", "late", "refund", "grant"]
    grant_id: Id
    source: str | None
    credits: SignedCredits
    at: Moment
    note: str


class ReceiptKey(Model):
    """The API key that called, as lists show it."""

    id: Id
    name: str | None
    shown: str | None


class Receipt(Model):
    """A call, who paid for it, by which price, and what came back."""

    call: Settlement
    account: str | None
    route: str | None
    key: ReceiptKey
    price: dict[str, Any] | None = Field(
        description="The version that it was sold at, as it is stored; null: it was free."
    )
    postings: list[Posting]
    charged_credits: Credits
    corrected_credits: SignedCredits = Field(description="What came later; below 0: less.")
    refunded_credits: Credits
    net_credits: SignedCredits = Field(description="What the call costs after all that.")

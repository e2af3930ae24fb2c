"""What is done about invoices whose payment failed: settings, which tests change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(slots=True)
class Dunning:
    """When a failed invoice is tried again: days after the try before, until none is left."""

    retry_days: Sequence[int] = (3, 5, 7)
    # What becomes of the subscription after the last try.
    then: Literal["canceled", "unpaid", "past_due"] = "canceled"

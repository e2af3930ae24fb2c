"""Time moves every subscription, whatever is wrong with another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.jobs.dunning import look_at_platform
from gateway.ledger import LedgerUnavailable
from gateway.ledger.subscriptions import Mode
from gateway.stripe_sync.errors import StripeRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable

    Look = Callable[[Exception], Any]


class Books:
    """Books of two subscriptions whose periods have been over for long."""

    async def unpaid_subscriptions(self, *_: object) -> list[Any]:
        """None."""
        return []

    async def subscribed_periods_over(self, *_: object, **__: object) -> list[Any]:
        """Both, in their order."""
        return [SimpleNamespace(stripe_id=name, is_stale=True) for name in ("sub_1", "sub_2")]


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    """A round, in which looking at the first subscription fails; answers which were looked at."""

    async def looked(failure: Exception) -> list[str]:
        seen = []

        async def see_to(_sync: object, stripe_id: str) -> None:
            seen.append(stripe_id)
            if stripe_id == "sub_1":
                raise failure

        async def nothing(_sync: object) -> None:
            seen.append("superseded")

        monkeypatch.setattr("gateway.jobs.dunning.see_to_subscription", see_to)
        monkeypatch.setattr("gateway.jobs.dunning.cancel_superseded", nothing)
        sync: Any = SimpleNamespace(mode=Mode(1, livemode=False), ledger=Books())
        await look_at_platform(sync)
        return seen

    return looked


@pytest.mark.parametrize("failure", [StripeRefusedError("no"), KeyError("items")], ids=repr)
async def test_a_subscription_that_can_not_be_seen_to_keeps_no_other_from_it(
    look: Look, failure: Exception
) -> None:
    assert await look(failure) == ["sub_1", "sub_2", "superseded"]


async def test_without_postgres_the_round_ends(look: Look) -> None:
    with pytest.raises(LedgerUnavailable):
        await look(LedgerUnavailable("Postgres is away"))

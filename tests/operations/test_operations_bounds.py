"""Limits and caps of keys: the very next call follows, and what was spent before counts."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.operations.bounds import change_bounds
from gateway.operations.errors import UsageError
from gateway.operations.keys import KeyChanges, change_key, create_key, rotate_key
from gateway.operations.publish import facts_of
from policies.catalog import Caps, Limits
from policies.decision import (
    Admitted,
    ConcurrencyLimited,
    QuotaExceeded,
    RateLimited,
    SpendCapReached,
)
from policies.limits import CAPS
from tests.support.deployment import CREDIT, Caller, Deployment
from tests.support.keys import key_of

if TYPE_CHECKING:
    from gateway.ledger import KeyListRow


async def limit(deployment: Deployment, caller: Caller, **changes: int | None) -> KeyListRow:
    return await change_key(
        deployment.ledger,
        deployment.counters,
        deployment.platform_id,
        caller.key_id,
        KeyChanges(bounds=changes),
    )


@pytest.mark.parametrize("loaded", [True, False])
async def test_a_key_is_made_with_limits_that_hold_for_it_alone(
    deployment: Deployment, loaded: bool
) -> None:
    caller = await deployment.caller()
    if loaded:
        await deployment.call(caller)
    key = await create_key(
        deployment.ledger,
        deployment.counters,
        caller.account,
        deployment.maker,
        limits=Limits(requests_per_month=1),
        caps=Caps(total=2 * CREDIT),
    )
    capped = await deployment.admit(caller, 3 * CREDIT, key_id=key.key_id)
    assert capped == SpendCapReached("key", "total", 2 * CREDIT, 0, 0)
    assert isinstance(await deployment.admit(caller, key_id=key.key_id), Admitted)
    assert isinstance(await deployment.admit(caller, key_id=key.key_id), QuotaExceeded)
    assert isinstance(await deployment.admit(caller, 3 * CREDIT), Admitted)
    listed = await key_of(deployment.ledger, deployment.platform_id, key.key_id)
    assert (listed.limits.requests_per_month, listed.caps.total) == (1, 2 * CREDIT)


@pytest.mark.parametrize(
    ("changes", "outcome"),
    [
        ({"requests_per_second": 1, "burst": 1}, RateLimited),
        ({"requests_per_minute": 1}, RateLimited),
        ({"concurrency": 1}, ConcurrencyLimited),
        ({"requests_per_month": 1}, QuotaExceeded),
        ({"day": CREDIT}, SpendCapReached),
    ],
)
async def test_a_limit_is_followed_by_the_next_calls_until_it_is_taken_away(
    deployment: Deployment, changes: dict[str, int], outcome: type
) -> None:
    caller = await deployment.caller()
    await limit(deployment, caller, **changes)
    both = await asyncio.gather(*(deployment.admit(caller) for _ in range(2)))  # within a second
    (refused,) = [decision for decision in both if not isinstance(decision, Admitted)]
    assert isinstance(refused, outcome)
    assert "key" in refused  # type: ignore[operator]
    cleared = await limit(deployment, caller, **dict.fromkeys(changes, 0))
    assert (cleared.limits, cleared.caps) == (Limits(), Caps())
    assert isinstance(await deployment.admit(caller), Admitted)


async def test_a_new_cap_counts_what_its_window_has_seen_before(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await deployment.call(caller, 3 * CREDIT)
    await deployment.carry()
    await limit(deployment, caller, day=4 * CREDIT, total=10 * CREDIT)
    refused = await deployment.admit(caller, 2 * CREDIT)
    assert isinstance(refused, SpendCapReached)
    assert (refused.window, refused.spent) == ("day", 3 * CREDIT)
    assert isinstance(await deployment.admit(caller, CREDIT), Admitted)


async def test_what_is_not_named_stays_as_it_is(deployment: Deployment) -> None:
    caller = await deployment.caller()
    await limit(deployment, caller, requests_per_second=5, burst=9, session=CREDIT)
    key = await limit(deployment, caller, requests_per_second=None, burst=0, month=CREDIT)
    assert key.limits == Limits(requests_per_second=5)
    assert key.caps == Caps(month=CREDIT, session=CREDIT)
    assert await key_of(deployment.ledger, deployment.platform_id, caller.key_id) == key


async def test_a_rotated_keys_successor_has_its_limits(deployment: Deployment) -> None:
    caller = await deployment.caller()
    old = await limit(deployment, caller, concurrency=1, day=CREDIT)
    new = await rotate_key(
        deployment.ledger, deployment.counters, caller.account, old, deployment.maker
    )
    listed = await key_of(deployment.ledger, deployment.platform_id, new.key_id)
    assert (listed.limits, listed.caps) == (Limits(concurrency=1), Caps(day=CREDIT))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"burst": 5}, "burst is of no use without"),
        ({"requests_per_minute": -1}, "requests_per_minute is from 0"),
        ({"requests_per_second": 1_000_001}, "is from 0 .none. to 1000000"),
        ({"day": 2**53}, "day is from 0"),
        ({"day": 2, "total": 1}, "day is above total"),
    ],
)
def test_limits_that_cannot_be_meant_are_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        change_bounds(Limits(), Caps(), changes)


def test_what_is_told_of_an_account_moves_no_credits() -> None:
    counters = {f"{scope}.{kind}": "0:1" for scope in ("A", "K5", "R7") for kind in (*CAPS, "qm")}
    counters["u:7:image_4k"] = "1790812800000:25"
    facts = {"status": "active", "rpm": 1, "rpmonth": 2, "conc": 3, "rules": "", "k:5": "0 cc:1"}
    credits_ = {"a:1": 5, "s:1": 0, "w:1": 0, "e:1": 0, "f:1": 0, "lots": "1", "count": 4, "h:1": 1}
    assert facts_of(facts | credits_ | counters) == facts | counters

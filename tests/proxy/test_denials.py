"""Every denial by the admit script becomes the contract's status, code and facts."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import refusal_of
from policies.decision import (
    AccountSuspended,
    AlreadySettled,
    ConcurrencyLimited,
    InsufficientCredits,
    KeyRefused,
    QuotaExceeded,
    RateLimited,
    SpendCapReached,
)


@pytest.mark.parametrize(
    ("denial", "status", "code", "facts", "retry_after_s"),
    [
        (KeyRefused(), 401, "unauthenticated", {}, None),
        (AccountSuspended(), 403, "forbidden", {}, None),
        (
            RateLimited(5, 1_001, "key"),
            429,
            "rate_limited",
            {"limit": 5, "limit_source": "key"},
            2,
        ),
        (
            QuotaExceeded(9, 3_600_000, "route"),
            429,
            "quota_exceeded",
            {"limit": 9, "limit_source": "route"},
            3_600,
        ),
        (
            ConcurrencyLimited(3, "account"),
            429,
            "concurrency_limited",
            {"limit": 3, "limit_source": "account"},
            1,
        ),
        (
            SpendCapReached("session", "session", 2_500_000, 2_000_001, 0),
            402,
            "spend_cap_reached",
            {
                "limit_source": "session",
                "window": "session",
                "limit": "2.5",
                "spent": "2.000001",
            },
            None,
        ),
        (
            SpendCapReached("key", "day", 5_000_000, 5_000_000, 1),
            402,
            "spend_cap_reached",
            {"limit_source": "key", "window": "day", "limit": "5", "spent": "5"},
            1,
        ),
        (
            InsufficientCredits(2_000_000, 500_000, 0),
            402,
            "insufficient_credits",
            {"needed": "2", "available": "0.5", "upgrade_url": "https://a.example/up"},
            None,
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, tuple) else None,
)
def test_a_denial_says_whose_limit_it_is_and_whether_waiting_helps(
    denial: Any, status: int, code: str, facts: dict[str, Any], retry_after_s: int | None
) -> None:
    refusal = refusal_of(denial, "https://a.example/up")
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.facts == facts
    assert refusal.retry_after_s == retry_after_s


@pytest.mark.parametrize("source", ["account", "key", "route"])
@pytest.mark.parametrize("window", ["day", "month", "total"])
def test_a_cap_is_told_in_a_sentence(source: str, window: str) -> None:
    detail = refusal_of(SpendCapReached(source, window, 10**6, 10**6, 0), None).detail
    assert "1 credits" in detail
    assert source in detail


def test_what_is_no_denial_is_a_mistake_of_ours() -> None:
    with pytest.raises(TypeError):
        refusal_of(AlreadySettled(), None)

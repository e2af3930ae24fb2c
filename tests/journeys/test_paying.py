"""Somebody pays, from sign-up to the end of a subscription, on a clock that moves by months.

Real processes all the way. After each step what calls can take is known to the credit, in Redis and
in Postgres.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.paying import Paying

MONTHS = 12


async def test_from_sign_up_to_the_end_of_a_subscription(paying: Paying) -> None:
    pat = await paying.sign_up("pat")
    assert await paying.standing(pat) == ("free", "clock", False)
    await paying.has(pat, 10 + 50)  # the plan's, and what new accounts may try
    assert await paying.call(pat, 4) == {200}
    await paying.has(pat, 10 + 46)

    await paying.subscribe(pat, "pro")
    assert await paying.standing(pat) == ("pro", "subscription", False)
    assert (await paying.subscription(pat))["status"] == "trialing"
    await paying.has(pat, 10 + 46 + 100)
    assert await paying.call(pat, 6) == {200}
    await paying.has(pat, 10 + 40 + 100)

    # Both trials are over, and the first month is paid for.
    await paying.advance(days=6)
    assert (await paying.subscription(pat))["status"] == "active"
    await paying.has(pat, 10 + 1_000)
    assert await paying.call(pat, 25) == {200}  # what ends first pays first
    await paying.has(pat, 985)

    await paying.advance_past_renewal(pat)
    await paying.has(pat, 1_000)
    assert await paying.call(pat, 100) == {200}
    await paying.has(pat, 900)

    assert (await paying.change(pat, "max"))["result"] == "done"
    assert await paying.standing(pat) == ("max", "subscription", False)
    await paying.has(pat, 900 + 4_000)
    assert await paying.call(pat, 100) == {200}
    await paying.has(pat, 4_800)

    assert (await paying.change(pat, "pro"))["result"] == "scheduled"
    assert (await paying.subscription(pat))["scheduled_change"]["plan"] == "pro"
    assert await paying.standing(pat) == ("max", "subscription", False)
    await paying.has(pat, 4_800)
    await paying.advance_past_renewal(pat)
    assert await paying.standing(pat) == ("pro", "subscription", False)
    await paying.has(pat, 1_000)

    ending = await paying.own(pat, "POST", "/v1/me/subscription/cancel")
    assert ending["effective_until"] == ending["subscription"]["cancel_at"]
    assert await paying.standing(pat) == ("pro", "subscription", False)
    assert await paying.call(pat, 50) == {200}
    await paying.has(pat, 950)

    await paying.advance_past(ending["effective_until"])
    assert await paying.standing(pat) == ("free", "clock", False)
    await paying.has(pat, 10)
    assert await paying.call(pat, 7) == {200}
    await paying.has(pat, 3)
    await paying.advance(days=32)
    await paying.has(pat, 10)
    paid = await paying.paid(pat)
    change = paid.pop(3)
    assert paid == [0, 2_000, 2_000, 2_000]
    assert 6_900 < change <= 7_000  # for nearly a month
    await paying.audit()


async def test_a_year_in_a_minute(paying: Paying) -> None:
    kim = await paying.sign_up("kim")
    await paying.subscribe(kim, "max")
    await paying.has(kim, 10 + 50 + 5_000)
    for month in range(1, MONTHS + 1):
        await paying.advance_past_renewal(kim)
        await paying.has(kim, 5_000)
        assert await paying.call(kim, month) == {200}
        await paying.has(kim, 5_000 - month)
        assert await paying.standing(kim) == ("max", "subscription", False)
    assert await paying.paid(kim) == [9_000] * (MONTHS + 1)
    await paying.audit()

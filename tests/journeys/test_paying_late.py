"""Somebody does not pay: stage by stage what that costs, and that all of it comes again."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.support.paying import Account, Paying


async def test_from_a_failed_payment_to_the_suspension_and_back(paying: Paying) -> None:
    pat = await paying.sign_up("pat")
    session = await paying.subscribe(pat, "max")
    await paying.has(pat, 10 + 50 + 5_000)
    assert await paying.call(pat) == {200}
    paying.fake.dunning.then = "past_due"
    paying.fake.set_card(session["customer"], "fails")

    await paying.advance_past_renewal(pat)
    assert await stage(paying, pat) == "failed"
    assert await paying.standing(pat) == ("max", "subscription", False)
    # What was paid for is over, and nothing new was: calls are refused, the plan stays.
    await paying.has(pat, 0)
    assert await paying.call(pat) == {402}

    await paying.advance(days=4)
    assert await stage(paying, pat) == "notified"
    assert await paying.standing(pat) == ("max", "subscription", False)
    await paying.has(pat, 0)

    await paying.advance(days=4)
    await paying.reaches(pat, "downgraded")
    assert await paying.standing(pat) == ("free", "clock", False)
    await paying.has(pat, 10)
    assert await paying.call(pat, 3) == {200}
    await paying.has(pat, 7)

    await paying.advance(days=6)
    await paying.reaches(pat, "suspended")
    assert await paying.standing(pat) == ("free", "clock", True)
    assert await paying.call(pat) == {403}
    await paying.has(pat, 7)

    paying.fake.set_card(session["customer"], "works")
    (invoice,) = [one for one in paying.fake.store.all("invoice") if one["status"] == "open"]
    await paying.shop.v1.invoices.pay_async(invoice["id"])
    await paying.settled()
    assert await stage(paying, pat) is None
    assert await paying.standing(pat) == ("max", "subscription", False)
    await paying.has(pat, 7 + 5_000)
    assert await paying.call(pat, 8) == {200}
    await paying.has(pat, 4_999)
    assert await paying.told(pat) == [
        "payment_failed",
        "payment_overdue",
        "plan_downgraded",
        "account_suspended",
        "payment_recovered",
    ]
    await paying.audit()


async def stage(paying: Paying, account: Account) -> str | None:
    problem = (await paying.subscription(account))["payment_problem"]
    return problem and problem["stage"]

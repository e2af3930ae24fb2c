"""Packs are bought, and money goes back: what was not spent is taken, what was is owed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.support.paying import Paying


async def test_packs_outlive_plans_and_end_on_their_day(paying: Paying) -> None:
    pat = await paying.sign_up("pat")
    await paying.buy_pack(pat, 2)
    await paying.has(pat, 10 + 50 + 600)
    assert await paying.call(pat, 80) == {200}  # what ends first pays first
    await paying.has(pat, 580)
    await paying.subscribe(pat, "max")
    await paying.has(pat, 580 + 5_000)
    await paying.advance_past_renewal(pat)
    await paying.has(pat, 580 + 5_000)
    await paying.advance_past_renewal(pat)
    assert await paying.call(pat, 5) == {200}
    await paying.has(pat, 580 + 4_995)
    await paying.advance(days=27)
    await paying.advance_past_renewal(pat)
    await paying.has(pat, 5_000)
    assert await paying.paid(pat) == [3_000, *[9_000] * 4]
    await paying.audit()


async def test_a_refund_after_spending_leaves_a_debt_that_the_next_grant_pays(
    paying: Paying,
) -> None:
    kim = await paying.sign_up("kim")
    session = await paying.buy_pack(kim)
    await paying.has(kim, 10 + 50 + 300)
    assert await paying.call(kim, 100) == {200}
    await paying.has(kim, 260)

    await refund(paying, session)
    await paying.has(kim, 0)
    assert await paying.owed(kim) == "40"
    assert await paying.call(kim) == {402}

    again = await paying.buy_pack(kim)
    await paying.has(kim, 300 - 40)
    assert await paying.owed(kim) == "0"

    # Refunds in parts come to as much as one of their sum.
    await refund(paying, again, 500)
    await paying.has(kim, 260 - 100)
    await refund(paying, again, 1)
    await paying.has(kim, "159.8")
    await paying.audit()


async def test_a_dispute_takes_credits_until_it_is_won_and_for_good_when_it_is_lost(
    paying: Paying,
) -> None:
    sam = await paying.sign_up("sam")
    charge = await paying.shop.charge_of(await paying.buy_pack(sam))
    await paying.has(sam, 360)  # nothing of Redis was ever used for this account
    dispute = paying.fake.dispute(charge)
    await paying.settled()
    await paying.has(sam, 60)
    paying.fake.close_dispute(dispute["id"], "won")
    await paying.settled()
    await paying.has(sam, 360)

    charge = await paying.shop.charge_of(await paying.buy_pack(sam))
    assert await paying.call(sam, 50) == {200}
    await paying.has(sam, 610)
    dispute = paying.fake.dispute(charge)
    await paying.settled()
    await paying.has(sam, 310)
    paying.fake.close_dispute(dispute["id"], "lost")
    await paying.settled()
    await paying.has(sam, 310)
    assert await paying.owed(sam) == "0"
    await paying.audit()


async def refund(paying: Paying, session: Any, amount: int | None = None) -> None:
    params: dict[str, Any] = {"charge": await paying.shop.charge_of(session)}
    if amount is not None:
        params["amount"] = amount
    await paying.shop.v1.refunds.create_async(params)
    await paying.settled()

"""The gateway is killed in the middle of many payments: afterwards each is booked, once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.paying import Account, Paying

BUYERS = 6
# How many more events are done before the next death.
DEATHS_AFTER = (3, 9, 6)


async def test_the_gateway_killed_amid_a_burst_of_events_books_each_payment_once(
    paying: Paying,
) -> None:
    buyers = [await paying.sign_up(f"buyer {number}") for number in range(BUYERS)]
    for buyer in buyers:
        assert await paying.call(buyer) == {200}
    paying.fake.set_delivery_mode("held")
    for buyer in buyers:
        await order(paying, buyer)
    for number, after in enumerate(DEATHS_AFTER):
        # All there is comes one after the other, and so it does again after each death.
        sending = asyncio.create_task(paying.deliver_all(number))
        await dies_after(paying, sending, after)
        await paying.start()
    paying.fake.set_delivery_mode("at once")
    await paying.deliver_all(len(DEATHS_AFTER))
    await paying.settled()

    for buyer in buyers:
        await paying.has(buyer, 10 + 49 + 5_000 + 300)
        assert sorted(await paying.paid(buyer)) == [1_500, 9_000]
        assert await paying.standing(buyer) == ("max", "subscription", False)
    await paying.audit()


async def order(paying: Paying, buyer: Account) -> None:
    """A subscription and a pack, paid for; nothing of it is heard yet."""
    wish = {"plan": "max"}
    page = await paying.own(buyer, "POST", "/v1/subscribe", wish)
    paying.fake.complete_checkout(page["session_id"])
    page = await paying.own(buyer, "POST", "/v1/me/packs", {"pack": "small"})
    paying.fake.complete_checkout(page["session_id"])


async def dies_after(paying: Paying, sending: asyncio.Task[None], events: int) -> None:
    """Kill the gateway as soon as so many more events are done, while others are on their way."""
    done = "SELECT count(*) FROM stripe_events WHERE status = 'done'"
    before = await paying.sql(done)

    async def enough() -> bool:
        return bool(await paying.sql(done) >= before + events)

    await eventually(enough)
    await paying.kill()
    await sending

"""What a hold covers of a stream: no stream ends that was paid for, none goes on that was not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from gateway.counters import Counters, CountersUnavailable
from policies.catalog import MeterSpec, OnMissing, Price, Source
from policies.decision import HoldGone, InsufficientCredits
from tests.proxy.test_exhausted import EVENT, SSE, UNIT, chunk, endless, served
from tests.support.gateway import CREDIT
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from tests.support.nasty_upstream import Conversation

END = b"0\r\n\r\n"


def unit(**changes: object) -> MeterSpec:
    fields = {name: getattr(UNIT, name) for name in UNIT.__slots__}
    return MeterSpec(**{**fields, **changes})


def streaming(events: int, last: bytes = b"", head: bytes = SSE, event: bytes = EVENT) -> object:
    """An agent that sends so many events, each by itself, and a last one."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(head)
        for _ in range(events):
            await talk.send(chunk(event))
            await asyncio.sleep(0.001)
        await talk.send((chunk(last) if last else b"") + END)

    return script


@pytest.mark.parametrize(
    ("price", "microcredits"),
    [
        # 120 units are held for, of which 100 cost nothing.
        (Price(meters=(unit(included_units=100, reserve_units=120),)), 20_000),
        # The minimum is more than all of them cost.
        (Price(meters=(unit(reserve_units=20),), minimum_microcredits=200_000), 200_000),
        # The dearer of two meters is the one that counts here.
        (
            Price(
                meters=(
                    unit(reserve_units=100),
                    unit(
                        unit="other",
                        sources=(Source("response.sse", "/others"),),
                        reserve_units=1,
                        estimate_from=Source("response.sse.count", "/others"),
                    ),
                )
            ),
            101_000,
        ),
    ],
    ids=["included", "minimum", "unlike meters"],
)
async def test_what_the_hold_pays_for_passes_though_there_are_no_other_credits(
    clean_redis_url: str, postgres_url: str, price: Price, microcredits: int
) -> None:
    async with served(clean_redis_url, postgres_url, streaming(30), microcredits, price=price) as (
        gateway,
        _,
    ):
        reply = await gateway.call()
        assert reply.body.count(EVENT) == 30  # 90 units
        assert (await gateway.settlement()).ending == "completed"


async def test_an_answer_that_is_no_stream_is_not_ended_by_a_guess(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Four bytes are a unit for want of better, when a cut answer has to be charged."""
    meter = MeterSpec("image", (Source("response.json", "/images"),), 10**12, reserve_units=4)
    pieces = [b'{"data": "'] + [b"x" * 1_000] * 50 + [b'", "images": 2}']

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE.replace(b"text/event-stream", b"application/json"))
        for piece in pieces:
            await talk.send(chunk(piece))
            await asyncio.sleep(0.001)
        await talk.send(END)

    async with served(
        clean_redis_url, postgres_url, script, 5 * CREDIT, price=Price(meters=(meter,))
    ) as (gateway, _):
        assert (await gateway.call()).body == b"".join(pieces)
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("completed", 2 * CREDIT)


async def test_a_stream_that_is_paid_by_time_ends_with_the_credits(
    clean_redis_url: str, postgres_url: str
) -> None:
    meter = MeterSpec("ms", (Source("duration", "ms"),), 10**9, reserve_units=50)
    async with served(
        clean_redis_url, postgres_url, endless(), CREDIT // 10, price=Price(meters=(meter,))
    ) as (gateway, _):
        reply = await gateway.call()
        assert b'"code":"insufficient_credits"' in reply.body
        row = await gateway.settlement()
        assert (row.ending, row.uncollected_microcredits) == ("exhausted", 0)
        assert row.charged_microcredits <= CREDIT // 10


@pytest.mark.parametrize("word", [OnMissing.RESERVED, OnMissing.MINIMUM])
async def test_a_callers_bound_ends_also_a_stream_that_is_not_estimated(
    clean_redis_url: str, postgres_url: str, word: OnMissing
) -> None:
    """Else a small X-Max-Credits would buy any stream that tells its usage only at its end."""
    price = Price(meters=(unit(on_missing=word),))
    script = streaming(100, b'data: {"units": 300}\n\n')
    async with served(clean_redis_url, postgres_url, script, CREDIT, price=price) as (gateway, _):
        reply = await gateway.call(headers={"X-Max-Credits": "0.03"})
        assert reply.body.count(EVENT) <= 10
        assert b'"limit_source":"caller"' in reply.body
        assert (await gateway.settlement()).charged_microcredits <= 30_000


async def test_what_passes_while_redis_is_away_is_charged_also_of_a_stream_that_is_ended_then(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [CountersUnavailable("away"), HoldGone(), InsufficientCredits(1, 0, 0)]

    async def raise_hold(*_: object) -> object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Counters, "raise_hold", raise_hold)
    async with served(clean_redis_url, postgres_url, endless(), CREDIT) as (gateway, _):
        reply = await gateway.call()
        passed = reply.body.count(EVENT) * 3
        assert passed > 30  # 20 units were held for
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("exhausted", passed * 1_000)
        assert answers == []


async def test_a_client_that_leaves_while_its_last_event_is_waited_for_pays_for_what_passed(
    clean_redis_url: str, postgres_url: str
) -> None:
    begun = EVENT[:20]

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE + chunk(EVENT * 6 + begun))
        await asyncio.sleep(0.05)
        await talk.send(chunk(b"x" * 500))  # of the same event: what nobody can pay
        await talk.gone()

    async with served(clean_redis_url, postgres_url, script, 25_000) as (gateway, agent):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("POST /chat HTTP/1.1", "Content-Length: 0"))
        await reader.readuntil(begun)
        await asyncio.sleep(0.2)
        writer.transport.abort()
        row = await gateway.settlement()
        assert (row.ending, row.charged_microcredits) == ("exhausted", 20_000)
        assert await gateway.balance() == (5_000, 0)
        await eventually(lambda: agent.open == 0)

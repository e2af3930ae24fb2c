"""Credits that run out while an answer streams: the hold is raised, or the stream ends well."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
import pytest

from policies.catalog import Caps, Ending, ErrorStyle, MeterSpec, OnMissing, Price, Rule, Source
from tests.support.gateway import CREDIT, Gateway, chat_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.nasty_upstream import Agent, Conversation

SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
# One unit is 10 bytes of the answer and costs a thousandth of a credit.
UNIT = MeterSpec(
    "unit",
    (Source("response.sse", "/units"),),
    picocredits_per_unit=10**9,
    reserve_units=20,
    estimate_from=Source("response.bytes", ""),
    estimate_per_unit=10,
)
EVENT = b'data: {"t": "0123456789012"}\n\n'
assert len(EVENT) == 30  # 3 units


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def endless(event: bytes = EVENT, head: bytes = SSE) -> object:
    """An agent that streams until its client has gone."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(head)
        while True:
            await talk.send(chunk(event))
            await asyncio.sleep(0.001)

    return script


@asynccontextmanager
async def served(
    redis_url: str,
    postgres_url: str,
    script: object,
    microcredits: int,
    **changes: object,
) -> AsyncIterator[tuple[Gateway, Agent]]:
    changes.setdefault("price", Price(meters=(UNIT,)))
    async with (
        nasty_upstream(script) as agent,  # type: ignore[arg-type]
        running_gateway(
            redis_url,
            postgres_url,
            [chat_route(agent.url, **changes)],
            microcredits=microcredits,
        ) as gateway,
    ):
        yield gateway, agent


async def test_a_stream_goes_on_until_the_last_credit_and_ends_with_a_whole_event(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with served(clean_redis_url, postgres_url, endless(), CREDIT // 10) as (gateway, agent):
        reply = await gateway.call()
        *events, last, receipt, rest = reply.body.split(b"\n\n")
        assert (rest, receipt[:18]) == (b"", b": credits-charged=")
        assert {event + b"\n\n" for event in events} == {EVENT}
        # 100 units are paid for; what passed is at most that, and less than a step short of it.
        assert 100 - 10 <= len(events) * 3 <= 100
        assert last.startswith(b"event: error\ndata: ")
        problem = orjson.loads(last.removeprefix(b"event: error\ndata: "))
        assert (problem["code"], problem["status"]) == ("insufficient_credits", 402)
        row = await gateway.settlement()
        assert (row.ending, row.flags) == ("exhausted", "units_missing,estimated")
        assert len(events) * 3 * 1_000 <= row.charged_microcredits <= CREDIT // 10
        assert row.uncollected_microcredits == 0
        available, held = await gateway.balance()
        assert (available, held) == (CREDIT // 10 - row.charged_microcredits, 0)

        await eventually(lambda: agent.open == 0)


@pytest.mark.parametrize(
    ("style", "begins"),
    [
        (ErrorStyle.OPENAI, b'data: {"error":'),
        (ErrorStyle.ANTHROPIC, b'event: error\ndata: {"type":"error"'),
    ],
)
async def test_the_last_event_is_in_the_routes_style(
    clean_redis_url: str, postgres_url: str, style: ErrorStyle, begins: bytes
) -> None:
    async with served(clean_redis_url, postgres_url, endless(), CREDIT // 10, errors=style) as (
        gateway,
        _,
    ):
        reply = await gateway.call()
        assert reply.body.split(b"\n\n")[-3].startswith(begins)


async def test_an_event_that_is_passing_is_passed_to_its_end(
    clean_redis_url: str, postgres_url: str
) -> None:
    """However the agent cuts its events into chunks."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE)
        while True:
            for start in range(0, len(EVENT), 7):
                await talk.send(chunk(EVENT[start : start + 7]))
                await asyncio.sleep(0.001)

    async with served(clean_redis_url, postgres_url, script, CREDIT // 10) as (gateway, _):
        *events, last, _, _ = (await gateway.call()).body.split(b"\n\n")
        assert {event + b"\n\n" for event in events} == {EVENT}
        assert last.startswith(b"event: error")


async def test_a_stream_of_lines_ends_with_a_line(clean_redis_url: str, postgres_url: str) -> None:
    head = SSE.replace(b"text/event-stream", b"application/x-ndjson")
    line = b'{"text": "01234567890123456"}\n'
    async with served(clean_redis_url, postgres_url, endless(line, head), CREDIT // 10) as (
        gateway,
        _,
    ):
        *lines, last, rest = (await gateway.call()).body.split(b"\n")
        assert rest == b""
        assert {each + b"\n" for each in lines} == {line}
        assert orjson.loads(last)["code"] == "insufficient_credits"


async def test_what_has_no_room_for_a_last_word_is_cut(
    clean_redis_url: str, postgres_url: str
) -> None:
    head = SSE.replace(b"text/event-stream", b"application/octet-stream")
    async with served(clean_redis_url, postgres_url, endless(head=head), CREDIT // 10) as (
        gateway,
        _,
    ):
        with pytest.raises(Exception, match=r"payload|disconnected|reset"):
            await gateway.call()
        assert (await gateway.settlement()).ending == "exhausted"


async def test_the_callers_bound_ends_a_stream_too(clean_redis_url: str, postgres_url: str) -> None:
    async with served(clean_redis_url, postgres_url, endless(), 100 * CREDIT) as (gateway, _):
        reply = await gateway.call(headers={"X-Max-Credits": "0.05"})
        problem = orjson.loads(reply.body.split(b"\n\n")[-3].partition(b"data: ")[2])
        assert (problem["code"], problem["limit_source"]) == ("spend_cap_reached", "caller")
        row = await gateway.settlement()
        assert row.ending == "exhausted"
        assert row.charged_microcredits <= 50_000


async def test_a_spend_cap_ends_a_stream_too(clean_redis_url: str, postgres_url: str) -> None:
    async with served(
        clean_redis_url, postgres_url, endless(), 100 * CREDIT, caps=Caps(day=60_000)
    ) as (gateway, _):
        reply = await gateway.call()
        problem = orjson.loads(reply.body.split(b"\n\n")[-3].partition(b"data: ")[2])
        assert (problem["code"], problem["window"]) == ("spend_cap_reached", "day")
        row = await gateway.settlement()
        assert 50_000 <= row.charged_microcredits <= 60_000


async def test_two_streams_share_what_is_left_and_neither_goes_below_zero(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with served(clean_redis_url, postgres_url, endless(), CREDIT // 5) as (gateway, _):
        await asyncio.gather(*(gateway.call() for _ in range(4)))
        rows = await gateway.settlements(4)
        assert {row.ending for row in rows} == {"exhausted"}
        assert sum(row.charged_microcredits for row in rows) <= CREDIT // 5
        assert await gateway.balance() == (
            CREDIT // 5 - sum(row.charged_microcredits for row in rows),
            0,
        )


async def test_an_end_that_tells_its_usage_is_charged_by_that(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Far more passes than was reserved at first; the estimate only raises the hold."""

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE)
        for _ in range(100):
            await talk.send(chunk(EVENT))
            await asyncio.sleep(0)
        await talk.send(chunk(b'data: {"units": 7}\n\n') + b"0\r\n\r\n")

    async with served(clean_redis_url, postgres_url, script, CREDIT) as (gateway, _):
        await gateway.call()
        row = await gateway.settlement()
        assert (row.ending, row.units, row.charged_microcredits) == ("completed", "unit=7", 7_000)
        assert row.held_microcredits > 20_000  # it was raised on the way
        assert await gateway.balance() == (CREDIT - 7_000, 0)


async def test_a_route_that_does_not_estimate_lets_its_streams_pass(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE)
        for _ in range(100):
            await talk.send(chunk(EVENT))
        await talk.send(b"0\r\n\r\n")

    fields = {name: getattr(UNIT, name) for name in UNIT.__slots__}
    meter = MeterSpec(**{**fields, "on_missing": OnMissing.MINIMUM})
    price = Price(per_request_microcredits=1_000, meters=(meter,))
    async with served(clean_redis_url, postgres_url, script, CREDIT // 20, price=price) as (
        gateway,
        _,
    ):
        assert (await gateway.call()).body.count(EVENT) == 100
        assert (await gateway.settlement()).charged_microcredits == 1_000


async def test_a_revoked_key_gets_no_more_than_its_hold(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with served(clean_redis_url, postgres_url, endless(), 100 * CREDIT) as (gateway, _):

        async def revoke() -> None:
            await eventually(gateway.holds)
            await gateway.amend(**{f"k:{gateway.key.key_id}": -1})

        reply, _ = await asyncio.gather(gateway.call(), revoke())
        assert b'"code":"unauthenticated"' in reply.body
        assert (await gateway.settlement()).ending == "exhausted"


@pytest.mark.parametrize(
    ("rule", "charged"),
    [(Rule.NOTHING, 0), (Rule.MINIMUM, 5_000), (Rule.RESERVED, 100_000)],
)
async def test_the_ending_costs_what_the_route_says(
    clean_redis_url: str, postgres_url: str, rule: Rule, charged: int
) -> None:
    price = Price(per_request_microcredits=5_000, meters=(UNIT,))
    rules = {**chat_route("http://x").rules, Ending.EXHAUSTED: rule}
    async with served(
        clean_redis_url, postgres_url, endless(), CREDIT // 10, price=price, rules=rules
    ) as (gateway, _):
        await gateway.call()
        row = await gateway.settlement()
        if rule is Rule.RESERVED:
            assert 90_000 <= row.charged_microcredits <= charged
        else:
            assert row.charged_microcredits == charged

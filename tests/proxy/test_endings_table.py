"""Every ending of a call, with every rule that a route can give it: one test per cell.

A call of the route holds 1.1 credits (0.1 and 1 000 tokens), costs 0.13 for the 30 tokens that its
agent reports, and 0.1 at least. What a cut answer has not reported is estimated:
a token for every event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import pytest

from policies.catalog import Ending, Rule, Timeouts
from tests.support.gateway import CREDIT, Gateway, chat_route, running_gateway
from tests.support.nasty_upstream import Conversation, nasty_upstream
from tests.support.waiting import eventually

USAGE = b'{"usage":{"total_tokens":30}}'
JSON = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(USAGE), USAGE)
SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"t": "word"}\n\n'
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
COSTS = {Rule.NOTHING: 0, Rule.MINIMUM: 100_000, Rule.RESERVED: 1_100_000}
REPORTED = 130_000
NOT_BEGUN = 100_000  # nothing of the answer has passed
PASSED = 101_000  # one event has


async def completed(talk: Conversation) -> None:
    await talk.request()
    await talk.send(b"HTTP/1.1 200 OK\r\n" + JSON)


async def refused_by_the_agent(talk: Conversation) -> None:
    await talk.request()
    await talk.send(b"HTTP/1.1 422 Unprocessable Content\r\n" + JSON)


async def failed_in_the_agent(talk: Conversation) -> None:
    await talk.request()
    await talk.send(b"HTTP/1.1 500 Internal Server Error\r\n" + JSON)


async def no_answer(talk: Conversation) -> None:
    await talk.request()


async def an_answer_that_breaks_off(talk: Conversation) -> None:
    await talk.request()
    await talk.send(SSE + CHUNK)
    await asyncio.sleep(0.05)


async def silence(talk: Conversation) -> None:
    await talk.request()
    await talk.gone()


async def silence_after_the_first_event(talk: Conversation) -> None:
    await talk.request()
    await talk.send(SSE + CHUNK)
    await talk.gone()


async def just_call(gateway: Gateway) -> None:
    with contextlib.suppress(Exception):
        await gateway.call()


async def leave_before_the_answer(gateway: Gateway) -> None:
    _, writer = await gateway.connect()
    writer.write(gateway.head("POST /chat HTTP/1.1", "Content-Length: 2") + b"{}")

    async def sent_on() -> bool:
        return any(stage for _, stage in await gateway.holds())

    await eventually(sent_on)
    await asyncio.sleep(0.02)
    writer.close()


async def leave_in_mid_stream(gateway: Gateway) -> None:
    reader, writer = await gateway.connect()
    writer.write(gateway.head("POST /chat HTTP/1.1", "Content-Length: 2") + b"{}")
    await reader.readuntil(EVENT)
    writer.close()


Script = Callable[[Conversation], Awaitable[None]] if TYPE_CHECKING else object
Client = Callable[[Gateway], Awaitable[None]] if TYPE_CHECKING else object
MOMENTS: dict[str, tuple[Ending, Script, Client, int]] = {
    "completed": (Ending.COMPLETED, completed, just_call, REPORTED),
    "4xx": (Ending.CLIENT_ERROR, refused_by_the_agent, just_call, REPORTED),
    "5xx": (Ending.UPSTREAM_ERROR, failed_in_the_agent, just_call, REPORTED),
    "no answer": (Ending.UPSTREAM_ERROR, no_answer, just_call, NOT_BEGUN),
    "broken off": (Ending.UPSTREAM_ERROR, an_answer_that_breaks_off, just_call, PASSED),
    "too late": (Ending.UPSTREAM_TIMEOUT, silence, just_call, NOT_BEGUN),
    "stalled": (Ending.UPSTREAM_TIMEOUT, silence_after_the_first_event, just_call, PASSED),
    "left before": (Ending.CLIENT_DISCONNECT, silence, leave_before_the_answer, NOT_BEGUN),
    "left within": (
        Ending.CLIENT_DISCONNECT,
        silence_after_the_first_event,
        leave_in_mid_stream,
        PASSED,
    ),
}
PATIENCE_MS = 300


@pytest.mark.parametrize("rule", Rule)
@pytest.mark.parametrize("moment", MOMENTS)
async def test_an_ending_costs_what_its_rule_says(
    clean_redis_url: str, postgres_url: str, moment: str, rule: Rule
) -> None:
    ending, script, client, actual = MOMENTS[moment]
    rules = {**chat_route("http://x").rules, ending: rule}
    patient = Timeouts()
    if ending is Ending.UPSTREAM_TIMEOUT:
        patient = Timeouts(first_byte_ms=PATIENCE_MS, idle_ms=PATIENCE_MS)
    async with (
        nasty_upstream(script) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [chat_route(agent.url, rules=rules, timeouts=patient)],
        ) as gateway,
    ):
        await client(gateway)
        row = await gateway.settlement()
        expected = actual if rule is Rule.ACTUAL else COSTS[rule]
        assert (row.ending, row.charged_microcredits) == (ending, expected)
        assert await gateway.balance() == (100 * CREDIT - expected, 0)


@pytest.mark.parametrize("rule", Rule)
async def test_an_agent_that_is_not_there_never_saw_the_call_and_nothing_is_charged(
    clean_redis_url: str, postgres_url: str, rule: Rule
) -> None:
    rules = {**chat_route("http://x").rules, Ending.UPSTREAM_ERROR: rule}
    route = chat_route("http://127.0.0.1:9", rules=rules)  # nobody listens there
    async with running_gateway(clean_redis_url, postgres_url, [route]) as gateway:
        reply = await gateway.call()
        assert reply.status == 502
        charged = sum(row.charged_microcredits for row in await gateway.settlements(0))
        assert await gateway.balance() == (100 * CREDIT - charged, 0)


@pytest.mark.parametrize("rule", Rule)
async def test_an_end_that_nobody_saw_costs_what_was_last_known(
    clean_redis_url: str, postgres_url: str, rule: Rule
) -> None:
    """The worker is gone: the reaper ends the hold, whose `due` was fixed when it was sent on."""
    rules = {**chat_route("http://x").rules, Ending.UNKNOWN: rule}
    async with (
        nasty_upstream(silence) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url, rules=rules)], lease_s=1
        ) as gateway,
    ):
        running = asyncio.create_task(just_call(gateway))
        await agent.arrived.wait()
        registry = gateway.worker._proxy._calls
        registry.clear()  # nobody renews its lease any more

        async def reaped() -> bool:
            return bool(await gateway.reap())

        await eventually(reaped)
        row = await gateway.settlement()
        due = {Rule.NOTHING: 0, Rule.RESERVED: 1_100_000}.get(rule, 100_000)
        assert (row.ending, row.charged_microcredits) == (Ending.UNKNOWN, due)
        running.cancel()

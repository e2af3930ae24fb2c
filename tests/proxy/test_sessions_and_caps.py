"""Limits and caps at the door: never passed by calls at once, named, and sessions as they come."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.operations.audit import audit
from policies.catalog import Caps, Limits
from tests.support.gateway import CREDIT, Gateway, open_route, running_gateway
from tests.support.nasty_upstream import Agent, nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Reply
    from tests.support.nasty_upstream import Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SESSION = {"X-Session-Id": "chat:7"}


async def slowly(talk: Conversation) -> None:
    while True:
        await talk.request()
        await asyncio.sleep(0.01)
        await talk.send(OK)


@pytest_asyncio.fixture
async def agent() -> AsyncIterator[Agent]:
    async with nasty_upstream(slowly) as running:
        yield running


@pytest_asyncio.fixture
async def gateway(agent: Agent, clean_redis_url: str, postgres_url: str) -> AsyncIterator[Gateway]:
    async with running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as running:
        assert (await running.call("/any/first")).status == 200
        agent.requests.clear()
        yield running


async def at_once(gateway: Gateway, count: int, **headers: str) -> list[Reply]:
    return await asyncio.gather(*(gateway.call("/any/x", headers=headers) for _ in range(count)))


def problem(reply: Reply) -> dict[str, object]:
    body: dict[str, object] = json.loads(reply.body)
    return body


@pytest.mark.parametrize("scope", ["account", "key"])
@pytest.mark.parametrize(
    ("rule", "window"), [("cd", "day"), ("cm", "month"), ("ct", "total"), ("cs", "session")]
)
async def test_50_calls_at_once_never_pass_a_cap(
    gateway: Gateway, agent: Agent, scope: str, rule: str, window: str
) -> None:
    rules = f"{rule}:{7 * CREDIT}"
    field = "rules" if scope == "account" else f"k:{gateway.key.key_id}"
    await gateway.amend(**{field: rules if scope == "account" else f"0 {rules}"})
    replies = await at_once(gateway, 50, **SESSION)
    assert sorted(reply.status for reply in replies) == [200] * 7 + [402] * 43
    assert len(agent.requests) == 7
    refused = problem(next(reply for reply in replies if reply.status == 402))
    assert (refused["code"], refused["window"], refused["limit"]) == (
        "spend_cap_reached",
        window,
        "7",
    )
    assert refused["limit_source"] == ("session" if window == "session" else scope)
    assert refused["spent"] == "7"
    after = await gateway.call("/any/x", headers=SESSION)
    assert after.status == 402
    assert ("Retry-After" in after.headers) == (window in {"day", "month"})


async def test_a_cap_of_a_route_counts_for_that_route(
    agent: Agent, clean_redis_url: str, postgres_url: str
) -> None:
    capped = open_route(agent.url, caps=Caps(day=3 * CREDIT), limits=Limits(concurrency=2))
    other = replace(open_route(agent.url), name="other", pattern="/other/**")
    async with running_gateway(clean_redis_url, postgres_url, [capped, other]) as gateway:
        replies = await at_once(gateway, 20)
        denied = [problem(reply) for reply in replies if reply.status != 200]
        assert {(one["code"], one["limit_source"]) for one in denied} <= {
            ("concurrency_limited", "route"),
            ("spend_cap_reached", "route"),
        }
        while (await gateway.call("/any/x")).status == 200:
            pass
        assert len(agent.requests) == 3
        refused = await gateway.call("/any/x")
        assert (refused.status, problem(refused)["limit_source"]) == (402, "route")
        assert (await gateway.call("/other/x")).status == 200


async def test_a_session_begins_with_its_first_call_and_each_has_its_own_cap(
    gateway: Gateway, agent: Agent
) -> None:
    await gateway.amend(rules=f"cs:{2 * CREDIT}")
    keys = gateway.counters.keys(gateway.account.account_id)
    name = keys.session("chat:7")
    assert await gateway.counters.command("EXISTS", name) == 0
    for expected in (200, 200, 402):
        assert (await gateway.call("/any/x", headers=SESSION)).status == expected
    assert await gateway.counters.command("HGET", name, "A") == b"%d" % (2 * CREDIT)
    assert await gateway.counters.command("PTTL", name) > 0
    assert (await gateway.call("/any/x", headers={"X-Session-Id": "chat:8"})).status == 200
    assert (await gateway.call("/any/x")).status == 200
    assert agent.requests[0].header(b"X-Session-Id") == b"chat:7"
    rows = await gateway.settlements(5)
    assert sorted(row.session for row in rows) == ["", "", "chat:7", "chat:7", "chat:8"]
    report = await audit(gateway.ledger, gateway.counters)
    assert report.findings == []


async def test_what_a_call_did_not_use_goes_back_to_its_session(
    clean_redis_url: str, postgres_url: str, unused_tcp_port: int
) -> None:
    route = open_route(f"http://127.0.0.1:{unused_tcp_port}")
    async with running_gateway(clean_redis_url, postgres_url, [route]) as gateway:
        assert (await gateway.call("/any/x", headers=SESSION)).status == 502
        await gateway.amend(rules=f"cs:{CREDIT}")
        for _ in range(3):
            assert (await gateway.call("/any/x", headers=SESSION)).status == 502
        [row, *_] = await gateway.settlements(4)
        assert (row.session, row.charged_microcredits) == ("chat:7", 0)


async def test_a_malformed_session_is_400_and_reaches_nobody(
    gateway: Gateway, agent: Agent
) -> None:
    reply = await gateway.call("/any/x", headers={"X-Session-Id": "no spaces"})
    assert (reply.status, problem(reply)["code"]) == (400, "bad_request")
    assert agent.requests == []


async def test_narrower_limits_say_whose_they_are(gateway: Gateway) -> None:
    await gateway.amend(**{f"k:{gateway.key.key_id}": "0 rm:1"})
    assert (await gateway.call("/any/x")).status == 200
    reply = await gateway.call("/any/x")
    assert (reply.status, problem(reply)["code"]) == (429, "rate_limited")
    assert (problem(reply)["limit_source"], problem(reply)["limit"]) == ("key", 1)
    assert int(reply.headers["Retry-After"]) >= 1
    await gateway.amend(**{f"k:{gateway.key.key_id}": "0", "rules": "qm:1"})
    assert (await gateway.call("/any/x")).status == 200
    reply = await gateway.call("/any/x")
    assert (reply.status, problem(reply)["code"]) == (429, "quota_exceeded")
    assert problem(reply)["limit_source"] == "account"

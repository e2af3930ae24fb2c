"""One key, one call: whoever comes again gets its answer, and nothing is charged twice."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import aiohttp
import pytest

from gateway.operations.accounts import create_account
from gateway.operations.keys import KeyMaker, create_key
from policies.catalog import DEFAULT_RULES, Ending, Rule
from policies.idempotency import IDEMPOTENT_ANSWER_MAX_BYTES
from tests.support.gateway import CREDIT, PEPPER, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream, speaking

if TYPE_CHECKING:
    from tests.support.gateway import Gateway, Reply
    from tests.support.nasty_upstream import Conversation

KEY = {"Idempotency-Key": '"order-1"'}
JSON_ANSWER = json.dumps({"text": "hello", "usage": {"total_tokens": 30}}).encode()
JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Model: large\r\n"
WHOLE = JSON_HEAD + b"Content-Length: %d\r\n\r\n" % len(JSON_ANSWER) + JSON_ANSWER
CHARGED = 130_000
SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def whole(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status.encode(), len(body), body)


async def settled_once(gateway: Gateway, charged: int) -> None:
    row = await gateway.settlement()
    assert row.charged_microcredits == charged
    assert await gateway.balance() == (100 * CREDIT - charged, 0)


def is_replay_of(retry: Reply, first: Reply) -> bool:
    """The same answer, under the same request id."""
    ignored = {"x-credits-remaining", "x-credits-reserved", "idempotency-replayed"}
    if "X-Credits-Charged" not in first.headers:  # a stream says it at its end only
        ignored.add("x-credits-charged")
    kept = [
        {name: value for name, value in reply.headers.items() if name.lower() not in ignored}
        for reply in (first, retry)
    ]
    assert retry.headers["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first.headers
    return (retry.status, retry.body, kept[1]) == (first.status, first.body, kept[0])


async def test_a_retry_gets_the_first_answer_and_costs_nothing(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        first = await gateway.call(headers=KEY)
        assert (first.status, first.body) == (200, JSON_ANSWER)
        for spelling in ('"order-1"', "order-1"):
            retry = await gateway.call(headers={"Idempotency-Key": spelling})
            assert is_replay_of(retry, first)
            assert retry.headers["X-Model"] == "large"
            assert retry.headers["X-Credits-Charged"] == "0.13"
        assert len(agent.requests) == 1
        assert agent.requests[0].header(b"Idempotency-Key") is None, "keys of accounts would meet"
        await settled_once(gateway, CHARGED)


@pytest.mark.parametrize("body", [b"", b"hello"])
@pytest.mark.parametrize("status", ["200 OK", "404 Not Found", "500 Broken"])
async def test_any_answer_of_the_agent_is_kept_if_it_was_whole(
    clean_redis_url: str, postgres_url: str, status: str, body: bytes
) -> None:
    async with (
        nasty_upstream(answering(whole(body, status))) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        first = await gateway.call("/any/x", headers=KEY)
        assert is_replay_of(await gateway.call("/any/x", headers=KEY), first)
        assert (first.status, first.body) == (int(status[:3]), body)
        assert len(agent.requests) == 1


@pytest.mark.parametrize("status", [429, 503, 529])
async def test_what_the_agent_turned_away_for_nothing_may_run_again(
    clean_redis_url: str, postgres_url: str, status: int
) -> None:
    busy = whole(b"busy", f"{status} Later")
    rules = {**DEFAULT_RULES, Ending.CLIENT_ERROR: Rule.NOTHING}
    async with (
        nasty_upstream(answering(busy, whole(b"done"))) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, rules=rules)]
        ) as gateway,
    ):
        assert (await gateway.call("/any/x", headers=KEY)).status == status
        retry = await gateway.call("/any/x", headers=KEY)
        assert (retry.status, retry.body) == (200, b"done")
        assert "Idempotency-Replayed" not in retry.headers


async def test_head_and_no_content_are_framed_as_they_were(
    clean_redis_url: str, postgres_url: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    none = b"HTTP/1.1 204 No Content\r\n\r\n"
    async with (
        nasty_upstream(answering(head, none)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        for method in ("HEAD", "DELETE"):
            keyed = {"Idempotency-Key": method}
            first = await gateway.call("/any/x", method=method, headers=keyed)
            retry = await gateway.call("/any/x", method=method, headers=keyed)
            assert is_replay_of(retry, first)
        assert len(agent.requests) == 2


async def test_a_stream_comes_again_byte_for_byte_in_chunks(
    clean_redis_url: str, postgres_url: str
) -> None:
    events = [b"data: first\n\n", b'data: {"usage": {"total_tokens": 30}}\n\n', b"data: [DONE]\n\n"]

    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE_HEAD, *map(chunk, events), chunk(b""))

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        first = await gateway.call(headers=KEY)
        retry = await gateway.call(headers=KEY)
        assert first.body == b"".join(events) + (
            b": credits-charged=0.13 credits-remaining=99.87\n\n"
        )
        assert retry.body == b"".join(events) + b": credits-charged=0.13\n\n"
        assert retry.headers["Transfer-Encoding"] == "chunked"
        assert retry.headers["Content-Type"] == "text/event-stream"
        assert retry.headers["X-Request-Id"] == first.request_id
        assert len(agent.requests) == 1
        await settled_once(gateway, CHARGED)


async def test_a_retry_while_the_first_runs_is_told_to_wait(
    clean_redis_url: str, postgres_url: str
) -> None:
    go_on = asyncio.Event()

    async def script(talk: Conversation) -> None:
        await talk.request()
        await go_on.wait()
        await talk.send(WHOLE)

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        running = asyncio.create_task(gateway.call(headers=KEY))
        await agent.arrived.wait()
        early = await gateway.call(headers=KEY)
        assert early.status == 409
        assert json.loads(early.body)["code"] == "idempotency_in_progress"
        assert early.headers["Retry-After"] == "1"
        go_on.set()
        first = await running
        assert is_replay_of(await gateway.call(headers=KEY), first)
        await settled_once(gateway, CHARGED)


async def test_fifty_equal_calls_at_once_are_one(clean_redis_url: str, postgres_url: str) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await asyncio.sleep(0.05)
        await talk.send(WHOLE)

    async with (
        nasty_upstream(script) as agent,
        running_gateway(clean_redis_url, postgres_url, [chat_route(agent.url)]) as gateway,
    ):
        replies = await asyncio.gather(*(gateway.call(headers=KEY) for _ in range(50)))
        assert len(agent.requests) == 1
        answers = [reply for reply in replies if reply.status != 409]
        assert {(reply.status, reply.body) for reply in answers} == {(200, JSON_ANSWER)}
        assert len({reply.request_id for reply in answers}) == 1
        await settled_once(gateway, CHARGED)


@pytest.mark.parametrize(
    ("method", "path", "data", "headers"),
    [
        ("PUT", "/any/x", b"{}", {}),
        ("POST", "/any/y", b"{}", {}),
        ("POST", "/any/x?a=1", b"{}", {}),
        ("POST", "/any/x", b"{} ", {}),
        ("POST", "/any/x", b"{}", {"Content-Type": "text/plain"}),
        ("POST", "/any/x", b"{}", {"Content-Encoding": "identity"}),
    ],
)
async def test_another_request_with_the_key_is_refused(
    clean_redis_url: str,
    postgres_url: str,
    method: str,
    path: str,
    data: bytes,
    headers: dict[str, str],
) -> None:
    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        await gateway.call("/any/x", headers=KEY)
        other = await gateway.call(path, method=method, data=data, headers={**KEY, **headers})
        assert other.status == 422
        assert json.loads(other.body)["code"] == "idempotency_mismatch"
        assert len(agent.requests) == 1


@pytest.mark.parametrize(
    "lines",
    [
        ("Idempotency-Key: a", "Idempotency-Key: a"),
        ("Idempotency-Key: ",),
        ('Idempotency-Key: "',),
        ('Idempotency-Key: ""',),
        ('Idempotency-Key: "a',),
        ('Idempotency-Key: "a"b"',),
        ("Idempotency-Key: a b",),
        ("Idempotency-Key: a, b",),
        ('Idempotency-Key: "a"; b',),
        ("Idempotency-Key: \u00e4",),
        ("Idempotency-Key: " + 256 * "a",),
    ],
)
async def test_what_is_no_key_is_refused(
    clean_redis_url: str, postgres_url: str, lines: tuple[str, ...]
) -> None:
    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        reader, writer = await gateway.connect()
        writer.write(gateway.head("GET /any/x HTTP/1.1", *lines))
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 400 ")
        writer.close()
        assert agent.requests == []


async def test_accounts_do_not_see_each_others_keys(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(whole(b"mine"), whole(b"yours"))) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        made = await create_account(
            gateway.ledger, gateway.account.platform_id, "other", microcredits=CREDIT
        )
        key = await create_key(
            gateway.ledger, gateway.counters, made.account, KeyMaker("dev", PEPPER)
        )
        assert (await gateway.call("/any/x", headers=KEY)).body == b"mine"
        others = {**KEY, "Authorization": f"Bearer {key.text}"}
        assert (await gateway.call("/any/x", headers=others)).body == b"yours"
        assert (await gateway.call("/any/x", headers=KEY)).body == b"mine"


async def test_a_denied_call_is_not_remembered(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url)], microcredits=CREDIT // 2
        ) as gateway,
    ):
        assert (await gateway.call("/any/x", headers=KEY)).status == 402
        bounded = {**KEY, "X-Max-Credits": "0.5"}
        assert (await gateway.call("/any/x", headers=bounded)).status == 402
        await gateway.amend(rpm=1)
        await gateway.amend(rpm=0)
        grants = await gateway.ledger.grants(gateway.account.account_id)
        keys = gateway.counters.keys(gateway.account.account_id)
        assert await gateway.counters.credit(
            keys,
            grants[0].grant_id,
            total=CREDIT,
            settled=0,
            withdrawn=0,
            expires_ms=0,
            effective_ms=0,
            lots=str(grants[0].grant_id),
        )
        paid = await gateway.call("/any/x", headers=KEY)
        assert paid.status == 200
        assert "Idempotency-Replayed" not in paid.headers
        assert is_replay_of(await gateway.call("/any/x", headers=KEY), paid)


async def test_a_revoked_key_hears_no_old_answer(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        await gateway.call("/any/x", headers=KEY)
        await gateway.amend(**{f"k:{gateway.key.key_id}": "-1"})
        assert (await gateway.call("/any/x", headers=KEY)).status == 401


async def test_an_answer_over_the_bound_leaves_a_receipt(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(whole(bytes(IDEMPOTENT_ANSWER_MAX_BYTES + 1)))) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        first = await gateway.call("/any/x", headers=KEY)
        assert len(first.body) == IDEMPOTENT_ANSWER_MAX_BYTES + 1
        retry = await gateway.call("/any/x", headers=KEY)
        assert retry.status == 410
        assert retry.headers["Idempotency-Replayed"] == "true"
        told = json.loads(retry.body)
        assert told.pop("detail")
        assert told == {
            "request_id": first.request_id,
            "ending": "completed",
            "status": 200,
            "charged": "1",
        }
        assert len(agent.requests) == 1
        await settled_once(gateway, CREDIT)


async def test_an_answer_at_the_bound_is_kept(clean_redis_url: str, postgres_url: str) -> None:
    async with (
        nasty_upstream(answering(whole(bytes(IDEMPOTENT_ANSWER_MAX_BYTES)))) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        first = await gateway.call("/any/x", headers=KEY)
        assert is_replay_of(await gateway.call("/any/x", headers=KEY), first)


@pytest.mark.parametrize("rule", [Rule.ACTUAL, Rule.NOTHING])
async def test_a_broken_answer_leaves_a_receipt_if_it_cost_something(
    clean_redis_url: str, postgres_url: str, rule: Rule
) -> None:
    rules = {**DEFAULT_RULES, Ending.UPSTREAM_ERROR: rule}

    async def half(talk: Conversation) -> None:
        await talk.request()
        await talk.send(SSE_HEAD, chunk(b"data: first\n\n"))
        await asyncio.sleep(0.1)

    async with (
        nasty_upstream(half, answering(whole(b"done"))) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [open_route(agent.url, rules=rules)]
        ) as gateway,
    ):
        with pytest.raises(aiohttp.ClientError):
            await gateway.call("/any/x", headers=KEY)
        row = await gateway.settlement()
        retry = await gateway.call("/any/x", headers=KEY)
        if rule is Rule.NOTHING:
            assert (retry.status, retry.body) == (200, b"done"), "it may run: it cost nothing"
            return
        assert (retry.status, json.loads(retry.body)["ending"]) == (410, "upstream_error")
        assert json.loads(retry.body)["request_id"] == row.call_id
        await settled_once(gateway, CREDIT)


async def test_a_call_that_got_no_answer_and_cost_nothing_may_run_again(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(speaking(b"no HTTP", then_close=True), answering(whole(b"done"))) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call("/any/x", headers=KEY)).status == 502
        retry = await gateway.call("/any/x", headers=KEY)
        assert (retry.status, retry.body) == (200, b"done")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_larger_body_is_read_whole_up_to_a_bound(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch, chunked: bool
) -> None:
    monkeypatch.setattr("gateway.proxy.handler.REQUEST_READ_MAX_BYTES", 200_000)
    monkeypatch.setattr("gateway.proxy.forward.REQUEST_READ_MAX_BYTES", 200_000)

    async def parts(size: int):  # noqa: ANN202
        for _ in range(size // 1_000):
            yield bytes(1_000)

    async with (
        nasty_upstream(answering(WHOLE)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):

        async def call(size: int) -> Reply:
            data = parts(size) if chunked else bytes(size)
            keyed = {"Idempotency-Key": str(size)}
            return await gateway.call("/any/x", data=data, headers=keyed)

        first = await call(150_000)
        assert is_replay_of(await call(150_000), first)
        assert [len(request.body) for request in agent.requests] == [150_000]
        refused = await call(250_000)
        assert refused.status == 413
        assert "Idempotency-Key" in json.loads(refused.body)["detail"]
        assert len(agent.requests) == 1

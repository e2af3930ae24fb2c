"""Keys are used for their routes and from their networks, as people have them at this moment."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.ledger import Ledger, LedgerUnavailable
from gateway.operations.keys import KeyChanges, change_key
from gateway.proxy.guards import Guards
from policies.catalog import ErrorStyle, Protocol, Route
from tests.support.conversations import handshake, talk_route
from tests.support.faulty_redis import OwnRedis
from tests.support.gateway import (
    CREDIT,
    CREDIT_PRICE,
    PEPPER,
    Gateway,
    chat_route,
    open_route,
    running_gateway,
)
from tests.support.nasty_upstream import answering, nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Reply
    from tests.support.nasty_upstream import Agent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HERE, ELSEWHERE = ("127.0.0.1",), ("10.0.0.0/8", "2001:db8::/32")


async def guard(gateway: Gateway, **changes: Any) -> None:
    """Change what the account's key is for."""
    platform_id = gateway.account.platform_id
    key_id, told = gateway.key.key_id, KeyChanges(**changes)
    await change_key(gateway.ledger, gateway.counters, platform_id, key_id, told)


def a2a_route(upstream: str) -> Route:
    return Route(
        name="tasks",
        methods=("POST",),
        pattern="/a2a",
        upstream=upstream,
        price=CREDIT_PRICE,
        protocol=Protocol.A2A,
        errors=ErrorStyle.JSONRPC,
    )


@asynccontextmanager
async def scene(
    redis_url: str, postgres_url: str, **config: object
) -> AsyncIterator[tuple[Gateway, Agent]]:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis_url,
            postgres_url,
            [
                open_route(agent.url, trust_microcredits=9 * CREDIT),
                chat_route(agent.url),
                talk_route(agent.url),
                a2a_route(agent.url),
            ],
            **config,
        ) as gateway,
    ):
        yield gateway, agent


def forbidden(reply: Reply) -> str:
    """The sentence of a 403."""
    problem = json.loads(reply.body)
    assert (reply.status, problem["code"]) == (403, "forbidden")
    return str(problem["detail"])


async def test_a_key_is_used_for_its_routes_only(clean_redis_url: str, postgres_url: str) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await guard(gateway, routes=["chat"])
        assert (await gateway.call("/chat")).status == 200
        assert "route" in forbidden(await gateway.call("/any/x"))
        assert (await gateway.call("/nowhere")).status == 404
        assert len(agent.requests) == 1


@pytest.mark.parametrize(("addresses", "allowed"), [(HERE, True), (ELSEWHERE, False)])
async def test_a_key_is_used_from_its_networks_only(
    clean_redis_url: str, postgres_url: str, addresses: tuple[str, ...], *, allowed: bool
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await guard(gateway, addresses=addresses)
        reply = await gateway.call("/any/x")
        if allowed:
            assert reply.status == 200
        else:
            assert "address" in forbidden(reply)
        assert len(agent.requests) == int(allowed)


async def test_a_change_binds_the_next_call_of_every_worker(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Both know the key from before, first without and then with a guard."""
    settings = WorkerSettings(
        GatewayConfig(redis_url=clean_redis_url, postgres_url=postgres_url), PEPPER
    )
    async with (
        scene(clean_redis_url, postgres_url) as (gateway, agent),
        run_worker(settings) as other,
    ):
        listening = await asyncio.get_running_loop().create_server(other.server, "127.0.0.1", 0)
        ports = (gateway.port, listening.sockets[0].getsockname()[1])

        async def statuses(path: str) -> list[int]:
            found = []
            for gateway.port in ports:
                found.append((await gateway.call(path)).status)
            return found

        assert await statuses("/any/x") == [200, 200]
        await guard(gateway, routes=["chat"])
        assert await statuses("/any/x") == [403, 403]
        assert await statuses("/chat") == [200, 200]
        await guard(gateway, routes=["any"])
        assert await statuses("/any/x") == [200, 200]
        await guard(gateway, addresses=ELSEWHERE)
        assert await statuses("/any/x") == [403, 403]
        await guard(gateway, routes=[], addresses=[])
        assert await statuses("/any/x") == [200, 200]
        assert await statuses("/chat") == [200, 200]
        assert len(agent.requests) == 10
        listening.close()


async def test_many_calls_at_once_read_a_changed_guard_once(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        assert (await gateway.call("/any/x")).status == 200
        await guard(gateway, routes=["chat"])
        find_key, found = Ledger.find_key, 0

        async def slow_find_key(ledger: Ledger, digest: bytes) -> Any:
            nonlocal found
            found += 1
            await asyncio.sleep(0.05)
            return await find_key(ledger, digest)

        monkeypatch.setattr(Ledger, "find_key", slow_find_key)
        replies = await asyncio.gather(*(gateway.call("/any/x") for _ in range(16)))
        assert {reply.status for reply in replies} == {403}
        assert found < 16
        assert len(agent.requests) == 1


async def test_a_guard_that_can_not_be_read_lets_nothing_pass(
    clean_redis_url: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        assert (await gateway.call("/any/x")).status == 200
        await guard(gateway, routes=["chat"])

        async def away(_ledger: Ledger, _digest: bytes) -> Any:
            raise LedgerUnavailable("gone")

        with monkeypatch.context() as patch:
            patch.setattr(Ledger, "find_key", away)
            assert (await gateway.call("/any/x")).status == 503
        assert (await gateway.call("/any/x")).status == 403
        assert len(agent.requests) == 1


async def test_a_guard_that_redis_is_yet_to_be_told_of_binds_whoever_reads_it(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Who changes a key commits before Redis is told; a call in between must not be stuck."""
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        await guard(gateway, routes=["any"])
        platform_id, key_id = gateway.account.platform_id, gateway.key.key_id

        def narrowed(key: Any) -> Any:
            return key.facts._replace(guards=key.guards._replace(routes=("chat",)))

        await gateway.ledger.change_key(platform_id, key_id, narrowed)
        assert (await gateway.call("/chat")).status == 200
        assert (await gateway.call("/any/x")).status == 403
        assert len(agent.requests) == 1


async def test_quotes_are_for_what_a_key_is_for(clean_redis_url: str, postgres_url: str) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, _):

        async def quote(path: str) -> Reply:
            return await gateway.call("/-/quote", data=json.dumps({"path": path}).encode())

        assert (await quote("/chat")).status == 200
        await guard(gateway, routes=["any"])
        assert "route" in forbidden(await quote("/chat"))
        assert "route" in forbidden(await quote("/chat"))  # known by now
        assert (await quote("/any/x")).status == 200


async def test_an_old_answer_is_not_told_to_a_key_that_could_not_ask_anew(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        keyed = {"Idempotency-Key": "once"}
        assert (await gateway.call("/any/x", headers=keyed)).status == 200
        await guard(gateway, addresses=ELSEWHERE)
        assert "address" in forbidden(await gateway.call("/any/x", headers=keyed))
        await guard(gateway, addresses=[])
        again = await gateway.call("/any/x", headers=keyed)
        assert (again.status, again.body) == (200, b"ok")
        assert len(agent.requests) == 1


async def test_a_websocket_and_a_task_are_refused_as_any_call(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as (gateway, agent):
        assert (await gateway.call("/any/x")).status == 200

        async def conversation() -> bytes:
            reader, writer = await gateway.connect()
            writer.write(handshake(gateway))
            line = await reader.readline()
            writer.close()
            return line

        send = b'{"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": {}}}'
        for _ in range(2):  # as is found when it is admitted, and as is known
            await guard(gateway, routes=["any"])
            assert b" 403 " in await conversation()
            await guard(gateway, addresses=ELSEWHERE)
            reply = await gateway.call("/a2a", data=send)
            assert b"This API key may not be used" in reply.body
        assert len(agent.requests) == 1
        assert await gateway.balance() == (99 * CREDIT, 0)


async def test_what_is_known_of_a_guard_binds_while_redis_is_away(postgres_url: str) -> None:
    async with OwnRedis() as redis, scene(redis.url, postgres_url) as (gateway, agent):
        await guard(gateway, routes=["chat"])
        assert (await gateway.call("/chat")).status == 200
        redis.kill()
        assert (await gateway.call("/any/x")).status == 403  # it would be trusted with credits
        assert len(agent.requests) == 1


@pytest.mark.parametrize(
    ("forwarded", "allowed"),
    [
        ("10.1.2.3", True),
        ("10.1.2.3:4711", True),
        ("2001:db8::7", True),
        ("[2001:db8::7]:4711", True),
        ("::ffff:10.1.2.3", True),
        ("192.0.2.9, 10.1.2.3", True),  # whoever wrote what is before it
        ("192.0.2.9, 10.1.2.3, 127.0.0.7", True),  # through two proxies
        ("192.0.2.9", False),
        ("10.1.2.3, 192.0.2.9", False),  # forged by the client, added to by the proxy
        ("10.1.2.3, nobody", False),
        ("10.1.2.3,", False),
        ("", False),
        (None, False),  # of the proxy itself
    ],
)
async def test_behind_a_trusted_proxy_the_address_it_saw_counts(
    clean_redis_url: str, postgres_url: str, forwarded: str | None, *, allowed: bool
) -> None:
    trusted = ("127.0.0.0/8",)
    async with scene(clean_redis_url, postgres_url, trusted_proxies=trusted) as (gateway, _):
        await guard(gateway, addresses=ELSEWHERE)
        headers = {"X-Forwarded-For": forwarded} if forwarded is not None else {}
        reply = await gateway.call("/any/x", headers=headers)
        assert reply.status == (200 if allowed else 403)


async def test_nobody_else_is_believed_where_a_call_comes_from(
    clean_redis_url: str, postgres_url: str
) -> None:
    trusted = ("192.0.2.0/24",)
    async with scene(clean_redis_url, postgres_url, trusted_proxies=trusted) as (gateway, _):
        await guard(gateway, addresses=ELSEWHERE)
        for forged in ("10.1.2.3", "10.1.2.3, 192.0.2.1"):
            reply = await gateway.call("/any/x", headers={"X-Forwarded-For": forged})
            assert "address" in forbidden(reply)


async def test_several_lines_are_read_as_one(clean_redis_url: str, postgres_url: str) -> None:
    trusted = ("127.0.0.0/8",)
    async with scene(clean_redis_url, postgres_url, trusted_proxies=trusted) as (gateway, _):
        await guard(gateway, addresses=ELSEWHERE)

        async def status(*lines: str) -> int:
            reader, writer = await gateway.connect()
            writer.write(gateway.head("GET /any/x HTTP/1.1", *lines))
            start = await reader.readline()
            writer.close()
            return int(start.split()[1])

        one, two = "X-Forwarded-For: 10.1.2.3", "x-forwarded-for: 192.0.2.9"
        assert await status(two, one) == 200
        assert await status(one, two) == 403


@pytest.mark.parametrize("peer", [None, "/run/gateway.sock", ("10.0.0.1", 5), ("::1", 5, 0, 0)])
def test_a_peer_without_an_address_is_nowhere(peer: object) -> None:
    transport = SimpleNamespace(get_extra_info={"peername": peer}.get)
    call = SimpleNamespace(
        connection=SimpleNamespace(transport=transport), message=SimpleNamespace(raw_headers=())
    )
    address = Guards(cast("Any", None)).client_address(cast("Any", call))
    assert (address is not None) == isinstance(peer, tuple)

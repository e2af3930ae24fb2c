"""The multiplexed connection: order, deadlines, bounds, and coming back."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import pytest

from gateway.counters import CommandRefused, Counters, CountersUnavailable
from gateway.counters import connection as connection_module
from gateway.counters.connection import FLUSH_COMMANDS, Link
from gateway.counters.errors import NotReady, Overloaded
from gateway.counters.resp import pack
from policies.decision import Admitted
from policies.scripts import SCRIPTS
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from gateway.counters.connection import Wire
    from tests.support.faulty_redis import FaultyWire, OwnRedis

# Calls in flight at most: no fewer than a new connection is taught scripts at once.
FEW = len(SCRIPTS) + 10


def wire_of(counters: Counters) -> Wire:
    wire = counters._link._wire
    assert wire is not None
    return wire


async def answers(counters: Counters) -> bool:
    return bool(await counters.command("PING") == b"PONG")


async def commands_run(server: OwnRedis, name: str) -> int:
    stats = await server.client.info("commandstats")
    return int(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"])


async def test_callers_who_leave_do_not_shift_the_replies_of_others(account: Any) -> None:
    tasks = [
        asyncio.ensure_future(account.counters.command("ECHO", f"{number}"))
        for number in range(200)
    ]
    for number in range(0, 200, 4):
        tasks[number].cancel()
    await asyncio.sleep(0)
    for number in range(1, 200, 4):
        tasks[number].cancel()
    await asyncio.wait(tasks)
    for number in range(200):
        if number % 4 < 2:
            assert tasks[number].cancelled()
        else:
            assert tasks[number].result() == b"%d" % number


async def test_commands_of_one_tick_leave_in_few_writes_and_in_order(
    account: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wire = wire_of(account.counters)
    writes: list[bytes] = []
    transport = wire._transport

    class Recording:
        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            writes.append(data)
            transport.write(data)

    monkeypatch.setattr(wire, "_transport", Recording())
    count = 6 * FLUSH_COMMANDS
    replies = await asyncio.gather(
        *(account.counters.command("ECHO", 100 + number) for number in range(count))
    )
    assert len(writes) == 6
    sent = [int(number) for number in re.findall(rb"ECHO\r\n\$3\r\n(\d+)", b"".join(writes))]
    assert sent == [int(reply) for reply in replies] == list(range(100, 100 + count))


async def test_a_large_reply_comes_whole(account: Any) -> None:
    text = b"x" * 3_000_000
    assert await account.counters.command("ECHO", text) == text
    assert await answers(account.counters)


async def test_a_stopped_server_means_unavailable_for_everybody_who_waits(
    own_account: Any, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    outcomes = await asyncio.gather(
        *(own_account.counters.command("PING") for _ in range(50)), return_exceptions=True
    )
    own_redis.resume()
    assert all(isinstance(outcome, CountersUnavailable) for outcome in outcomes)


async def test_a_paused_server_means_unavailable_within_the_deadline(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    await own_redis.client.execute_command("CLIENT", "PAUSE", 60_000)
    with pytest.raises(CountersUnavailable):
        # Twenty times the deadline, a thirtieth of the pause.
        await asyncio.wait_for(own_account.admit(call_id), 5)


async def test_late_replies_reach_nobody_and_the_connection_goes_on(
    own_account: Any, own_redis: OwnRedis
) -> None:
    wire = wire_of(own_account.counters)
    own_redis.stop()
    late = [own_account.counters.command("ECHO", "late") for _ in range(10)]
    await asyncio.gather(*late, return_exceptions=True)
    own_redis.resume()

    async def echo() -> Any:
        return await own_account.counters.command("ECHO", "new")

    assert await eventually(echo, unless=(CountersUnavailable,)) == b"new"
    assert wire_of(own_account.counters) is wire


async def test_a_stalled_server_is_sent_nothing_more(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    before = await commands_run(own_redis, "echo")
    own_redis.stop()
    with pytest.raises(CountersUnavailable):
        await own_account.counters.command("ECHO", "sent")
    for _ in range(100):
        with pytest.raises(NotReady):
            await own_account.counters.command("ECHO", "not sent")
    with pytest.raises(NotReady):
        await own_account.admit(call_id)
    own_redis.resume()
    assert await eventually(lambda: answers(own_account.counters), unless=(CountersUnavailable,))
    assert await commands_run(own_redis, "echo") == before + 1


async def test_a_server_that_stays_silent_is_dialled_again(
    own_account: Any, own_redis: OwnRedis
) -> None:
    counters = own_account.counters
    counters._link.stall_max_s = 0.5
    first = wire_of(counters)
    own_redis.stop()
    with pytest.raises(CountersUnavailable):
        await counters.command("PING")
    await eventually(lambda: counters._link._wire is not first)
    own_redis.resume()
    assert await eventually(lambda: answers(counters), unless=(CountersUnavailable,))


async def test_calls_beyond_the_bound_are_refused_at_once_and_not_sent(own_redis: OwnRedis) -> None:
    async with Counters(
        own_redis.url, shards=64, in_flight_max=FEW, deadline_ms=10_000
    ) as counters:
        before = await commands_run(own_redis, "echo")
        outcomes = await asyncio.gather(
            *(counters.command("ECHO", "x") for _ in range(FEW + 10)), return_exceptions=True
        )
        assert outcomes.count(b"x") == FEW
        assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 10
        assert await commands_run(own_redis, "echo") == before + FEW


async def test_calls_that_wait_for_the_connection_are_bounded_too(
    own_redis: OwnRedis, call_id: str
) -> None:
    async with Counters(own_redis.url, shards=64, in_flight_max=FEW) as counters:
        keys = counters.keys(7)
        own_redis.kill()
        await eventually(lambda: counters._link._wire is None)
        admits = (counters.admit(keys, call_id, b"5", 1, 1, 0, b"") for _ in range(FEW + 10))
        outcomes = await asyncio.gather(*admits, return_exceptions=True)
        assert sum(isinstance(outcome, Overloaded) for outcome in outcomes) == 10
        assert sum(isinstance(outcome, NotReady) for outcome in outcomes) == FEW


async def test_a_call_waits_out_a_short_loss_of_the_connection(account: Any, call_id: str) -> None:
    wire_of(account.counters).cut()
    assert isinstance(await account.admit(call_id), Admitted)


async def test_a_socket_that_ends_with_its_greeting_is_not_used(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    greet = Link._greet
    greeted: list[Wire] = []

    async def greet_and_lose(link: Link, wire: Wire) -> None:
        await greet(link, wire)
        greeted.append(wire)
        if len(greeted) == 1:
            wire._transport.abort()
            await eventually(lambda: wire.ended)

    monkeypatch.setattr(Link, "_greet", greet_and_lose)
    async with Counters(own_redis.url, shards=64) as counters:
        assert await answers(counters)
        with pytest.raises(CountersUnavailable):
            await asyncio.wait_for(greeted[0].submit(pack("PING")), 5)


async def test_an_answer_nobody_asked_for_ends_the_connection_not_the_gateway(
    wired_account: Any, wire: FaultyWire, call_id: str
) -> None:
    for nonsense in (b"+OK\r\n", b"what is this?\r\n"):
        first = wire_of(wired_account.counters)
        wire.inject(nonsense)
        await eventually(lambda first=first: wired_account.counters._link._wire is not first)
        assert isinstance(await wired_account.admit(call_id), Admitted)


async def test_a_server_that_became_a_replica_is_left_until_it_is_none(
    own_account: Any, own_redis: OwnRedis, call_id: str
) -> None:
    await own_redis.client.replicaof("127.0.0.1", "1")
    with pytest.raises(CommandRefused, match="READONLY"):
        await own_account.admit(call_id)
    with pytest.raises(CountersUnavailable, match="replica"):
        await own_account.admit(call_id)
    await own_redis.client.replicaof("NO", "ONE")

    async def admitted() -> bool:
        return isinstance(await own_account.admit(call_id), Admitted)

    assert await eventually(admitted, unless=(CountersUnavailable,))


async def test_calls_still_waiting_at_the_end_are_told(own_redis: OwnRedis) -> None:
    async with Counters(own_redis.url, shards=64) as counters:
        own_redis.stop()
        waiting = asyncio.ensure_future(counters.command("PING"))
        await asyncio.sleep(0)
    with pytest.raises(CountersUnavailable):
        await waiting
    own_redis.resume()


async def test_a_server_that_is_not_there_is_named_at_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "START_TIMEOUT_S", 0.05)
    with pytest.raises(
        CountersUnavailable, match=r"unix:///no/such\.sock is not usable.*No such file"
    ):
        await Counters("unix:///no/such.sock", shards=64).__aenter__()

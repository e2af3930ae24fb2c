"""What a worker does is counted by route, and told to who looks on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.app import WorkerSettings, run_worker
from gateway.config import GatewayConfig
from gateway.counters import CountersUnavailable
from gateway.counters.traffic import TrafficRow, since
from gateway.proxy.traffic import Traffic
from policies.catalog import Platform
from tests.support.faulty_redis import OwnRedis
from tests.support.gateway import CREDIT, PEPPER, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.support.gateway import Gateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def told(gateway: Gateway, expected: dict[str, TrafficRow]) -> None:
    """Return once the one worker's rows, by the route's name, are these."""
    stored = await gateway.ledger.routes(gateway.account.platform_id)
    names = {row.route.id: row.route.name for row in stored}

    async def same() -> bool:
        [rows] = (await gateway.counters.traffic()).values()
        return {names[route_id]: row for route_id, row in rows.items()} == expected

    await eventually(same, unless=(CountersUnavailable,))


async def test_calls_credits_and_denials_are_told_by_route(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [open_route(agent.url), chat_route(agent.url, body_max_bytes=1)],
            microcredits=2 * CREDIT,
        ) as gateway,
    ):
        for path, status in [("/any/x", 200), ("/any/x", 200), ("/any/x", 402), ("/chat", 413)]:
            assert (await gateway.call(path)).status == status
        assert (await gateway.call("/nowhere")).status == 404
        expected = {"any": TrafficRow(2, 2 * CREDIT, 1), "chat": TrafficRow(denials=1)}
        await told(gateway, expected)


async def test_a_changed_catalogue_does_not_begin_the_sums_anew(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        changed = open_route(agent.url, pattern="/other/**")
        await gateway.ledger.apply_catalog(Platform("demo"), [], [changed])
        await gateway.worker.load_catalogue()
        assert (await gateway.call("/other/x")).status == 200
        await told(gateway, {"any": TrafficRow(2, 2 * CREDIT, 0)})


async def test_workers_count_apart_and_add_up(clean_redis_url: str, postgres_url: str) -> None:
    settings = WorkerSettings(
        GatewayConfig(redis_url=clean_redis_url, postgres_url=postgres_url), PEPPER
    )
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
        run_worker(settings),
    ):

        async def both() -> dict[int, dict[int, TrafficRow]] | None:
            seen = await gateway.counters.traffic()
            return seen if len(seen) == 2 else None

        before = await eventually(both)
        assert before is not None
        for _ in range(3):
            assert (await gateway.call("/any/x")).status == 200

        async def three() -> bool:
            rows = since(before, await gateway.counters.traffic())
            return list(rows.values()) == [TrafficRow(3, 3 * CREDIT, 0)]

        await eventually(three)


async def test_what_redis_could_not_be_told_is_told_when_it_is_back(postgres_url: str) -> None:
    """Calls on trust are counted with what they owe, once."""
    async with (
        OwnRedis() as redis,
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis.url, postgres_url, [open_route(agent.url, trust_microcredits=2 * CREDIT)]
        ) as gateway,
    ):
        assert (await gateway.call("/any/x")).status == 200
        redis.kill()
        assert (await gateway.call("/any/x")).status == 200
        await redis.start()
        await gateway.settled_late(2)
        await told(gateway, {"any": TrafficRow(2, 2 * CREDIT, 0)})


class Store:
    """Takes what is written; `known` as Redis would answer."""

    def __init__(self) -> None:
        self.known = True
        self.written: list[dict[int, TrafficRow]] = []

    async def save_traffic(
        self, worker_id: int, rows: Mapping[int, TrafficRow], now_ms: int
    ) -> bool:
        assert (worker_id, now_ms > 0) == (1, True)
        self.written.append(dict(rows))
        return self.known


async def test_only_what_has_changed_is_written_unless_redis_has_forgotten() -> None:
    store = Store()
    traffic = Traffic(store, 1)
    traffic.of(7).count(5)
    traffic.of(9).denials += 1
    await traffic.write()
    traffic.of(7).count(5)
    store.known = False
    await traffic.write()
    store.known = True
    await traffic.write()
    await traffic.write()
    seven, nine = TrafficRow(2, 10, 0), TrafficRow(0, 0, 1)
    assert store.written == [{7: TrafficRow(1, 5, 0), 9: nine}, {7: seven}, {7: seven, 9: nine}, {}]

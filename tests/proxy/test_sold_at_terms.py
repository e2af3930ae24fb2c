"""What a call may cost is fixed from its request before its hold, and kept to its settlement."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import orjson
import pytest

from gateway.proxy.forward import REQUEST_READ_MAX_BYTES
from policies.catalog import MeterSpec, OnMissing, Price, Source, Table, Tier
from tests.support.gateway import CHAT_PRICE, CREDIT, TOKENS, chat_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.gateway import Gateway
    from tests.support.nasty_upstream import Conversation

MICRO = 1_000_000  # picocredits in a microcredit


async def usage_agent(talk: Conversation) -> None:
    """Answers with as many tokens as the body's `use` says, or with none of them."""
    while True:
        request = await talk.request()
        wanted = orjson.loads(request.body or b"{}")
        usage = {"usage": {"total_tokens": wanted["use"]}} if "use" in wanted else {}
        body = orjson.dumps(usage)
        await talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
            % (len(body), body)
        )


def priced(**changes: object) -> Price:
    return Price(**{"meters": (TOKENS,), **changes})  # type: ignore[arg-type]


def tokens(**changes: object) -> MeterSpec:
    fields = {name: getattr(TOKENS, name) for name in TOKENS.__slots__}
    return MeterSpec(**{**fields, **changes})


@asynccontextmanager
async def served(
    redis_url: str, postgres_url: str, price: Price, microcredits: int = 100 * CREDIT
) -> AsyncIterator[Gateway]:
    async with (
        nasty_upstream(usage_agent) as agent,
        running_gateway(
            redis_url,
            postgres_url,
            [chat_route(agent.url, price=price)],
            microcredits=microcredits,
        ) as gateway,
    ):
        yield gateway


async def ask(gateway: Gateway, headers: dict[str, str] | None = None, **body: object) -> object:
    return await gateway.call(data=orjson.dumps(body), headers=headers)


async def test_the_hold_is_as_large_as_the_request_allows_the_agent_to_work(
    clean_redis_url: str, postgres_url: str
) -> None:
    meter = tokens(reserve_from=(Source("request.json", "/max_tokens"),))
    async with served(clean_redis_url, postgres_url, priced(meters=(meter,))) as gateway:
        reply = await gateway.call(data=b'{"max_tokens": 70, "use": 60}')
        assert reply.headers["X-Credits-Charged"] == "0.06"
        row = await gateway.settlement()
        assert (row.held_microcredits, row.units) == (70_000, "token=60")
        # What the request does not say, or says wrongly, is reserved as ever.
        for body in (b'{"max_tokens": -1, "use": 1}', b'{"use": 1}', b"no json", b""):
            await gateway.call(data=body)
        assert {row.held_microcredits for row in await gateway.settlements(5)} == {
            70_000,
            1_000_000,
        }


@pytest.mark.parametrize(("size", "held"), [(10, 1_000_000), (70_000, 70_000), (9 << 20, 9 << 20)])
async def test_bodies_of_any_size_decide_by_their_length(
    clean_redis_url: str, postgres_url: str, size: int, held: int
) -> None:
    meter = tokens(reserve_from=(Source("request.bytes", ""),), picocredits_per_unit=MICRO)
    price = priced(meters=(meter,), minimum_microcredits=1_000_000 if size < 100 else 0)
    async with served(clean_redis_url, postgres_url, price) as gateway:
        reply = await gateway.call(data=b'{"use": 5}'.ljust(size))
        assert reply.status == 200
        row = await gateway.settlement()
        assert row.held_microcredits == held


async def test_a_chunked_body_is_read_before_it_is_priced(
    clean_redis_url: str, postgres_url: str
) -> None:
    async def upload() -> AsyncIterator[bytes]:
        for part in (b'{"max_tokens"', b": 50, ", b'"use": 50}'):
            yield part
            await asyncio.sleep(0)

    meter = tokens(reserve_from=(Source("request.json", "/max_tokens"),))
    async with served(clean_redis_url, postgres_url, priced(meters=(meter,))) as gateway:
        reply = await gateway.call(data=upload())
        assert reply.headers["X-Credits-Charged"] == "0.05"
        assert (await gateway.settlement()).held_microcredits == 50_000


async def test_a_table_prices_by_a_value_of_the_request(
    clean_redis_url: str, postgres_url: str
) -> None:
    cases = {"large": priced(per_request_microcredits=2 * CREDIT), "small": priced()}
    price = priced(
        per_request_microcredits=CREDIT,
        table=Table(Source("request.json", "/model"), cases, listed_only=False),
    )
    async with served(clean_redis_url, postgres_url, price) as gateway:
        charged = [
            (await gateway.call(data=orjson.dumps({"model": model, "use": 10}))).headers[
                "X-Credits-Charged"
            ]
            for model in ("large", "small", "unheard-of", None)
        ]
        assert charged == ["2.01", "0.01", "1.01", "1.01"]


async def test_what_no_table_lists_can_be_refused_and_never_reaches_the_agent(
    clean_redis_url: str, postgres_url: str
) -> None:
    table = Table(Source("request.json", "/model"), {"small": priced()}, listed_only=True)
    async with (
        nasty_upstream(usage_agent) as agent,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(agent.url, price=priced(table=table))]
        ) as gateway,
    ):
        reply = await gateway.call(data=b'{"model": "huge"}')
        assert reply.status == 400
        assert "huge" in orjson.loads(reply.body)["detail"]
        assert (await gateway.call(data=b'{"model": "small"}')).status == 200
        assert len(agent.requests) == 1


async def test_tiers_are_exact_however_many_calls_run_at_once(
    clean_redis_url: str, postgres_url: str
) -> None:
    """1-1 000 at 10, to 10 000 at 8, beyond at 5 microcredits: 12 000 units cost 92 000."""
    tiers = (Tier(1_000, 10 * MICRO), Tier(10_000, 8 * MICRO), Tier(None, 5 * MICRO))
    meter = tokens(tiers=tiers, picocredits_per_unit=0)
    async with served(clean_redis_url, postgres_url, priced(meters=(meter,))) as gateway:
        sizes = [7, 30, 63, 100] * 60  # 12 000
        await asyncio.gather(*(ask(gateway, use=size) for size in sizes))
        rows = await gateway.settlements(len(sizes))
        assert sum(row.charged_microcredits for row in rows) == 10_000 + 72_000 + 10_000


async def test_the_tiers_place_survives_the_loss_of_redis(
    clean_redis_url: str, postgres_url: str
) -> None:
    tiers = (Tier(100, 10 * MICRO), Tier(None, 1 * MICRO))
    meter = tokens(tiers=tiers, picocredits_per_unit=0)
    async with served(clean_redis_url, postgres_url, priced(meters=(meter,))) as gateway:
        await ask(gateway, use=90)
        await gateway.settlements(1)
        await gateway.counters.command("FLUSHALL")
        await ask(gateway, use=20)
        charged = [row.charged_microcredits for row in await gateway.settlements(2)]
        assert charged == [10 * 10 + 10 * 1, 900]


async def test_the_caller_bounds_the_hold_and_the_charge(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with served(clean_redis_url, postgres_url, CHAT_PRICE) as gateway:
        reply = await gateway.call(data=b'{"use": 30}', headers={"X-Max-Credits": "0.2"})
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (200, "0.13")
        assert (await gateway.settlement()).held_microcredits == 200_000
        # It does not fit, whatever the agent does: nothing is held, nothing is sent.
        reply = await gateway.call(headers={"X-Max-Credits": "0.05"})
        problem = orjson.loads(reply.body)
        assert (reply.status, problem["code"]) == (402, "spend_cap_reached")
        assert (problem["needed"], problem["limit"], problem["limit_source"]) == (
            "0.1",
            "0.05",
            "caller",
        )
        assert len(await gateway.settlements(1)) == 1


async def test_an_answer_beyond_the_callers_bound_is_kept_back_and_the_bound_is_charged(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Else a small X-Max-Credits would be the way to get dear answers cheaply."""
    async with served(clean_redis_url, postgres_url, CHAT_PRICE) as gateway:
        reply = await gateway.call(data=b'{"use": 500}', headers={"X-Max-Credits": "0.2"})
        assert (reply.status, reply.headers["X-Credits-Charged"]) == (402, "0.2")
        assert orjson.loads(reply.body)["needed"] == "0.6"
        row = await gateway.settlement()
        assert (row.ending, row.status, row.charged_microcredits) == ("exhausted", 402, 200_000)
        assert await gateway.balance() == (100 * CREDIT - 200_000, 0)


@pytest.mark.parametrize("text", ["", "-1", "1e3", "NaN", "1,5", "9" * 30])
async def test_a_bound_that_is_no_amount_is_refused(
    clean_redis_url: str, postgres_url: str, text: str
) -> None:
    async with served(clean_redis_url, postgres_url, CHAT_PRICE) as gateway:
        reply = await gateway.call(headers={"X-Max-Credits": text})
        assert reply.status == 400
        assert "X-Max-Credits" in orjson.loads(reply.body)["detail"]


@pytest.mark.parametrize(
    ("word", "charged", "flags"),
    [
        (None, 1_100_000, "units_missing"),
        (OnMissing.RESERVED, 1_100_000, "units_missing"),
        (OnMissing.MINIMUM, 100_000, "units_missing"),
        (OnMissing.ESTIMATE, 101_000, "units_missing,estimated"),
    ],
)
async def test_a_complete_answer_without_units_costs_what_the_meter_says(
    clean_redis_url: str, postgres_url: str, word: OnMissing | None, charged: int, flags: str
) -> None:
    price = priced(per_request_microcredits=CREDIT // 10, meters=(tokens(on_missing=word),))
    async with served(clean_redis_url, postgres_url, price) as gateway:
        await gateway.call(data=b"{}")  # the answer is "{}": 2 bytes, which suggest 1 token
        row = await gateway.settlement()
        assert (row.charged_microcredits, row.flags) == (charged, flags)


async def test_a_long_upload_in_chunks_is_charged_by_its_length(
    clean_redis_url: str, postgres_url: str
) -> None:
    """Too long to be read before it is sent on: its length is known when it has passed."""
    size = REQUEST_READ_MAX_BYTES + 70_000

    async def upload() -> AsyncIterator[bytes]:
        yield b'{"use": 1}'.ljust(size % 10_000)
        for _ in range(size // 10_000):
            yield b" " * 10_000

    meter = tokens(sources=(Source("request.bytes", ""),), picocredits_per_unit=MICRO)
    async with served(clean_redis_url, postgres_url, priced(meters=(meter,))) as gateway:
        await gateway.call(data=upload())
        row = await gateway.settlement()
        assert (row.units, row.charged_microcredits) == (f"token={size}", size)

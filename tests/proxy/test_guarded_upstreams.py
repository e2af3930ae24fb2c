"""A route that people manage by the API calls only where the operator lets owners' upstreams be."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.identity.seal import Sealer
from gateway.ledger import PlatformRoutes, PlatformRow
from gateway.proxy.offers import Offer, build_offers
from gateway.proxy.traffic import RouteTraffic
from gateway.upstream import Networks
from policies.catalog import Protocol
from tests.support.conversations import handshake, talk_route
from tests.support.gateway import CREDIT, chat_route, open_route, running_gateway
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.upstream_calls import HI
from tests.support.waiting import DEADLINE_S

if TYPE_CHECKING:
    from policies.catalog import Route
    from tests.support.gateway import Gateway

ALLOWED = Networks.of(["10.0.0.0/8"])
NOWHERE = "http://127.0.0.1:9"


async def managed_by(gateway: Gateway, postgres_url: str, who: str) -> None:
    """All routes are, and the worker knows it."""
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("UPDATE routes SET managed_by = $1", who)
    await connection.close()
    await gateway.worker.load_catalogue()


async def status_of(gateway: Gateway, request: bytes) -> int:
    reader, writer = await gateway.connect()
    writer.write(request)
    start = await reader.readline()
    writer.close()
    return int(start.split()[1])


async def test_a_call_of_an_owners_route_into_this_machine_is_refused_and_costs_nothing(
    clean_redis_url: str, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with (
        nasty_upstream(answering(HI)) as agent,
        running_gateway(clean_redis_url, postgres_url, [open_route(agent.url)]) as gateway,
    ):
        assert (await gateway.call("/any/thing")).status == 200
        await managed_by(gateway, postgres_url, "api")
        reply = await gateway.call("/any/thing")
        assert (reply.status, b"upstream_error" in reply.body) == (502, True)
        assert b"127.0.0.1" not in reply.body
        assert "not public" in caplog.text
        assert (agent.connections, len(agent.requests)) == (1, 1)
        assert [row.charged_microcredits for row in await gateway.settlements(2)] == [0, CREDIT]
        await managed_by(gateway, postgres_url, "config")
        assert (await gateway.call("/any/thing")).status == 200


async def test_where_the_operator_allows_it_an_owners_route_is_served(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        nasty_upstream(answering(HI)) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [open_route(agent.url)],
            private_upstreams=("127.0.0.0/8",),
        ) as gateway,
    ):
        await managed_by(gateway, postgres_url, "api")
        assert (await gateway.call("/any/thing")).status == 200


async def test_listening_to_an_agent_and_talking_to_one_is_guarded_as_well(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        asyncio.timeout(DEADLINE_S),
        nasty_upstream(answering(HI)) as agent,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [
                open_route(agent.url, pattern="/mcp", protocol=Protocol.MCP, price=None),
                talk_route(agent.url),
            ],
        ) as gateway,
    ):
        await managed_by(gateway, postgres_url, "api")
        listen = gateway.head("GET /mcp HTTP/1.1", "Accept: text/event-stream")
        assert await status_of(gateway, listen) == 502
        assert await status_of(gateway, handshake(gateway)) == 502
        assert agent.connections == 0


def guards_of(route: Route) -> list[Networks | None]:
    platform = PlatformRow(1, "demo", "Demo", None)
    offers = build_offers(
        [PlatformRoutes(platform, (route,))], lambda _: RouteTraffic(), ALLOWED, Sealer(())
    )
    offer = offers[1].find("POST", "/chat")
    assert isinstance(offer, Offer)
    return [offer.origin.networks, offer.patient.origin.networks]


@pytest.mark.parametrize("upstream", [NOWHERE, "https://127.0.0.1:9"])
@pytest.mark.parametrize("protocol", list(Protocol))
def test_every_origin_of_a_guarded_route_has_the_deployments_networks(
    protocol: Protocol, upstream: str
) -> None:
    route = chat_route(upstream, protocol=protocol, price=None)
    assert guards_of(route) == [None, None]
    route = chat_route(upstream, protocol=protocol, price=None, guarded=True)
    assert guards_of(route) == [ALLOWED, ALLOWED]


def test_who_forgets_the_networks_gets_the_strictest() -> None:
    assert Offer(chat_route(NOWHERE, guarded=True), None).origin.networks == Networks()

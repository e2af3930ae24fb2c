"""Looking at the traffic: twice, and what happened in between."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.roles import VIEWERS
from gateway.control.traffic.models import RouteTraffic, Traffic, TrafficQuery
from gateway.counters.traffic import since

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask


async def look(ask: Ask, query: TrafficQuery) -> Traffic:
    """Workers tell Redis once a second what they did."""
    before = await ask.counters.traffic()
    await asyncio.sleep(query.seconds)
    rows = since(before, await ask.counters.traffic())
    names = await ask.ledger.route_names(ask.platform_id)
    return Traffic(
        at=now_ms(),
        seconds=query.seconds,
        routes=[
            RouteTraffic(
                route=names[route_id],
                calls=max(row.calls, 0),
                charged_credits=max(row.microcredits, 0),
                denials=max(row.denials, 0),
            )
            for route_id, row in sorted(rows.items())
            if route_id in names
        ],
    )


ENDPOINTS = (
    Endpoint(
        "GET", "/v1/traffic", "Look at the traffic", VIEWERS, look,
        query=TrafficQuery, answers=Traffic,
        description="Answers after `seconds`, with what happened meanwhile. A look at the moment, "
        "not the books: usage is exact.",
    ),
)  # fmt: skip

"""Answers of every shape are metered as they pass, and pass as they are."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import TYPE_CHECKING

import brotli  # type: ignore[import-untyped]
import pytest

from gateway.proxy.decoders import READABLE_ENCODINGS, zstd
from policies.catalog import MeterSpec, Price
from policies.meters import parse_sources
from tests.support.gateway import chat_route, running_gateway
from tests.support.nasty_upstream import nasty_upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.nasty_upstream import Conversation

ANSWER = json.dumps({"text": "words " * 90, "usage": {"total_tokens": 30}}).encode()
STREAM = b'data: {"usage": null}\n\n' * 9 + b"data: " + ANSWER + b"\n\ndata: [DONE]\n\n"
LINES = b'{"n": 10}\n{"n": 20}\n'
ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstd.compress,
}


def price(*sources: str) -> Price:
    meter = MeterSpec(
        "token", tuple(one for text in sources for one in parse_sources(text)), 1_000_000_000, 100
    )
    return Price(meters=(meter,))


async def test_no_encoding_is_asked_for_that_cannot_be_read(
    clean_redis_url: str, postgres_url: str
) -> None:
    asked = []

    async def agent(talk: Conversation) -> None:
        request = await talk.request()
        asked.append(request.header(b"accept-encoding"))
        await talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    async with (
        nasty_upstream(agent) as upstream,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [chat_route(upstream.url, price=price("openai.total_tokens"))],
        ) as gateway,
    ):
        offered = "gzip, compress, br;q=0.9, zstd, dcz"
        await gateway.call(data=b"{}", headers={"Accept-Encoding": offered})
    assert asked == [b"gzip, br;q=0.9, zstd"]
    assert {"gzip", "br", "zstd"} <= READABLE_ENCODINGS


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize(
    ("content_type", "plain"), [("application/json", ANSWER), ("text/event-stream", STREAM)]
)
async def test_a_compressed_answer_costs_what_it_says_and_passes_untouched(
    clean_redis_url: str,
    postgres_url: str,
    content_type: str,
    plain: bytes,
    encoding: str,
    *,
    chunked: bool,
) -> None:
    body = ENCODERS[encoding](plain)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Encoding: {encoding}\r\n"

    async def agent(talk: Conversation) -> None:
        await talk.request()
        if not chunked:
            await talk.send(head.encode() + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            return
        await talk.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for part in (body[:20], body[20:40], body[40:]):
            await talk.send(b"%x\r\n%b\r\n" % (len(part), part))
        await talk.send(b"0\r\n\r\n")

    async with (
        nasty_upstream(agent) as upstream,
        running_gateway(
            clean_redis_url,
            postgres_url,
            [chat_route(upstream.url, price=price("openai.total_tokens"))],
        ) as gateway,
    ):
        reply = await gateway.call(data=b"{}", headers={"Accept-Encoding": encoding})
        row = await gateway.settlement()
    assert (row.units, row.flags, row.charged_microcredits) == ("token=30", "", 30_000)
    assert reply.body == body


@pytest.mark.parametrize(
    ("source", "units"),
    [
        ("response.ndjson:/n", 20),
        ("response.ndjson.sum:/n", 30),
        ("response.ndjson.count", 2),
        ("response.header:X-Units", 7),
        ("response.bytes", len(LINES)),
        ("request.json:/messages/#", 2),
        ("request.bytes", 18),
    ],
)
async def test_units_are_read_wherever_they_stand(
    clean_redis_url: str, postgres_url: str, source: str, units: int
) -> None:
    async def agent(talk: Conversation) -> None:
        await talk.request()
        await talk.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nx-units: 7\r\n"
            b"X-Other: 1\r\nContent-Length: %d\r\n\r\n%b" % (len(LINES), LINES)
        )

    async with (
        nasty_upstream(agent) as upstream,
        running_gateway(
            clean_redis_url, postgres_url, [chat_route(upstream.url, price=price(source))]
        ) as gateway,
    ):
        reply = await gateway.call(data=b'{"messages":[0,1]}')
        row = await gateway.settlement()
    assert (row.units, row.flags) == (f"token={units}", "")
    assert reply.body == LINES
    assert reply.headers["X-Other"] == "1"
    assert ("X-Units" in reply.headers) is ("header" not in source)

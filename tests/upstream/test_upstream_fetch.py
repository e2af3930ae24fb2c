"""A document from an owner's URL: by a verified name, from a place that may be asked, bounded."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from gateway.upstream import (
    Networks,
    UpstreamBroken,
    UpstreamError,
    UpstreamForbidden,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from gateway.upstream.fetch import fetch
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.resolver import resolving
from tests.support.upstream_calls import OK, connections_of

if TYPE_CHECKING:
    from gateway.upstream import UpstreamClient
    from tests.support.nasty_upstream import Conversation

HERE = Networks.of(["127.0.0.1/32"])
KEYS = OK + b'Content-Length: 11\r\n\r\n{"keys":[]}'
BYTES_MAX = 1_000


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(scope="module")
def serving(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("issuer.example").configure_cert(context)
    return context


async def body_of(
    client: UpstreamClient,
    url: str,
    networks: Networks = HERE,
    *,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = 10,
) -> bytes:
    return await fetch(client, url, networks, bytes_max=BYTES_MAX, timeout_s=timeout_s, tls=tls)


async def test_a_document_is_fetched_as_its_url_says(
    client: UpstreamClient,
    monkeypatch: pytest.MonkeyPatch,
    serving: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    resolving(monkeypatch, ["127.0.0.1"])
    async with nasty_upstream(answering(KEYS), tls=serving) as agent:
        url = f"https://issuer.example:{agent.port}/keys/?p=one&q=%20"
        assert await body_of(client, url, tls=trusting) == b'{"keys":[]}'
        (request,) = agent.requests
    assert request.head.startswith(b"GET /keys/?p=one&q=%20 HTTP/1.1\r\n")
    assert request.header(b"Host") == b"issuer.example:%d" % agent.port
    assert request.header(b"Accept") == b"application/json"
    assert request.header(b"Connection") == b"close"


async def test_a_certificate_of_somebody_else_is_no_way_to_keys(
    client: UpstreamClient,
    monkeypatch: pytest.MonkeyPatch,
    serving: ssl.SSLContext,
    trusting: ssl.SSLContext,
) -> None:
    resolving(monkeypatch, ["127.0.0.1"])
    async with nasty_upstream(answering(KEYS), tls=serving) as agent:
        with pytest.raises(UpstreamUnreachable):
            await body_of(client, f"https://other.example:{agent.port}/", tls=trusting)
        assert agent.requests == []


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_place_that_may_not_be_asked_is_not(
    client: UpstreamClient, scheme: str, trusting: ssl.SSLContext
) -> None:
    async with nasty_upstream(answering(KEYS)) as agent:
        with pytest.raises(UpstreamForbidden):
            await body_of(client, f"{scheme}://127.0.0.1:{agent.port}/", Networks(), tls=trusting)
        assert agent.connections == 0


async def test_http_is_for_allowed_networks_only(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with nasty_upstream(answering(KEYS)) as agent:
        assert await body_of(client, f"http://127.0.0.1:{agent.port}") == b'{"keys":[]}'
        assert agent.requests[0].head.startswith(b"GET / HTTP/1.1\r\n")
    resolving(monkeypatch, ["8.8.8.8"])
    with pytest.raises(UpstreamForbidden):
        await body_of(client, "http://issuer.example/keys")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
        OK + b"Content-Length: %d\r\n\r\n" % (BYTES_MAX + 1) + b"x" * (BYTES_MAX + 1),
        OK + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1_001 + b"\r\n0\r\n\r\n",
    ],
)
async def test_no_answer_but_a_plain_and_short_one_is_taken(
    client: UpstreamClient, answer: bytes
) -> None:
    async with nasty_upstream(answering(answer)) as agent:
        with pytest.raises(UpstreamBroken):
            await body_of(client, f"http://127.0.0.1:{agent.port}/")
        assert len(agent.requests) == 1


async def test_an_answer_of_just_the_bound_is_taken(client: UpstreamClient) -> None:
    whole = OK + b"Content-Length: %d\r\n\r\n" % BYTES_MAX + b"x" * BYTES_MAX
    async with nasty_upstream(answering(whole)) as agent:
        assert await body_of(client, f"http://127.0.0.1:{agent.port}/") == b"x" * BYTES_MAX


async def test_an_endless_answer_is_left_at_the_bound(client: UpstreamClient) -> None:
    async def endless(talk: Conversation) -> None:
        await talk.request()
        await talk.send(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        while True:
            await talk.send(b"100\r\n" + b"x" * 256 + b"\r\n")

    async with nasty_upstream(endless) as agent:
        with pytest.raises(UpstreamBroken, match="longer"):
            await body_of(client, f"http://127.0.0.1:{agent.port}/")
        assert not connections_of(client)


async def test_half_a_document_is_none(client: UpstreamClient) -> None:
    half = OK + b"Content-Length: 11\r\n\r\n{}"
    async with nasty_upstream(answering(half, then_close=True)) as agent:
        with pytest.raises(UpstreamTruncated):
            await body_of(client, f"http://127.0.0.1:{agent.port}/")


@pytest.mark.parametrize("begin", [b"", OK + b"Content-Length: 9\r\n\r\n", KEYS[:-1]])
async def test_silence_ends_within_the_time(client: UpstreamClient, begin: bytes) -> None:
    async def silent(talk: Conversation) -> None:
        await talk.request()
        await talk.send(begin)
        await talk.gone()

    async with nasty_upstream(silent) as agent:
        with pytest.raises(UpstreamTimeout):
            await body_of(client, f"http://127.0.0.1:{agent.port}/", timeout_s=0.1)
        assert not connections_of(client)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "//127.0.0.1/",
        "http://user@127.0.0.1/",
        "http://127.0.0.1/#a",
        "http://127.0.0.1/?a#b",
        "http://127.0.0.1/?a b",
        "http://127.0.0.1/?a\r\nX: y",
        "http://127.0.0.1/a\r\nX: y",
        "http://127.0.0.1/?ä",
    ],
)
async def test_what_is_no_plain_url_is_not_fetched(client: UpstreamClient, url: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        await body_of(client, url)


async def test_a_name_that_does_not_resolve_fails_as_any_upstream(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, [])
    with pytest.raises(UpstreamError):
        await body_of(client, "http://issuer.example/")

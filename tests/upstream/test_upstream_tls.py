"""TLS is verified or there is no connection; names, addresses and URLs are what they seem."""

from __future__ import annotations

import socket
import ssl
import warnings
from typing import TYPE_CHECKING

import pytest
import trustme

from gateway.upstream import (
    Origin,
    UpstreamClient,
    UpstreamTruncated,
    UpstreamUnreachable,
    client_context,
)
from tests.support.nasty_upstream import Conversation, answering, nasty_upstream
from tests.support.resolver import resolving
from tests.support.upstream_calls import HI, OK, connections_of, get, waiting_in, whole

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.nasty_upstream import Agent


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


def server_context(authority: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def secure_origin(agent: Agent, host: str = "localhost", ca_file: str | None = None) -> Origin:
    return Origin.parse(f"https://{host}:{agent.port}", tls_ca_file=ca_file)[0]


async def test_a_trusted_certificate_is_accepted_and_its_connection_kept(
    client: UpstreamClient, authority: trustme.CA, ca_file: str
) -> None:
    tls = server_context(authority, "localhost")
    names: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: names.append(name)
    async with nasty_upstream(answering(HI), tls=tls) as agent:
        origin = secure_origin(agent, ca_file=ca_file)
        for _ in range(3):
            assert (await get(client, agent, origin)).body == b"hi"
        assert agent.connections == 1
        assert names == ["localhost"]


@pytest.mark.parametrize("mistake", ["unknown_authority", "other_name", "address", "old", "plain"])
async def test_tls_that_does_not_verify_gets_no_byte_of_the_request(
    client: UpstreamClient, authority: trustme.CA, ca_file: str, mistake: str
) -> None:
    tls: ssl.SSLContext | None = server_context(
        authority, "elsewhere.test" if mistake == "other_name" else "localhost"
    )
    if mistake == "old":
        assert tls is not None
        tls.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            tls.minimum_version = ssl.TLSVersion.TLSv1
            tls.maximum_version = ssl.TLSVersion.TLSv1_1
    if mistake == "plain":
        tls = None

    async def plain(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await talk.gone()

    async with nasty_upstream(answering(HI) if tls else plain, tls=tls) as agent:
        origin = secure_origin(
            agent,
            "127.0.0.1" if mistake == "address" else "localhost",
            None if mistake == "unknown_authority" else ca_file,
        )
        with pytest.raises(UpstreamUnreachable) as caught:
            await get(client, agent, origin)
        assert not caught.value.sent
        assert agent.requests == []
        assert not connections_of(client)
        assert not waiting_in(client)


@pytest.mark.parametrize("clean", [True, False])
async def test_over_tls_only_close_notify_is_the_end_of_a_body_without_framing(
    client: UpstreamClient, authority: trustme.CA, ca_file: str, clean: bool
) -> None:
    async def script(talk: Conversation) -> None:
        await talk.request()
        await talk.send(OK + b"\r\nhello")
        await talk.reader.read(1)  # the test has seen it: nothing is overtaken by the close
        if not clean:
            talk.writer.transport.abort()  # FIN without close_notify, as an attacker can send it

    tls = server_context(authority, "localhost")
    async with nasty_upstream(script, tls=tls) as agent:
        answer = await get(client, agent, secure_origin(agent, ca_file=ca_file))
        assert await answer.read() == b"hello"
        connections_of(client)[0].transport.write(b"x")
        if clean:
            assert await whole(answer) == b""
            assert answer.ended
        else:
            with pytest.raises(UpstreamTruncated):
                await answer.read()


async def test_an_ipv6_literal_is_reached(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(HI), host="::1") as agent:
        origin, _ = Origin.parse(agent.url)
        assert origin.host_header == f"[::1]:{agent.port}".encode()
        assert (await get(client, agent, origin)).body == b"hi"


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_name_with_both_families_is_reached_where_it_listens(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    async with nasty_upstream(answering(HI), host=host) as agent:
        resolving(monkeypatch, ["::1", "127.0.0.1"])
        async with UpstreamClient() as client:
            origin, _ = Origin.parse(f"http://agent.test:{agent.port}")
            assert (await get(client, agent, origin)).body == b"hi"


async def test_an_address_that_swallows_connections_does_not_hold_up_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as full:  # its queue is full: what comes is dropped
        full.bind(("127.0.0.2", 0))
        full.listen(0)
        port = full.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.settimeout(0)
            filler.connect_ex(full.getsockname())
        async with nasty_upstream(answering(HI), port=port) as agent:
            resolving(monkeypatch, ["127.0.0.2", "127.0.0.1"])
            async with UpstreamClient() as client:
                origin, _ = Origin.parse(f"http://agent.test:{port}")
                assert (await get(client, agent, origin)).body == b"hi"
        for filler in fillers:
            filler.close()


async def test_a_name_that_does_not_resolve_is_unreachable(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        origin, _ = Origin.parse("http://no-such-name.invalid")
        with pytest.raises(UpstreamUnreachable):
            await get(client, agent, origin)


@pytest.mark.parametrize(
    ("url", "host", "port", "header", "base"),
    [
        ("http://agent", "agent", 80, b"agent", b""),
        ("http://Agent.example:80/", "agent.example", 80, b"agent.example", b""),
        ("https://agent/v1/", "agent", 443, b"agent", b"/v1"),
        ("https://agent:8443/a/b", "agent", 8443, b"agent:8443", b"/a/b"),
        ("http://[::1]:9", "::1", 9, b"[::1]:9", b""),
        ("http://[2001:DB8::1]", "2001:db8::1", 80, b"[2001:db8::1]", b""),
    ],
)
def test_an_upstream_url_is_taken_apart(
    url: str, host: str, port: int, header: bytes, base: bytes
) -> None:
    origin, path = Origin.parse(url)
    assert (origin.host, origin.port, origin.host_header, path) == (host, port, header, base)
    assert (origin.tls is not None) == (origin.scheme == "https")
    if origin.tls is not None:
        assert origin.tls.verify_mode is ssl.CERT_REQUIRED
        assert origin.tls.check_hostname
        assert origin.tls.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "url",
    [
        "ftp://agent",
        "agent:80",
        "http://",
        "http:///path",
        "http://user:secret@agent",
        "http://agent/?a=b",
        "http://agent/#part",
        "http://agent/?",
        "http://agent:0",
        "http://agent:99999",
        "http://agent:x",
        "http://[::1",
        "http://agent/a b",
        "http://agent/a\r\nHost: b",
        "http://agent\r\nX: y",
        "http://agänt",
        "http://agent\\@evil",
    ],
)
def test_an_upstream_url_that_is_not_plain_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        Origin.parse(url)


def test_equal_origins_share_a_pool_whatever_their_timeouts(ca_file: str) -> None:
    tls = client_context(ca_file)
    one, _ = Origin.parse("https://agent/a", tls=tls)
    two, _ = Origin.parse("https://agent:443/b", tls=tls)
    other, _ = Origin.parse("https://agent/a", tls=client_context(ca_file))
    assert (one == two, hash(one) == hash(two), one == other) == (True, True, False)

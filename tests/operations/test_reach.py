"""What an owner's upstream may look like, and what is told about reaching it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trustme

from gateway.operations import reach as module
from gateway.operations.reach import Reach, check_upstream, reach
from gateway.upstream import Networks
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.resolver import resolving
from tests.support.upstream_calls import HI

if TYPE_CHECKING:
    from tests.support.nasty_upstream import Conversation

NONE = Networks()
HERE = Networks.of(["127.0.0.0/8", "::1/128", "10.0.0.0/8"])
HIDDEN = "must resolve, and to public addresses only"


async def problem_of(url: str, networks: Networks = NONE) -> str:
    problems = await check_upstream(url, networks)
    assert len(problems) == 1, problems
    return problems[0]


@pytest.mark.parametrize(
    "url",
    [
        "https://agent.example",
        "http://Agent.Example.:80/v1/",
        "https://agent.example:8443/base/path",
        "http://my_agent.example:1024",
        "http://agent.example:65535",
        "http://8.8.8.8",
        "http://[2606:4700::1]:8080/x",
        "http://3com.example",
        "http://0x7g.example",
        "http://127.0.0.1.example",
    ],
)
async def test_a_public_http_server_may_be_an_upstream(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    resolving(monkeypatch, ["8.8.8.8", "2606:4700::1"])
    assert await check_upstream(url, NONE) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "must be http:// or https://"),
        ("ftp://agent.example", "must be http:// or https://"),
        ("file:///etc/passwd", "must be http:// or https://"),
        ("//agent.example", "must be http:// or https://"),
        ("https://", "must be http:// or https://"),
        ("https://user:secret@agent.example", "has a user or password"),
        ("https://@agent.example", "has a user or password"),
        ("https://agent.example:0", "host and port"),
        ("https://agent.example:65536", "not a valid URL"),
        ("https://agent.example:x", "not a valid URL"),
        ("https://agent.example:", "host and port"),
        ("https://agent.example:25", "port 25 is another service's"),
        ("https://agent.example:22/a", "port 22 is another service's"),
        ("https://agent.example:1023", "port 1023 is another service's"),
        ("https://agent.example/a?b", "must end with its path"),
        ("https://agent.example/#a", "must end with its path"),
        ("https://agent.example/a/../b", "dot segments"),
        ("https://agent.example/%2e", "escapes"),
        ("https://agent.example/a b", "visible ASCII"),
        ("https://agent.example\r\nX: y", "visible ASCII"),
        ("https://agent.ex\tample", "visible ASCII"),
        ("https://agént.example", "visible ASCII"),
        ("https://agent.example\\@evil.example", "has a user or password"),
        ("https://%31%32%37.0.0.1", "host and port"),
        ("https://a..example", "no name of a host"),
        ("https://" + "a" * 64 + ".example", "no name of a host"),
        ("https://" + "a." * 130 + "example", "no name of a host"),
        ("http://[::1%25eth0]", "host and port"),
        ("http://[::1%eth0]", "host and port"),
        ("http://[1::2::3]", "not a valid URL|no IPv6 address"),
    ],
)
async def test_what_is_no_plain_url_of_an_http_server_is_a_problem(
    monkeypatch: pytest.MonkeyPatch, url: str, message: str
) -> None:
    resolver = resolving(monkeypatch, ["8.8.8.8"])
    problem = await problem_of(url)
    assert any(part in problem for part in message.split("|")), problem
    assert "secret" not in problem
    assert resolver.asked == []


@pytest.mark.parametrize(
    "host",
    [
        *("127.1", "0", "2130706433", "017700000001", "0177.0.0.1", "127.0.0.01", "0x7f.1"),
        *("0x7F000001", "0X7f.0.0.1", "127.0.0.0x1", "127.0.0.0x", "127.0.0.1.", "1.2.3.4.5"),
        *("8.8.8.8.", "agent.1", "8.8", "300.1.1.1", "[::ffff:8.8.8.8]", "[::ffff:7f00:1]"),
    ],
)
async def test_an_address_is_written_in_one_way(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    resolver = resolving(monkeypatch, ["8.8.8.8"])
    for networks in (NONE, HERE):
        assert "ambiguous address" in await problem_of(f"http://{host}:8080/", networks)
    assert resolver.asked == []


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "a loopback address"),
        ("10.0.0.1", "a private address"),
        ("169.254.169.254", "a link-local address"),
        ("[::1]", "a loopback address"),
        ("[fd00:ec2::254]", "a cloud's own services"),
        ("[64:ff9b::808:808]", "translated"),
        ("192.0.2.1", "for documentation"),
    ],
)
async def test_an_address_that_is_not_public_is_a_problem_by_its_rule(host: str, why: str) -> None:
    problem = await problem_of(f"http://{host}:9100")
    assert why in problem
    assert "only the operator can allow it" in problem


async def test_an_address_that_the_operator_allows_is_none() -> None:
    for host in ("127.0.0.1", "[::1]", "10.1.2.3"):
        assert await check_upstream(f"http://{host}:9100", HERE) == []
    assert "a private address" in await problem_of("http://192.168.0.1", HERE)


@pytest.mark.parametrize(
    "addresses", [[], ["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["8.8.8.8", "::1"]]
)
async def test_what_a_name_means_in_the_gateways_network_is_not_told(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    resolving(monkeypatch, addresses)
    unknown = await problem_of("http://agent.example")
    assert HIDDEN in unknown
    assert not any(address in unknown for address in addresses)


async def test_a_name_may_lead_where_the_operator_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ["10.0.0.1", "8.8.8.8"])
    assert await check_upstream("http://agent.example", HERE) == []


LOCAL_NAMES = [
    *("localhost", "LOCALHOST", "localhost.", "agent", "agent.", "a.localhost", "redis.internal"),
    *("Metadata.Google.Internal", "printer.local", "a.svc.cluster.local", "nas.lan", "a.home.arpa"),
    *("a.corp", "a.home", "a.intranet", "a.private", "localhost.localdomain"),
]


@pytest.mark.parametrize("name", LOCAL_NAMES)
async def test_a_name_within_a_network_needs_the_operator_whatever_it_means(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    resolver = resolving(monkeypatch, ["8.8.8.8"])
    assert "a name within a network" in await problem_of(f"http://{name}:9100")
    assert resolver.asked == []  # nobody can ask our resolver for them
    assert "a name within a network" in await problem_of(f"http://{name}:9100", HERE)
    resolving(monkeypatch, ["10.0.0.1"])
    assert await check_upstream(f"http://{name}:9100", HERE) == []


def test_the_manual_names_every_end_of_such_a_name() -> None:
    manual = (Path(__file__).parents[2] / "docs/upstreams.md").read_text()
    assert [end for end in module._LOCAL_ENDS if f"`{end}`" not in manual] == [".localhost"]


@pytest.mark.parametrize("name", ["mylocal.example", "internal.example", "notlan.example"])
async def test_a_name_that_only_looks_alike_is_like_any_other(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    resolving(monkeypatch, ["8.8.8.8"])
    assert await check_upstream(f"http://{name}", NONE) == []


async def test_several_problems_are_told_at_once() -> None:
    assert len(await check_upstream("http://0x7f.1:22", NONE)) == 2


async def test_a_resolver_that_is_silent_does_not_hold_up_who_saves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolver = resolving(monkeypatch, ["8.8.8.8"])
    monkeypatch.setattr(module, "RESOLVE_TIMEOUT_S", 0.05)

    async def silent(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(resolver, "getaddrinfo", silent)
    assert HIDDEN in await problem_of("http://agent.example")


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
    authority.issue_cert("agent.example").configure_cert(context)
    return context


def problem_in(outcome: Reach) -> str:
    assert (outcome.ok, outcome.tls) == (False, None)
    assert outcome.ms >= 0
    assert outcome.problem is not None
    return outcome.problem


async def test_an_agent_is_reached_without_being_asked_anything() -> None:
    async with nasty_upstream(answering(HI)) as agent:
        for networks in (HERE, None):
            outcome = await reach(agent.url, networks)
            assert (outcome.ok, outcome.tls, outcome.problem) == (True, None, None)
        assert agent.connections == 2
        assert agent.requests == []


async def test_an_agent_with_tls_is_reached_by_its_name(
    monkeypatch: pytest.MonkeyPatch, serving: ssl.SSLContext, trusting: ssl.SSLContext
) -> None:
    resolving(monkeypatch, ["127.0.0.1"])
    async with nasty_upstream(answering(HI), tls=serving) as agent:
        outcome = await reach(f"https://agent.example:{agent.port}/base", HERE, tls=trusting)
        assert outcome[::2] == (True, "TLSv1.3")
        assert agent.requests == []
        other = await reach(f"https://other.example:{agent.port}", HERE, tls=trusting)
        assert "certificate is not accepted: Hostname mismatch" in problem_in(other)
        unknown = await reach(f"https://agent.example:{agent.port}", HERE)
        assert "certificate is not accepted" in problem_in(unknown)


async def test_an_agent_without_tls_is_not_taken_for_one_with_it(
    trusting: ssl.SSLContext,
) -> None:
    async def plain(talk: Conversation) -> None:
        await talk.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await talk.gone()

    async with nasty_upstream(plain) as agent:
        outcome = await reach(f"https://127.0.0.1:{agent.port}", HERE, tls=trusting)
        assert "TLS" in problem_in(outcome)


async def test_why_an_agent_is_not_reached_is_told_without_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as bound:  # and not listening
        bound.bind(("127.0.0.1", 0))
        port = bound.getsockname()[1]
        resolving(monkeypatch, ["127.0.0.1"])
        refused = problem_in(await reach(f"http://agent.example:{port}", HERE))
    assert refused == "Connection refused"
    resolving(monkeypatch, [])
    assert "resolve" in problem_in(await reach("http://agent.example", HERE))
    assert problem_in(await reach("http://agent.example", None)) == "its name does not resolve"
    assert "http://" in problem_in(await reach("ftp://agent.example", None))


async def test_a_silent_agent_is_waited_for_no_longer_than_the_bound(
    trusting: ssl.SSLContext,
) -> None:
    async def silent(talk: Conversation) -> None:
        await talk.gone()

    async with nasty_upstream(silent) as agent:
        url = f"https://127.0.0.1:{agent.port}"
        outcome = await reach(url, HERE, tls=trusting, timeout_s=0.05)
        assert "no connection within 0.05 s" in problem_in(outcome)


async def test_what_may_not_be_saved_is_not_reached_for() -> None:
    async with nasty_upstream(answering(HI)) as agent:
        assert "a loopback address" in problem_in(await reach(agent.url, NONE))
        assert agent.connections == 0


async def test_a_name_that_is_rebound_between_look_and_connection_is_not_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        resolving(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
        outcome = await reach(f"http://agent.example:{agent.port}", NONE)
        assert HIDDEN in problem_in(outcome)
        assert agent.connections == 0

"""A guarded origin is judged by the address that is dialled, every time it is dialled."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from gateway.upstream import Networks, Origin, UpstreamForbidden, UpstreamUnreachable, dial
from gateway.upstream.websocket import new_key, open_websocket
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.resolver import resolving
from tests.support.upstream_calls import HI, connections_of, get, waiting_in

if TYPE_CHECKING:
    from gateway.upstream import UpstreamClient
    from tests.support.nasty_upstream import Agent

STRICT = Networks()
NOWHERE_ELSE = Networks.of(["127.0.0.1/32"])
CLOSING = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi"


def guarded(host: str, agent: Agent, networks: Networks = STRICT) -> Origin:
    return Origin.parse(f"http://{host}:{agent.port}", networks=networks)[0]


async def refused(client: UpstreamClient, agent: Agent, origin: Origin) -> str:
    before = agent.connections
    with pytest.raises(UpstreamForbidden) as caught:
        await get(client, agent, origin)
    assert not caught.value.sent
    assert agent.connections == before
    assert not connections_of(client)
    assert not waiting_in(client)
    return str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "127.0.0.01"),
        *(
            "localhost",
            "LOCALHOST",
            "0",
            "0.0.0.0",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
        ),
        *("[::]", "[0:0:0:0:0:ffff:7f00:0001]"),
    ],
)
async def test_no_spelling_of_this_machine_gets_a_connection(
    client: UpstreamClient, host: str
) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        await refused(client, agent, guarded(host, agent))


async def test_what_the_operator_allows_is_reached(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        for host in ("127.0.0.1", "0x7f.1", "[::ffff:127.0.0.1]"):
            assert (await get(client, agent, guarded(host, agent, NOWHERE_ELSE))).body == b"hi"


@pytest.mark.parametrize(
    "addresses",
    [["127.0.0.2"], ["::1"], ["127.0.0.1", "10.0.0.1"], ["fd00:ec2::254", "127.0.0.1"]],
)
async def test_a_name_with_one_refused_address_gets_no_connection(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch, addresses: list[str]
) -> None:
    resolving(monkeypatch, addresses)
    async with nasty_upstream(answering(HI)) as agent:
        message = await refused(client, agent, guarded("agent.example", agent, NOWHERE_ELSE))
    assert not any(address in message for address in addresses)


async def test_a_name_that_is_rebound_gets_no_further_connection(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    async with (
        nasty_upstream(answering(CLOSING)) as agent,
        nasty_upstream(answering(HI), host="127.0.0.2", port=agent.port) as inner,
    ):
        origin = guarded("agent.example", agent, NOWHERE_ELSE)
        assert (await get(client, agent, origin)).body == b"hi"
        await refused(client, agent, origin)
        assert len(resolver.asked) == 2
        assert inner.connections == 0


async def test_a_call_resolves_once_so_that_what_was_judged_is_what_is_dialled(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolver = resolving(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    async with nasty_upstream(answering(HI)) as agent:
        origin = guarded("agent.example", agent, NOWHERE_ELSE)
        assert (await get(client, agent, origin)).body == b"hi"
        assert resolver.asked == ["agent.example"]


async def test_the_peer_of_the_socket_is_judged_whatever_was_dialled(
    client: UpstreamClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def astray(address: dial.Address) -> socket.socket:
        sock = socket.create_connection(("127.0.0.2", address[-1][1]))
        sock.setblocking(False)  # noqa: FBT003  # the standard library's signature
        return sock

    resolving(monkeypatch, ["127.0.0.1"])
    monkeypatch.setattr(dial, "_open", astray)
    async with nasty_upstream(answering(HI), host="127.0.0.2") as agent:
        with pytest.raises(UpstreamForbidden):
            await get(client, agent, guarded("agent.example", agent, NOWHERE_ELSE))
        assert agent.requests == []
        assert not connections_of(client)


async def test_a_guarded_origin_never_uses_a_connection_that_was_made_without_a_look(
    client: UpstreamClient,
) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        trusted, _ = Origin.parse(agent.url)
        assert (await get(client, agent, trusted)).body == b"hi"
        assert len(connections_of(client)) == 1  # idle, at the same host and port
        with pytest.raises(UpstreamForbidden):
            await get(client, agent, guarded("127.0.0.1", agent))
        allowed = guarded("127.0.0.1", agent, NOWHERE_ELSE)
        assert (await get(client, agent, allowed)).body == b"hi"
        assert agent.connections == 2


def test_origins_are_alike_only_with_the_same_networks() -> None:
    def parse(networks: Networks | None) -> Origin:
        return Origin.parse("http://agent.example", networks=networks)[0]

    one, same = parse(Networks.of(["10.0.0.0/8"])), parse(Networks.of(["10.0.0.0/8"]))
    assert (one == same, hash(one) == hash(same)) == (True, True)
    others = [parse(None), parse(Networks()), parse(Networks.of(["10.0.0.0/9"]))]
    assert all(one != other for other in others)
    assert len({hash(each) for each in (one, *others)}) == 4


async def test_a_websocket_is_judged_as_well(client: UpstreamClient) -> None:
    async def sending() -> None:
        pytest.fail("it was marked as sent")

    async with nasty_upstream(answering(HI)) as agent:
        with pytest.raises(UpstreamForbidden):
            await open_websocket(
                client,
                guarded("127.0.0.1", agent),
                b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                key=new_key(),
                offered=(),
                sending=sending,
            )
        assert agent.connections == 0


async def test_a_refusal_is_a_failure_to_reach_and_names_the_rule(client: UpstreamClient) -> None:
    async with nasty_upstream(answering(HI)) as agent:
        with pytest.raises(UpstreamUnreachable, match=r"localhost:.* not public"):
            await get(client, agent, guarded("localhost", agent))

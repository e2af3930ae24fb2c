"""A port is one's own from when it is chosen, and its servers can still listen there."""

from __future__ import annotations

import socket

import pytest

from gateway.addresses import Address, held_addresses, url_of
from gateway.config.values import Config, GatewayConfig
from gateway.mistakes import StartError
from gateway.ports import beside, held_port, hold, port_problem, serve_on, share
from policies.catalog import Platform
from tests.support.ports import free_port

HOST = "127.0.0.1"


def listens(port: int) -> socket.socket:
    """As most servers do it."""
    return socket.create_server((HOST, port))


def test_a_held_port_is_nobody_elses_until_it_is_let_go() -> None:
    with hold(HOST) as held:
        port = held_port(held)
        for take in (listens, lambda port: hold(HOST, port), lambda port: beside(HOST, port)):
            with pytest.raises(OSError, match="in use") as refused:
                take(port)
            assert port_problem(refused.value, port) == f"port {port} is taken by another program"
    listens(port).close()


def test_a_held_port_is_no_connection_s_own_end() -> None:
    with hold(HOST) as held, listens(0) as server, socket.socket() as client:
        with pytest.raises(OSError, match="in use"):
            client.bind((HOST, held_port(held)))
        client.connect(server.getsockname())
        assert client.getsockname() != held.getsockname()


def test_servers_listen_beside_a_shared_port_and_it_takes_no_connection_from_them() -> None:
    with hold(HOST) as held:
        share(held)
        port = held_port(held)
        with beside(HOST, port) as one, beside(HOST, port) as other:
            one.listen()
            other.listen()
            with pytest.raises(OSError, match="in use"):
                listens(port)
            for _ in range(20):
                with socket.create_connection((HOST, port), timeout=5):
                    pass
        with pytest.raises(ConnectionRefusedError):  # they are gone, and it is still held
            socket.create_connection((HOST, port), timeout=5)
        with pytest.raises(OSError, match="in use"):
            listens(port)


def test_the_holder_itself_can_listen() -> None:
    with hold(HOST) as held:
        held.listen()
        with socket.create_connection(held.getsockname(), timeout=5):
            held.accept()[0].close()


def test_of_two_who_hold_one_port_the_second_is_refused_at_once() -> None:
    port = free_port()
    with hold(HOST, port) as held:
        for _ in range(2):
            with pytest.raises(OSError, match="in use"):
                hold(HOST, port)
            share(held)
        with beside(HOST, port) as server:
            server.listen()


def test_a_holder_that_listened_itself_leaves_its_port_to_the_next() -> None:
    with hold(HOST) as held:
        serve_on(held)
        held.listen()
        port = held_port(held)
        client = socket.create_connection((HOST, port), timeout=5)
        held.accept()[0].close()
        client.close()
    hold(HOST, port).close()


def test_every_ipv6_address_is_not_every_ipv4_address_where_that_is_said() -> None:
    with hold("::", only_ipv6=True) as held, hold(HOST, held_port(held)):
        held.listen()


def test_a_server_of_the_past_does_not_keep_its_port() -> None:
    with listens(0) as server:
        port = server.getsockname()[1]
        client = socket.create_connection((HOST, port), timeout=5)
        server.accept()[0].close()  # its end closes first and so waits out its time
        client.close()
    hold(HOST, port).close()


def config_at(proxy: str, control: str) -> Config:
    return Config(
        GatewayConfig(proxy_listen=proxy, control_listen=control), Platform("demo"), (), ()
    )


async def test_a_node_s_addresses_get_their_ports_and_keep_them() -> None:
    wanted = config_at("127.0.0.1:0", "127.0.0.1:0")
    async with held_addresses(wanted, [Address(HOST, 0)]) as held:
        ports = [held_port(each) for each in (held.control, *held.others)]
        ports.append(int(held.config.gateway.proxy_listen.rpartition(":")[2]))
        assert held.config.gateway.control_listen == f"127.0.0.1:{ports[0]}"
        assert len(set(ports)) == 3
        for port in ports:
            with pytest.raises(OSError, match="in use"):
                listens(port)
    for port in ports:
        listens(port).close()


async def test_every_address_that_stays_taken_is_named_and_none_is_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.addresses.PORT_PATIENCE_S", 0)
    with listens(0) as taken:
        port, other = taken.getsockname()[1], free_port()
        wanted = config_at(f"127.0.0.1:{port}", f"127.0.0.1:{other}")
        with pytest.raises(StartError) as refused:
            async with held_addresses(wanted, [Address(HOST, port, "the agent: ")]):
                pass
        said = f"can't listen on 127.0.0.1:{port}: port {port} is taken by another program"
        assert list(refused.value.problems) == [said, f"the agent: {said}"]
        listens(other).close()


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        ("[::]:8080", "http://[::1]:8080"),
        ("localhost:8080", "http://localhost:8080"),
    ],
)
def test_an_address_has_a_url_for_this_machine(listen: str, url: str) -> None:
    assert url_of(listen) == url

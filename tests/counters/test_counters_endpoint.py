"""Every kind of `redis_url` reaches its server as it says, or is refused in a clear sentence."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from gateway.counters import Counters, CountersMisconfigured, CountersUnavailable
from gateway.counters import connection as connection_module
from gateway.counters.endpoint import Endpoint, parse_url
from tests.support.faulty_redis import FaultyWire, OwnRedis

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("redis://", Endpoint()),
        ("redis://redis.internal", Endpoint("redis.internal", 6379)),
        ("redis://:s%40cret@h:1/3", Endpoint("h", 1, database=3, password="s@cret")),
        ("redis://user:pw@[::1]:2?db=4", Endpoint("::1", 2, None, 4, "user", "pw")),
        ("unix:///run/r.sock", Endpoint(path="/run/r.sock")),
        ("unix://:pw@/run/r.sock?db=2", Endpoint(path="/run/r.sock", database=2, password="pw")),
    ],
)
def test_a_url_says_where_and_who(url: str, endpoint: Endpoint) -> None:
    assert parse_url(url) == endpoint


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("http://host", "must start with"),
        ("redis+cluster://host", "is not supported yet"),
        ("redis://:hunter2@host/one", "database must be a number"),
        ("redis://:hunter2@host:port", "[Pp]ort"),
        ("redis://hunter2@host", "user without a password"),
        ("unix://run/r.sock", "absolute path"),
        ("redis://:hunter2@host?verify=no", '"verify" is unknown'),
        ("rediss://:hunter2@host?ca_file=/no/such.pem", "No such file"),
    ],
)
def test_a_url_that_cannot_work_is_a_sentence_without_its_secrets(url: str, problem: str) -> None:
    with pytest.raises(CountersMisconfigured, match=problem) as raised:
        Counters(url, shards=64)
    assert "hunter2" not in str(raised.value)


async def test_user_password_and_database_are_used(own_redis: OwnRedis) -> None:
    await own_redis.client.acl_setuser(
        "gate", enabled=True, passwords=["+pw"], categories=["+@all"], keys=["*"]
    )
    url = f"unix://gate:pw@{own_redis.path}?db=3"
    async with Counters(url, shards=64) as counters:
        assert await counters.command("ACL", "WHOAMI") == b"gate"
        facts = (await counters.command("CLIENT", "INFO")).decode()
        assert " name=tollkeeper " in facts
        assert " db=3 " in facts


async def test_refused_logins_end_the_start_with_a_clear_sentence(own_redis: OwnRedis) -> None:
    plain, path = own_redis.url, own_redis.path
    with pytest.raises(CountersMisconfigured, match="refuses the login: ERR AUTH"):
        await Counters(f"unix://:hunter2@{path}", shards=64).__aenter__()
    await own_redis.client.config_set("requirepass", "right")
    for url in (plain, f"unix://:hunter2@{path}", f"unix://nobody:hunter2@{path}"):
        with pytest.raises(CountersMisconfigured, match="refuses the login") as raised:
            await Counters(url, shards=64).__aenter__()
        assert "hunter2" not in str(raised.value)
    with pytest.raises(CountersMisconfigured, match="DB index is out of range"):
        await Counters(f"unix://:right@{path}?db=99", shards=64).__aenter__()


async def test_a_replica_is_not_used(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "START_TIMEOUT_S", 0.05)
    await own_redis.client.replicaof("127.0.0.1", "1")
    with pytest.raises(CountersUnavailable, match="replica"):
        await Counters(own_redis.url, shards=64).__aenter__()


async def test_a_cluster_node_is_not_taken_for_a_whole_redis() -> None:
    async with OwnRedis("--cluster-enabled", "yes") as node:
        with pytest.raises(CountersMisconfigured, match="part of a cluster"):
            await Counters(node.url, shards=64).__aenter__()


async def test_tls_is_verified(own_redis: OwnRedis, tmp_path: Path, call_id: str) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    trusted = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(trusted))
    async with FaultyWire(own_redis.path, context) as wire:
        async with Counters(f"{wire.url}?ca_file={trusted}", shards=64) as counters:
            echoes: list[Any] = [counters.command("ECHO", call_id) for _ in range(100)]
            assert await asyncio.gather(*echoes) == [call_id.encode()] * 100
        with pytest.raises(CountersMisconfigured, match="certificate that is not trusted"):
            await Counters(wire.url, shards=64).__aenter__()
        elsewhere = wire.url.replace("localhost", "127.0.0.1")
        with pytest.raises(CountersMisconfigured, match="certificate that is not trusted"):
            await Counters(f"{elsewhere}?ca_file={trusted}", shards=64).__aenter__()

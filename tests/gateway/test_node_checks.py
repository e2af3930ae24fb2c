"""A Redis that can't keep holds is refused at start; one that may lose them is warned of."""

from __future__ import annotations

import logging

import pytest

from gateway import node
from gateway.counters import CommandRefused
from gateway.counters.replies import ServerFacts
from gateway.mistakes import StartError
from gateway.recovery import fitness

GOOD = ServerFacts("7.2.4", 0, "noeviction", aof_enabled=True, role="master")


class FakeRedis:
    def __init__(self, facts: ServerFacts, appendfsync: bytes | None = b"everysec") -> None:
        self._facts = facts
        self._appendfsync = appendfsync

    async def server_facts(self) -> ServerFacts:
        return self._facts

    async def command(self, *parts: object) -> list[bytes]:
        assert parts == ("CONFIG", "GET", "appendfsync")
        if self._appendfsync is None:
            raise CommandRefused("ERR unknown command 'CONFIG'")
        return [b"appendfsync", self._appendfsync]


@pytest.mark.parametrize("version", ["6.2.0", "6.2.14", "7.0.15", "8.2.1", "10.0.0"])
@pytest.mark.parametrize("maxmemory", [0, 1 << 30])
async def test_a_fit_server_is_taken_without_a_word(
    version: str, maxmemory: int, caplog: pytest.LogCaptureFixture
) -> None:
    facts = GOOD._replace(version=version, maxmemory_bytes=maxmemory)
    await node._check_redis(FakeRedis(facts))  # type: ignore[arg-type]
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "6.0.16"}, "6.2 is the oldest"),
        ({"version": "5.0.7"}, "6.2 is the oldest"),
        ({"role": "slave"}, "give the URL of its primary"),
        *(
            ({"maxmemory_policy": policy}, "set it to noeviction")
            for policy in ("allkeys-lru", "volatile-lru", "volatile-ttl", "allkeys-random")
        ),
    ],
)
async def test_an_unfit_server_is_refused_with_what_to_do(
    changes: dict[str, str], words: str
) -> None:
    with pytest.raises(StartError, match=words):
        await node._check_redis(FakeRedis(GOOD._replace(**changes)))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("aof", "appendfsync", "warning"),
    [
        (False, b"everysec", fitness.NO_AOF),
        (True, b"no", fitness.NO_FSYNC),
        (True, b"always", None),
        (True, None, None),
    ],
)
async def test_a_server_that_may_lose_data_is_warned_of(
    aof: bool, appendfsync: bytes | None, warning: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    redis = FakeRedis(GOOD._replace(aof_enabled=aof), appendfsync)
    with caplog.at_level(logging.WARNING):
        await node._check_redis(redis)  # type: ignore[arg-type]
    assert caplog.messages == ([warning] if warning else [])

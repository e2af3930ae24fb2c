"""`tollkeeper tail`: calls as they are settled, whatever happens to the control plane or a pipe."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import TYPE_CHECKING

import pytest

from gateway.cli.tail import SEEN_S, _Seen
from gateway.control.api.roles import Role
from gateway.operations.settlements import FOLLOW_OVERLAP_MS
from tests.support.api_calls import serving_calls
from tests.support.remote_cli import wired

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.api_calls import Proxy
    from tests.support.remote_cli import Process, Remote

BETWEEN_CALLS_S = 0.2


async def following(tail: Process, proxy: Proxy, credential: str) -> None:
    """It follows: one of some calls of route "more" was shown. Others of them may come later."""
    reading = asyncio.create_task(tail.line())
    while not reading.done():
        await proxy.call(credential, "/more/x")
        await asyncio.wait({reading}, timeout=BETWEEN_CALLS_S)
    await reading


async def test_each_call_is_a_line_once_as_it_is_settled(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with serving_calls(api, clean_redis_url) as proxy, remote.started("tail") as tail:
        await following(tail, proxy, api.demo.key.text)
        for _ in range(3):
            await proxy.call(api.demo.key.text, "/any/x")
            line = await tail.line()
            while " more " in line:
                line = await tail.line()
            assert line.split()[1:] == ["any", "alice", "completed", "200", "-", "1"]
        await proxy.call(api.demo.key.text, "/more/x")
        assert " more " in await tail.line()  # and none of the three once more
        tail.signal(signal.SIGINT)
        ended = await tail.ended()
        assert (ended.code, ended.out, ended.err) == (130, "", "")


async def test_json_is_a_document_a_line_with_names(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    words = ("tail", "--json", "--route", "more", "--account", "alice")
    async with serving_calls(api, clean_redis_url) as proxy, remote.started(*words) as tail:
        await following(tail, proxy, api.demo.key.text)
        await proxy.call(api.demo.key.text, "/any/x")
        wanted = await proxy.call(api.demo.key.text, "/more/x")
        request_id = ""
        while request_id != wanted.request_id:
            row = json.loads(await tail.line())
            request_id = row["request_id"]
            assert (row["route"], row["account"], row["charged_credits"]) == ("more", "alice", "1")


async def test_a_filter_that_nothing_can_match_is_a_mistake(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with serving_calls(api, clean_redis_url):
        route = await remote("tail", "--route", "mora")
        account = await remote("tail", "--account", "alicf")
    assert (route.code, 'did you mean "more"?' in route.err) == (2, True)
    assert (account.code, 'did you mean "alice"?' in account.err) == (2, True)


async def test_members_are_told_that_they_may_not(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.key.text)
    answer = await remote("tail")

    assert (answer.code, answer.err.count("\n")) == (2, 1)


async def test_a_reader_that_has_seen_enough_ends_it_quietly(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with serving_calls(api, clean_redis_url) as proxy, remote.started("tail") as tail:
        await following(tail, proxy, api.demo.key.text)
        await proxy.call(api.demo.key.text, "/any/x")
        while " any " not in await tail.line():
            pass
        tail.stop_reading()  # no further call comes: it has to notice by itself
        ended = await tail.ended()

    assert (ended.code, ended.err) == (0, "")


@pytest.mark.parametrize("away", ["tail", "top"])
async def test_an_outage_is_said_once_and_survived(
    api: Api, remote: Remote, clean_redis_url: str, away: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with serving_calls(api, clean_redis_url) as proxy, wired(api) as wire:
        remote.change_login(url=wire.url)
        async with remote.started(away, "--json") as process:
            await following(process, proxy, api.demo.key.text)
            await wire.cut()
            assert "asking again" in await process.error()
            call = await proxy.call(api.demo.key.text, "/any/x")
            await wire.mend()
            assert await process.error() == "tollkeeper: it answers again"
            request_id = "" if away == "tail" else call.request_id
            while request_id != call.request_id:
                request_id = json.loads(await process.line())["request_id"]
            await following(process, proxy, api.demo.key.text)


async def test_a_control_plane_that_was_never_there_is_not_waited_for(
    api: Api, remote: Remote
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    remote.change_login(url="http://127.0.0.1:9")
    for words in (("tail",), ("top", "--once")):
        answer = await remote(*words)
        assert (answer.code, answer.err.count("\n")) == (1, 1)


def test_what_is_seen_is_remembered_for_longer_than_it_comes_again_and_no_longer() -> None:
    assert SEEN_S * 1_000 > 2 * FOLLOW_OVERLAP_MS
    seen = _Seen()
    rows = [
        {
            "request_id": f"{second:032x}",
            "settled_at": f"2026-11-21T18:{second // 60:02}:{second % 60:02}.500Z",
        }
        for second in range(600)
    ]
    for row in rows:
        assert seen.fresh([row, row]) == [row]
    recent = rows[-SEEN_S:]
    assert seen.fresh(recent) == []
    assert len(seen._calls) <= SEEN_S + 1

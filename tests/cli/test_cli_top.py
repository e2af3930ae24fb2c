"""`tollkeeper top`: looks at the traffic, on a terminal and in a pipe."""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from gateway.cli.top import LOOK_S_MAX, _row
from gateway.control.api.roles import Role
from gateway.control.traffic.models import TrafficQuery
from tests.support.api_calls import serving_calls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from tests.cli.conftest import CommandLine
    from tests.support.api import Api
    from tests.support.api_calls import Proxy
    from tests.support.remote_cli import Remote

BETWEEN_CALLS_S = 0.05


@asynccontextmanager
async def calling(api: Api, proxy: Proxy) -> AsyncIterator[None]:
    """Somebody who calls again and again, and can pay for it."""
    path = f"/v1/accounts/{api.demo.account.account_id}/grants"
    given = await api.as_("owner").post(path, {"credits": "100000"})
    assert given.status == 201

    async def call() -> None:
        while True:
            await proxy.call(api.demo.key.text, "/any/x")
            await asyncio.sleep(BETWEEN_CALLS_S)

    caller = asyncio.create_task(call())
    try:
        yield
    finally:
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller


async def test_a_look_has_each_routes_calls_and_credits(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with (
        serving_calls(api, clean_redis_url) as proxy,
        calling(api, proxy),
        remote.started("top", "--json", "--seconds", "2") as top,
    ):
        seen: dict[str, Any] = {}
        while not seen.get("any", {}).get("calls"):
            look = json.loads(await top.line())
            seen = {row["route"]: row for row in look["routes"]}
        top.signal(signal.SIGINT)
        ended = await top.ended()
    assert seen["any"]["charged_credits"] == str(seen["any"]["calls"])
    assert look["seconds"] == 2
    assert (ended.code, ended.err) == (130, "")


async def test_a_pipe_gets_a_line_for_each_route_and_look(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with (
        serving_calls(api, clean_redis_url) as proxy,
        calling(api, proxy),
        remote.started("top") as top,
    ):
        line = await top.line()
        top.stop_reading()
        ended = await top.ended()
    assert line.split()[1::2] == ["any", "calls/s", "credits/s", "denials/s"]
    assert (ended.code, ended.err) == (0, "")


async def test_a_terminal_gets_a_table_that_is_drawn_in_place(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with serving_calls(api, clean_redis_url), remote.on_terminal("top") as top:
        drawn = ""
        while drawn.count("TOTAL") < 2:
            drawn += await top.read()
        assert drawn.index("TOTAL") < drawn.index("\x1b[1A")  # the cursor goes up again
        top.signal(signal.SIGINT)
        assert await top.code() == 130


async def test_one_look_on_a_terminal_is_one_table(
    api: Api, remote: Remote, clean_redis_url: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    async with serving_calls(api, clean_redis_url), remote.on_terminal("top", "--once") as top:
        assert await top.code() == 0
        drawn = await top.read()
    assert drawn.count("TOTAL") == 1
    assert "\x1b[1A" not in drawn


def test_amounts_per_second_are_whole_microcredits() -> None:
    one = {"calls": 1, "denials": 2, "charged_credits": "0.1"}

    assert _row("chat", 3, [one, one]) == {
        "route": "chat",
        "calls": "0.7",
        "credits": "0.066666",
        "denials": "1.3",
    }


async def test_without_a_login_it_looks_at_the_deployment_of_the_config(
    api: Api, remote: Remote, clean_redis_url: str, command_line: Callable[..., CommandLine]
) -> None:
    config = str(command_line(clean_redis_url, api.postgres_url).config)
    async with serving_calls(api, clean_redis_url) as proxy, calling(api, proxy):
        for command in ("top", "tail"):
            async with remote.started(command, "--json", "--config", config) as process:
                assert json.loads(await process.line())
                process.signal(signal.SIGINT)
                ended = await process.ended()
            assert (ended.code, ended.err) == (130, "")


def test_a_look_is_as_long_as_the_api_lets_it_be() -> None:
    assert TrafficQuery(seconds=LOOK_S_MAX).seconds == LOOK_S_MAX
    with pytest.raises(ValidationError):
        TrafficQuery(seconds=LOOK_S_MAX + 1)

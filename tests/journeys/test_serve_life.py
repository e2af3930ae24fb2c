"""`tollkeeper serve` on servers of the operator's own."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import TYPE_CHECKING

import aiohttp

from tests.support.dev import START_DEADLINE_S, TOLLKEEPER, Dev, edit, launch, ready

if TYPE_CHECKING:
    from pathlib import Path

PEPPER = "TOLLKEEPER_TEST_PEPPER"


def with_servers(config_file: Path, redis_url: str, postgres_url: str) -> None:
    """Makes the config one for production, on any free ports."""
    listen = dict.fromkeys(("proxy_listen", "control_listen"), "127.0.0.1:0")
    values = {"redis_url": redis_url, "postgres_url": postgres_url, **listen}
    text = config_file.read_text()
    for name, value in values.items():
        text, changed = re.subn(rf"(?m)^{name} = .*$", f'{name} = "{value}"', text)
        assert changed == 1
    text = re.sub(r"(?m)^workers = .*$", f'workers = 2\nkey_pepper = "env:{PEPPER}"', text)
    config_file.write_text(text)


async def serve(config_file: Path, **environment: str) -> Dev:
    command = [*TOLLKEEPER, "serve", "--json", "--config", str(config_file)]
    return await launch(command, env={**os.environ, **environment}, stderr=asyncio.subprocess.PIPE)


async def test_it_serves_with_all_workers_until_it_is_told_to_stop(
    config_file: Path, clean_redis_url: str, blank_postgres_url: str
) -> None:
    with_servers(config_file, clean_redis_url, blank_postgres_url)
    node = await ready(await serve(config_file, **{PEPPER: "p", "TOLLKEEPER_ADMIN_TOKEN": "t"}))
    try:
        assert len(node.ready["worker_pids"]) == 2
        assert (await node.control("/-/readyz"))[0] == 200
        assert (await node.control("/v1/status", "t"))[0] == 200
        proxy_ready = node.ready["proxy_url"] + "/-/readyz"
        async with aiohttp.ClientSession() as session, session.get(proxy_ready) as answer:
            assert answer.status == 200
    finally:
        assert await node.stop() == 0


async def test_a_redis_of_another_deployment_is_refused(
    config_file: Path, clean_redis_url: str, blank_postgres_url: str, postgres_url: str
) -> None:
    with_servers(config_file, clean_redis_url, blank_postgres_url)
    node = await ready(await serve(config_file, **{PEPPER: "p"}))
    assert await node.stop() == 0
    edit(config_file, blank_postgres_url, postgres_url)
    (line,) = await refusal(await serve(config_file, **{PEPPER: "p"}))
    assert "another Tollkeeper deployment" in line


async def test_what_production_needs_is_asked_for_at_once(config_file: Path) -> None:
    lines = await refusal(await serve(config_file))
    assert [line.split(":")[1].strip() for line in lines] == [
        "gateway.redis_url",
        "gateway.postgres_url",
        "gateway.key_pepper",
    ]


async def test_the_number_of_shards_is_fixed_at_the_first_start(
    config_file: Path, clean_redis_url: str, blank_postgres_url: str
) -> None:
    with_servers(config_file, clean_redis_url, blank_postgres_url)
    node = await ready(await serve(config_file, **{PEPPER: "p"}))
    assert await node.stop() == 0
    edit(config_file, "workers = 2", "workers = 2\nshards = 32")
    (line,) = await refusal(await serve(config_file, **{PEPPER: "p"}))
    assert "gateway.shards" in line


async def refusal(node: Dev) -> list[str]:
    async with asyncio.timeout(START_DEADLINE_S):
        output, errors = await node.process.communicate()
    assert node.process.returncode == 2, errors.decode()
    lines = errors.decode().splitlines()
    assert json.loads(output.splitlines()[-1])["event"] == "error"
    assert "Traceback" not in errors.decode()
    return lines

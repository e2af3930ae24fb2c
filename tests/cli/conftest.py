"""Command lines on servers of the test's own: on a config, or logged in to a running API."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.embedded.datadir import Running, open_data_dir
from tests.support.api import running_api
from tests.support.remote_cli import Remote

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from tests.support.api import Api

PEPPER_VARIABLE = "TOLLKEEPER_TEST_PEPPER"
SERVERS = """
[gateway]
redis_url = "{redis}"
postgres_url = "{postgres}"
shards = 4
"""
PEPPER = f'key_pepper = "env:{PEPPER_VARIABLE}"\n'
OFFER = """
[platform]
slug = "demo"

[[plans]]
slug = "free"
credits = "1000"
requests_per_minute = 60

[[routes]]
name = "suggest"
match = "POST /agents/suggest"
upstream = "http://127.0.0.1:9100"
[routes.price]
per_request = "0.1"

[[routes]]
name = "health"
match = "GET /agents/health"
upstream = "http://127.0.0.1:9100"
free = true
"""


class Answer(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs commands with a config, away from the loop that the test runs in."""

    def __init__(self, config: Path, data_dir: Path) -> None:
        self.config = config
        self.data_dir = data_dir

    async def __call__(self, *words: str) -> Answer:
        where = ["--config", str(self.config), "--data-dir", str(self.data_dir)]
        result = await asyncio.to_thread(CliRunner().invoke, app, [*words, *where])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Answer(result.exit_code, result.stdout, result.stderr)

    async def json(self, *words: str) -> Any:
        """The document of a command that must succeed."""
        answer = await self(*words, "--json")
        assert answer.code == 0, answer.err
        return answer.document


@pytest.fixture
def command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandLine]:
    """Makes a command line for servers; with `pepper=False` its config has none."""
    monkeypatch.setenv(PEPPER_VARIABLE, "pepper of the tests")

    def make(redis: str, postgres: str, *, pepper: bool = True, offer: str = OFFER) -> CommandLine:
        config = tmp_path / "tollkeeper.toml"
        servers = SERVERS.format(redis=redis, postgres=postgres)
        config.write_text(servers + (PEPPER if pepper else "") + offer)
        return CommandLine(config, tmp_path / "data")

    return make


@pytest.fixture
def cli(
    command_line: Callable[..., CommandLine], clean_redis_url: str, postgres_url: str
) -> CommandLine:
    """On an empty Redis and a migrated, empty database."""
    return command_line(clean_redis_url, postgres_url)


@pytest.fixture
def running_dev(
    command_line: Callable[..., CommandLine], clean_redis_url: str, postgres_url: str
) -> Iterator[CommandLine]:
    """On the servers of a data folder that somebody runs on, as `tollkeeper dev` does."""
    line = command_line("embedded", "embedded", pepper=False)
    with open_data_dir(line.data_dir) as folder:
        folder.secrets()
        with folder.announced(Running(pid=1, redis_url=clean_redis_url, postgres_url=postgres_url)):
            yield line


@pytest_asyncio.fixture
async def api(postgres_url: str, clean_redis_url: str) -> AsyncIterator[Api]:
    """A running API with two platforms and somebody of each role."""
    async with running_api(postgres_url, clean_redis_url) as api:
        yield api


@pytest.fixture
def remote(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A command line that can log in to it, in a folder without a config."""
    monkeypatch.chdir(tmp_path)
    return Remote(api, tmp_path)

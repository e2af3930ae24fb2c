"""A sample agent for all journeys, a config whose routes go to it, and a deployment that sells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.embedded.agent import SAMPLE_AGENT_HOST, SAMPLE_AGENT_PORT, sample_agent
from gateway.ports import hold
from tests.support.dev import ROOT
from tests.support.memory import memory_folder
from tests.support.paying import opened_paying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.support.paying import Paying


@pytest_asyncio.fixture(scope="session")
async def agent_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    log = tmp_path_factory.mktemp("agent") / "log"
    with hold(SAMPLE_AGENT_HOST) as held:
        async with sample_agent(held, log=log) as agent:
            await agent.ready()
            yield agent.url


@pytest.fixture
def config_file(tmp_path: Path, agent_url: str) -> Path:
    """The documented example, with the sample agent elsewhere: its usual port may be taken here."""
    text = (ROOT / "config.toml").read_text()
    usual = f"http://127.0.0.1:{SAMPLE_AGENT_PORT}"
    assert usual in text
    path = tmp_path / "config.toml"
    path.write_text(text.replace(usual, agent_url))
    return path


@pytest_asyncio.fixture(scope="module")
async def paying(tmp_path_factory: pytest.TempPathFactory, agent_url: str) -> AsyncIterator[Paying]:
    """A deployment that sells, for all tests of a file: each has an account of its own."""
    with memory_folder(otherwise=tmp_path_factory.mktemp("paying")) as folder:
        folder.chmod(0o755)
        async with opened_paying(folder, agent_url) as opened:
            yield opened

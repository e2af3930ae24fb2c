"""A sample agent for all journeys, and a config whose routes go to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.embedded.agent import SAMPLE_AGENT_PORT, sample_agent
from gateway.embedded.ports import free_port
from tests.support.dev import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest_asyncio.fixture(scope="session")
async def agent_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    log = tmp_path_factory.mktemp("agent") / "log"
    async with sample_agent(free_port(), log=log) as agent:
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

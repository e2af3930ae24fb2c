"""What docs/api.md and docs/agents.md have pasted works as it stands, in that order."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from tests.support import dev as support
from tests.support.dev import ROOT

if TYPE_CHECKING:
    from pathlib import Path

BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
PLACES = re.compile(r"^export CONTROL=.*$", re.MULTILINE)


ELSEWHERE = "id.example.com"  # where no test gets to


def blocks(page: str) -> list[str]:
    """The shell's parts of a page."""
    found = BLOCK.findall((ROOT / "docs" / page).read_text())
    return [block for block in found if ELSEWHERE not in block]


async def shell(script: str) -> str:
    """What it prints; every command of it must work."""
    child = await asyncio.create_subprocess_exec(
        *("bash", "-e", "-u", "-o", "pipefail", "-c", script),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await child.communicate()
    assert child.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on the PATH")
async def test_a_newcomer_sells_a_call_and_gives_an_agent_a_part(
    config_file: Path, tmp_path: Path, agent_url: str
) -> None:
    dev = await support.start(config_file, tmp_path / "data", "--fake-stripe")
    try:
        ready = dev.ready
        places = (
            f"export CONTROL={ready['control_url']} PROXY={ready['proxy_url']}"
            f" ADMIN={ready['admin_token']}"
        )
        script = "\n".join([*blocks("api.md"), *blocks("agents.md")])
        assert len(PLACES.findall(script)) == 1
        script = PLACES.sub(places, script).replace("http://127.0.0.1:9100", agent_url)

        output = await shell(script)
    finally:
        await dev.stop()

    assert "X-Credits-Charged: 2\r\n" in output
    assert "X-Credits-Remaining: 8\r\n" in output
    assert '"per_request":"3"' in output.replace(" ", "")
    assert "/checkout/cs_test_" in output
    assert "urn:tollkeeper:problem" not in output, output
    assert '"token":"eyJ' in output
    assert "sk-example" not in output, "a secret is never shown again"

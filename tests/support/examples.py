"""Runs an example as its README says: its agent, `tollkeeper dev` on its config, its client.

Each is a process of its own. Only ports differ from what a reader does: free ones are taken.

    async with running_example("openai", tmp_path) as example:
        printed = await example.client(OPENAI_BASE_URL="{url}/v1", OPENAI_API_KEY="{key}")
        assert printed == example.shown("README.md", "client.py")
        charges = await example.charges(3)
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import asyncpg

from tests.support import dev as support
from tests.support.dev import ROOT, Dev
from tests.support.ports import free_port
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CLIENT_DEADLINE_S = 60
AGENT_URL = re.compile(r'^upstream = "http://127\.0\.0\.1:(\d+)', re.MULTILINE)
# How clients print what a call costs.
CHARGED, RESERVED = "  charged ", "  reserved "
# What differs from run to run in what a client prints.
CALL_ID = re.compile(r"\b[0-9a-f]{32}\b")
NUMBER = re.compile(r"\b\d+(\.\d+)?\b")
CHARGES = """
SELECT settlements.call_id, routes.name, ending, status, units, flags, charged_microcredits
FROM settlements JOIN routes ON routes.id = route_id
ORDER BY call_id
"""


class Charge(NamedTuple):
    """A settlement as Postgres has it."""

    call_id: str
    route: str
    ending: str
    status: int
    units: str  # 'token=30'; see `units_text`
    flags: str
    microcredits: int


@dataclass
class Example:
    """A running example; see `running_example`."""

    folder: Path  # examples/<name>
    dev: Dev
    agent_url: str

    async def client(self, *arguments: str, script: str = "client.py", **environment: str) -> str:
        """What the client prints; that it ends well is checked.

        It finds `TOLLKEEPER_URL` and `TOLLKEEPER_API_KEY` in its environment, and what
        `environment` says, where "{url}" and "{key}" stand for these two.
        """
        url, key = self.dev.ready["proxy_url"], self.dev.ready["api_key"]
        named = {name: text.format(url=url, key=key) for name, text in environment.items()}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(self.folder / script), *arguments),
            cwd=ROOT,
            env={**os.environ, "TOLLKEEPER_URL": url, "TOLLKEEPER_API_KEY": key, **named},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(CLIENT_DEADLINE_S):
            printed, complaints = await process.communicate()
        assert process.returncode == 0, printed.decode() + complaints.decode()
        return printed.decode()

    async def charges(self, count: int) -> list[Charge]:
        """The settlements, oldest first, once Postgres has `count`; that it has no more, too."""

        async def found() -> list[Charge] | None:
            connection = await asyncpg.connect(self.dev.ready["postgres_url"])
            try:
                rows = await connection.fetch(CHARGES)
            finally:
                await connection.close()
            charges = [Charge(row[0].hex, *list(row)[1:]) for row in rows]
            return charges if len(charges) >= count else None

        charges = await eventually(found)
        assert charges is not None
        assert len(charges) == count
        return charges

    def shown(self, page: str, command: str) -> str:
        """What a page shows to be printed by a command whose line contains `command`.

        `page` is in the example's folder, or from the root: "docs/openai.md".
        """
        path = ROOT / page if "/" in page else self.folder / page
        return shown(path.read_text(), command)


def shown(text: str, command: str) -> str:
    """The lines under `$ …command…` in the ```console blocks of a page, up to the next command."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        steps = re.split(r"^\$ ", block.replace("\\\n", ""), flags=re.MULTILINE)
        for step in steps[1:]:
            line, _, printed = step.partition("\n")
            if command in line:
                return str(printed)
    raise AssertionError(f"the page shows no {command}")


def same(printed: str, *, numbers: bool = True) -> str:
    """What was printed, without what differs from run to run: ids, and `numbers` if it says so."""
    printed = CALL_ID.sub("<id>", printed)
    return printed if numbers else NUMBER.sub("<number>", printed)


def assert_printed(printed: str, shown: str) -> None:
    """What was said is the same, and so is each cost that was known when it was.

    Some agents' servers send an answer's head and its body one after the other. On a busy machine
    the gateway may have to pass on the one before it has the other: its head then says what is
    reserved, in place of the charge. What was charged in the end is in Postgres.
    """
    told, expected = same(printed).splitlines(), same(shown).splitlines()
    words, expected_words = (
        [line for line in lines if not line.startswith((CHARGED, RESERVED))]
        for lines in (told, expected)
    )
    assert words == expected_words
    assert _contains(expected, [line for line in told if line.startswith(CHARGED)])
    assert _contains(told, [line for line in expected if line.startswith(RESERVED)])


def _contains(lines: list[str], some: list[str]) -> bool:
    """Whether all of `some` are among the lines, in their order."""
    rest = iter(lines)
    return all(line in rest for line in some)


@asynccontextmanager
async def running_example(name: str, data_dir: Path, *options: str) -> AsyncIterator[Example]:
    """examples/<name>, running. `options` are more of `tollkeeper dev`'s, such as "--credits"."""
    folder = ROOT / "examples" / name
    text = (folder / "config.toml").read_text()
    (usual,) = set(AGENT_URL.findall(text))  # one agent, however many routes
    port = free_port()
    config = data_dir / "config.toml"
    config.write_text(text.replace(f"http://127.0.0.1:{usual}", f"http://127.0.0.1:{port}"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(folder / "agent.py"), "--port", str(port)),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
    )
    dev = None
    try:
        dev = await support.start(config, data_dir / "d", *options)
        await eventually(lambda: _listens(port), unless=(OSError,))
        yield Example(folder, dev, f"http://127.0.0.1:{port}")
    finally:
        if dev is not None:
            await dev.stop()
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _listens(port: int) -> bool:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    return True

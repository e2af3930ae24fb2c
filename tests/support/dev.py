"""Drives `tollkeeper dev --json` as a user's script would: start, read its line, call, stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

ROOT = Path(__file__).parents[2]
TOLLKEEPER = (str(Path(sys.executable).with_name("tollkeeper")),)
START_DEADLINE_S = 40
STOP_DEADLINE_S = 40
COMMAND_DEADLINE_S = 40
CHAT = "/v1/chat/completions"
HELLO = {"model": "sample", "messages": [{"role": "user", "content": "Hello"}]}


@dataclass
class Dev:
    """A `tollkeeper dev` that was started; `ready` is its ready line."""

    process: asyncio.subprocess.Process
    ready: dict[str, Any] = field(default_factory=dict)

    @property
    def pids(self) -> list[int]:
        """It and everything that it says it started."""
        servers = [self.ready["redis_pid"], self.ready["postgres_pid"]]
        return [self.process.pid, *self.ready["worker_pids"], *servers]

    async def call(
        self, path: str = CHAT, body: object = HELLO, headers: Mapping[str, str] = {}
    ) -> tuple[int, Mapping[str, str], str]:
        """A POST with the demo key: status, headers, text."""
        sent = {"Authorization": f"Bearer {self.ready['api_key']}", **headers}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.ready["proxy_url"] + path, json=body, headers=sent) as answer,
        ):
            return answer.status, answer.headers, await answer.text()

    async def stream(self, chunks: int, chunk_ms: int) -> AsyncIterator[str]:
        """The parts of a streamed answer that takes its time, as they come."""
        sent = {
            "Authorization": f"Bearer {self.ready['api_key']}",
            "X-Agent-Chunks": str(chunks),
            "X-Agent-Chunk-Ms": str(chunk_ms),
        }
        body = {**HELLO, "stream": True}
        async with (
            aiohttp.ClientSession() as session,
            session.post(self.ready["proxy_url"] + CHAT, json=body, headers=sent) as answer,
        ):
            async for part in answer.content.iter_any():
                yield part.decode()

    async def control(self, path: str, token: str | None = None) -> tuple[int, Any]:
        """A GET on the control plane: status and JSON."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.get(self.ready["control_url"] + path, headers=headers) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tells it to stop; its exit code."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with asyncio.timeout(STOP_DEADLINE_S):
            return await self.process.wait()


def dev_command(config: Path, data_dir: Path, *more: str) -> list[str]:
    return [
        *(*TOLLKEEPER, "dev", "--json", "--port", "0", "--control-port", "0"),
        *("--config", str(config), "--data-dir", str(data_dir)),
        *more,
    ]


def edit(config_file: Path, old: str, new: str) -> None:
    text = config_file.read_text()
    assert old in text
    config_file.write_text(text.replace(old, new, 1))


async def launch(command: Sequence[str], **options: Any) -> Dev:
    """Starts it, without waiting for anything. Its log goes where the test's output goes."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, cwd=options.pop("cwd", ROOT), **options
    )
    return Dev(process)


async def told(config: Path, data_dir: Path, *more: str) -> AsyncIterator[str]:
    """What it says to a person, line by line, until it is ready; then it is stopped."""
    command = [word for word in dev_command(config, data_dir, *more) if word != "--json"]
    dev = await launch(command)
    assert dev.process.stdout is not None
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            async for line in dev.process.stdout:
                yield line.decode()
                if line.startswith(b"Ctrl-C"):
                    return
    finally:
        await dev.stop()


async def output_of(*words: str) -> str:
    """What a command prints that ends well."""
    child = await asyncio.create_subprocess_exec(
        *TOLLKEEPER, *words, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    async with asyncio.timeout(COMMAND_DEADLINE_S):
        output, _ = await child.communicate()
    assert child.returncode == 0
    return output.decode()


async def start(config: Path, data_dir: Path, *more: str) -> Dev:
    """Starts it and waits for its ready line."""
    return await ready(await launch(dev_command(config, data_dir, *more)))


async def ready(dev: Dev) -> Dev:
    assert dev.process.stdout is not None
    async with asyncio.timeout(START_DEADLINE_S):
        while line := await dev.process.stdout.readline():
            event = json.loads(line)
            if event["event"] == "ready":
                dev.ready = event
                return dev
    raise AssertionError(f"it ended with {await dev.process.wait()} before it was ready")


async def refused(config: Path, data_dir: Path, *more: str) -> list[str]:
    """Starts what must not start: its lines on stderr; exit code 2 and no traceback are checked."""
    dev = await launch(dev_command(config, data_dir, *more), stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(START_DEADLINE_S):
        output, errors = await dev.process.communicate()
    assert dev.process.returncode == 2, errors.decode()
    assert b"Traceback" not in errors
    lines = errors.decode().splitlines()
    assert lines
    told = json.loads(output.splitlines()[-1])
    assert told["event"] == "error"
    return lines

"""A user's first days with `tollkeeper dev`: start, call, stop, start again; and bad days."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest
import pytest_asyncio

from gateway.embedded.agent import SAMPLE_AGENT_HOST, SAMPLE_AGENT_PORT
from gateway.embedded.datadir import read_secrets
from gateway.embedded.spawn import command_of
from gateway.ports import hold
from tests.support import dev as support
from tests.support.dev import HELLO, ROOT, Dev
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Start = Callable[..., Awaitable[Dev]]

READY_FIELDS = {
    *("event", "proxy_url", "control_url", "platform", "account", "api_key", "admin_token"),
    *("worker_pids", "redis_url", "redis_pid", "postgres_url", "postgres_pid", "sample_agent_url"),
}
CLI = "from gateway.cli import main; main()"
START_ANOTHER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import gateway.supervisor, gateway.worker"], check=True)
"""
TO_POSTGRES = """
SELECT count(*), coalesce(sum(charged_microcredits), 0)::bigint
FROM settlements
"""


@pytest_asyncio.fixture
async def start(config_file: Path) -> AsyncIterator[Start]:
    """Starts one on the journey's config; whatever still runs at the end is stopped."""
    running: list[Dev] = []

    async def begin(data_dir: Path, *more: str) -> Dev:
        running.append(await support.start(config_file, data_dir, *more))
        return running[-1]

    yield begin
    for dev in running:
        await dev.stop()


async def settled(dev: Dev) -> tuple[int, int]:
    """Rows of settlements in Postgres, and microcredits they charged."""
    connection = await asyncpg.connect(dev.ready["postgres_url"])
    try:
        row = await connection.fetchrow(TO_POSTGRES)
    finally:
        await connection.close()
    return row[0], row[1]


async def balance(dev: Dev) -> Decimal:
    """Credits left after one more call, of 0.1 credits."""
    status, headers, text = await dev.call("/agents/suggest", {"text": "tea"})
    assert status == 200, text
    return Decimal(headers["X-Credits-Remaining"])


async def all_gone(pids: list[int]) -> None:
    await eventually(lambda: not any(map(command_of, pids)))


async def test_calls_are_charged_recorded_and_there_after_a_stop_and_a_restart(
    start: Start, tmp_path: Path
) -> None:
    first = await start(tmp_path / "d")
    assert set(first.ready) == READY_FIELDS
    assert (first.ready["platform"], first.ready["account"]) == ("demo", "demo")

    status, headers, text = await first.call()
    assert status == 200, text
    charged = Decimal(headers["X-Credits-Charged"])
    assert charged > Decimal("0.1")
    assert Decimal(headers["X-Credits-Remaining"]) == 1000 - charged

    status, headers, text = await first.call(body={**HELLO, "stream": True})
    assert status == 200
    assert headers["Content-Type"].startswith("text/event-stream")
    assert f": credits-charged={charged} credits-remaining={1000 - 2 * charged}" in text

    await eventually(lambda: _has(first, 2, 2 * charged))
    left = await balance(first) - charged  # what comes is charged as well
    running = first.stream(chunks=10, chunk_ms=50)
    text = await anext(running)
    pids = first.pids
    stopping = asyncio.create_task(first.stop())
    text += "".join([part async for part in running])
    assert f": credits-charged={charged} credits-remaining={left}" in text
    assert await stopping == 0
    assert not any(map(command_of, pids))

    second = await start(tmp_path / "d")
    assert second.ready["api_key"] == first.ready["api_key"]
    assert second.ready["admin_token"] == first.ready["admin_token"]
    assert left == 1000 - 3 * charged - Decimal("0.1")
    assert await settled(second) == (4, int((1000 - left) * 1_000_000))
    assert await balance(second) == left - Decimal("0.1")


async def _has(dev: Dev, rows: int, credits_charged: Decimal) -> bool:
    return await settled(dev) == (rows, int(credits_charged * 1_000_000))


async def test_a_killed_supervisor_leaves_nothing_running_and_loses_nothing(
    start: Start, tmp_path: Path
) -> None:
    first = await start(tmp_path / "d", "--credits", "7.5")
    assert await balance(first) == Decimal("7.4")
    pids = first.pids
    first.process.kill()
    # At once, on what is left. The credits are for a first start only.
    second = await start(tmp_path / "d", "--credits", "1000")
    await all_gone(pids)
    assert second.ready["api_key"] == first.ready["api_key"]
    assert await balance(second) == Decimal("7.3")
    await eventually(lambda: _has(second, 2, Decimal("0.2")))


async def test_a_killed_redis_or_postgres_is_back_with_what_it_had(
    start: Start, tmp_path: Path
) -> None:
    dev = await start(tmp_path / "d")
    assert await balance(dev) == Decimal("999.9")
    await eventually(lambda: _has(dev, 1, Decimal("0.1")))
    for name in ("postgres_pid", "redis_pid"):
        os.kill(dev.ready[name], signal.SIGKILL)
    gone = (OSError, support.aiohttp.ClientError, AssertionError)
    assert await eventually(lambda: balance(dev), unless=gone) == Decimal("999.8")
    away = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)
    assert await eventually(lambda: _has(dev, 2, Decimal("0.2")), unless=away)


async def test_a_dead_worker_is_replaced_and_its_admin_is_told(
    start: Start, tmp_path: Path
) -> None:
    dev = await start(tmp_path / "d")
    (doomed,) = dev.ready["worker_pids"]
    status, told = await dev.control("/-/readyz")
    assert (status, told["checks"]) == (200, {"workers": True, "redis": True, "postgres": True})
    assert (await dev.control("/v1/status", dev.ready["api_key"]))[0] == 401

    os.kill(doomed, signal.SIGKILL)
    gone = (OSError, support.aiohttp.ClientError, AssertionError)
    assert await eventually(lambda: balance(dev), unless=gone) == Decimal("999.9")
    status, told = await dev.control("/v1/status", dev.ready["admin_token"])
    assert (status, told["platform"]) == (200, "demo")
    (worker,) = told["workers"]
    assert (worker["ready"], worker["restarts"]) == (True, 1)
    assert worker["pid"] != doomed


async def test_a_person_is_told_the_key_and_the_admin_token(
    config_file: Path, tmp_path: Path
) -> None:
    text = "".join([line async for line in support.told(config_file, tmp_path / "d")])
    own = read_secrets(tmp_path / "d")
    assert re.search(rf"^ +API key +{re.escape(own.api_key)}$", text, re.MULTILINE)
    assert re.search(rf"^ +admin token +{re.escape(own.admin_token)}$", text, re.MULTILINE)
    assert "Nothing listens" not in text


async def test_ctrl_c_in_the_middle_of_a_first_start_ends_all_and_the_next_start_is_clean(
    start: Start, config_file: Path, tmp_path: Path
) -> None:
    for moment in ("lock", "postgres.new", "postgres"):
        folder = tmp_path / f"interrupted-at-{moment}"
        interrupted = await support.launch(support.dev_command(config_file, folder))
        await eventually((folder / moment).exists)
        assert await interrupted.stop(signal.SIGINT) == 0
        # One that was being started at that moment is told by the kernel, once its parent is gone.
        await none_left_on(folder)
        dev = await start(folder)
        assert await balance(dev) == Decimal("999.9")


async def none_left_on(folder: Path) -> None:
    await eventually(lambda: not processes_on(folder))


def processes_on(folder: Path) -> list[str]:
    """Command lines of processes that name the folder."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [line for line in map(command_of, pids) if f"{folder}/" in line]


@pytest.mark.skipif(os.geteuid() != 0, reason="every test here is one of an ordinary user")
async def test_an_ordinary_user_can_run_it_too(config_file: Path) -> None:
    home = Path(tempfile.mkdtemp(prefix="tollkeeper-user-"))
    try:
        shutil.copy(config_file, home / "config.toml")
        await asyncio.to_thread(_give_away, home)
        python = await asyncio.to_thread(_python_of_nobody, home)
        command = support.dev_command(home / "config.toml", home / "d")
        dev = await support.ready(
            await support.launch(
                [*python, "-c", CLI, *command[1:]], cwd=home, env=_environment_of_nobody(home)
            )
        )
        try:
            assert await balance(dev) == Decimal("999.9")
            assert set(map(_uid, dev.pids)) == {65534}
            assert stat.S_IMODE((home / "d" / "secrets.json").stat().st_mode) == 0o600
        finally:
            assert await dev.stop() == 0
    finally:
        shutil.rmtree(home)


def _python_of_nobody(home: Path) -> list[str]:
    """How an ordinary user runs our Python, or one like it: ours may be in a folder of root's."""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    same_version = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, same_version):
        command = [*nobody, python]
        tried = subprocess.run(
            [*command, "-c", START_ANOTHER],
            capture_output=True,
            check=False,
            cwd=home,
            env=_environment_of_nobody(home),
        )
        if tried.returncode == 0:
            return command
    pytest.skip("no Python here that an ordinary user can reach")


def _environment_of_nobody(home: Path) -> dict[str, str]:
    found = [str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PYTHONPATH": os.pathsep.join(found),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _uid(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


def _give_away(home: Path) -> None:
    for path in (home, *home.iterdir()):
        os.chown(path, 65534, 65534)


async def test_the_example_config_reaches_the_sample_agent_that_dev_starts(tmp_path: Path) -> None:
    try:
        hold(SAMPLE_AGENT_HOST, SAMPLE_AGENT_PORT).close()
    except OSError:
        pytest.skip(f"another program has port {SAMPLE_AGENT_PORT}")
    dev = await support.start(ROOT / "config.toml", tmp_path / "d")
    try:
        assert dev.ready["sample_agent_url"] == f"http://127.0.0.1:{SAMPLE_AGENT_PORT}"
        status, headers, _ = await dev.call("/agents/image", {"n": 2})
        assert (status, headers["X-Credits-Charged"]) == (200, "10")
    finally:
        assert await dev.stop() == 0

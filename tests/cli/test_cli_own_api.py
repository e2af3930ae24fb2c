"""Commands on a config: the API that runs in their own process, and what becomes of it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import pytest

from gateway.cli import api as own_api
from gateway.embedded.datadir import open_data_dir
from tests.support.remote_cli import LINE_S_MAX, PROGRAM
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from tests.cli.conftest import CommandLine

AWAY = "redis://:s3cret@127.0.0.1:1"
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A folder for temporary files, with a short name: sockets are in it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@asynccontextmanager
async def running(
    cli: CommandLine, temporary: Path, *words: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command as a process of its own."""
    where = ("--config", str(cli.config), "--data-dir", str(cli.data_dir))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *words, *where),
        env=os.environ | {"TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_looking_needs_no_redis_and_no_secrets(
    command_line: Callable[..., CommandLine],
    cli: CommandLine,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await cli.json("apply")
    await cli.json("accounts", "create", "alice", "--plan", "free", "--key")
    away = command_line(AWAY, postgres_url)
    text = away.config.read_text()
    master_key = 'master_key = "env:NOT_SET_ANYWHERE"\n'
    away.config.write_text(text.replace("shards = 4\n", "shards = 4\n" + master_key))
    monkeypatch.delenv("TOLLKEEPER_TEST_PEPPER")
    for words in (
        *(("accounts", "list"), ("keys", "list", "alice"), ("grants", "list", "alice")),
        *(
            ("plans", "list"),
            ("plans", "show", "free"),
            ("routes", "list"),
            ("routes", "show", "health"),
        ),
        *(("calls", "list"), ("calls", "list", "alice"), ("usage",), ("usage", "alice")),
    ):
        answer = await away(*words)
        assert (answer.code, answer.err) == (0, ""), words
    answer = await away("accounts", "suspend", "alice")
    assert (answer.code, "Redis at redis://127.0.0.1:1" in answer.err) == (1, True)
    assert "s3cret" not in answer.err
    assert answer.err.count("\n") == 1


@pytest.mark.parametrize("words", [("keys", "create", "alice"), ("keys", "rotate", "1")])
async def test_keys_are_not_made_without_the_pepper_that_they_are_known_by(
    command_line: Callable[..., CommandLine],
    cli: CommandLine,
    clean_redis_url: str,
    postgres_url: str,
    words: tuple[str, ...],
) -> None:
    await cli.json("apply")
    await cli.json("accounts", "create", "alice", "--key")
    answer = await command_line(clean_redis_url, postgres_url, pepper=False)(*words)
    assert (answer.code, "gateway.key_pepper" in answer.err) == (2, True)
    assert len((await cli.json("keys", "list"))["keys"]) == 1


async def test_a_master_key_that_is_another_s_is_said_to_be(cli: CommandLine) -> None:
    text = cli.config.read_text()
    cli.config.write_text(text.replace("shards = 4\n", 'shards = 4\nmaster_key = "nonsense"\n'))
    await cli("apply")
    answer = await cli("accounts", "list")
    assert (answer.code, "gateway.master_key" in answer.err) == (2, True)
    assert "nonsense" not in answer.err


async def test_who_changed_something_is_in_the_audit_log(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_api.getpass, "getuser", lambda: "ada")
    await cli.json("apply")
    await cli.json("accounts", "create", "alice")
    await cli.json("accounts", "suspend", "alice")
    entries = (await cli.json("audit-log"))["entries"]
    assert {entry["actor"] for entry in entries} == {"cli:ada"}


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(own_api.getpass, "getuser", nobody)
    assert own_api._user() == str(os.getuid())


async def test_ctrl_c_ends_a_command_and_leaves_nothing_behind(
    cli: CommandLine, postgres_url: str, temporary: Path
) -> None:
    await cli.json("apply")
    await cli.json("accounts", "create", "alice")
    holder, watcher = [await asyncpg.connect(postgres_url) for _ in range(2)]

    async def waits() -> bool:
        return bool(await watcher.fetchval(WAITING))

    try:
        await holder.execute("BEGIN; SELECT FROM accounts FOR UPDATE")
        async with running(cli, temporary, "accounts", "suspend", "alice") as process:
            await eventually(waits)
            assert names_in(temporary)  # the socket's folder
            process.send_signal(signal.SIGINT)
            out, err = await asyncio.wait_for(process.communicate(), LINE_S_MAX)
        assert (process.returncode, out) == (130, b""), err.decode()
        assert b"Traceback" not in err
        assert names_in(temporary) == []
        await holder.execute("ROLLBACK")
    finally:
        await holder.close()
        await watcher.close()
    assert (await cli.json("accounts", "show", "alice"))["account"]["status"] == "active"


async def test_ctrl_c_stops_the_servers_that_a_command_started(
    command_line: Callable[..., CommandLine], temporary: Path
) -> None:
    cli = command_line("embedded", "embedded", pepper=False)
    with open_data_dir(cli.data_dir) as folder:
        folder.secrets()
    async with running(cli, temporary, "accounts", "list") as process:

        async def starts() -> bool:
            return bool(list(cli.data_dir.rglob("postmaster.pid")))

        await eventually(starts)
        process.send_signal(signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), LINE_S_MAX)
    assert process.returncode == 130, err.decode()
    assert list(cli.data_dir.rglob("postmaster.pid")) == []
    with open_data_dir(cli.data_dir):  # nobody is on it
        pass

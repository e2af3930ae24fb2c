"""What a person does wrong is said in one line each, with exit code 2 and no traceback."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from gateway.embedded.agent import SAMPLE_AGENT_HOST, SAMPLE_AGENT_PORT
from gateway.ports import held_port, hold
from tests.support import dev as support
from tests.support.dev import ROOT, edit, refused, told
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

BROKEN = """
[gateway]
worker = 2
proxy_listen = "8080"

[[routes]]
name = "unpriced"
match = "POST /a"
upstream = "http://127.0.0.1:1"

[[routes]]
name = "odd"
match = "/b"
upstream = "ftp://127.0.0.1:1"
free = true
"""


async def test_a_broken_config_is_told_with_all_its_mistakes(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(BROKEN)
    lines = await refused(tmp_path / "config.toml", tmp_path / "d")
    assert len(lines) >= 5
    for part in ("worker", "proxy_listen", "unpriced", "match", "upstream"):
        assert any(part in line for line in lines), part
    assert not (tmp_path / "d").exists()


async def test_a_missing_config_is_named(tmp_path: Path) -> None:
    (line,) = await refused(tmp_path / "nowhere.toml", tmp_path / "d")
    assert "nowhere.toml" in line
    assert "--config" in line


async def test_a_secret_that_is_not_there_is_named(config_file: Path, tmp_path: Path) -> None:
    headers = '[routes.headers]\nAuthorization = "env:TOLLKEEPER_TEST_NOT_SET"\n\n[routes.price]'
    edit(config_file, "[routes.price]", headers)
    (line,) = await refused(config_file, tmp_path / "d")
    assert "headers.Authorization" in line
    assert "TOLLKEEPER_TEST_NOT_SET" in line


async def test_every_taken_port_is_named(config_file: Path, tmp_path: Path) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as proxy,
        socket.create_server(("127.0.0.1", 0)) as control,
    ):
        ports = [str(taken.getsockname()[1]) for taken in (proxy, control)]
        lines = await refused(
            config_file, tmp_path / "d", "--port", ports[0], "--control-port", ports[1]
        )
    assert [line for line in lines if "taken by another program" in line] == lines
    assert ports[0] in lines[0]
    assert ports[1] in lines[1]


async def test_one_port_for_both_proxy_and_control_plane_is_refused(
    config_file: Path, tmp_path: Path
) -> None:
    port = str(free_port())
    (line,) = await refused(config_file, tmp_path / "d", "--port", port, "--control-port", port)
    assert port in line


async def test_a_taken_port_of_the_sample_agent_is_named_with_the_route_that_needs_it(
    tmp_path: Path,
) -> None:
    try:
        taken = socket.create_server((SAMPLE_AGENT_HOST, SAMPLE_AGENT_PORT))
    except OSError:
        taken = None  # by another program: as good
    lines = await refused(ROOT / "config.toml", tmp_path / "d")
    if taken:
        taken.close()
    assert len(lines) == 1
    assert str(SAMPLE_AGENT_PORT) in lines[0]
    assert '"chat"' in lines[0]
    assert "stop it, or give the route the upstream of an agent of yours" in lines[0]


async def test_a_route_to_a_port_of_this_machine_where_nothing_listens_is_told_at_start(
    config_file: Path, agent_url: str, tmp_path: Path
) -> None:
    with hold("127.0.0.1") as held:  # bound, so that nobody else comes to listen there
        nowhere = f"127.0.0.1:{held_port(held)}"
        edit(config_file, agent_url, f"http://{nowhere}")
        lines = [line async for line in told(config_file, tmp_path / "d")]

    (line,) = [line for line in lines if "Nothing listens on" in line]
    assert nowhere in line
    assert '"chat"' in line
    assert "502" in line


async def test_a_data_folder_in_use_is_refused_and_its_user_goes_on(
    config_file: Path, tmp_path: Path
) -> None:
    first = await support.start(config_file, tmp_path / "d")
    try:
        (line,) = await refused(config_file, tmp_path / "d")
        assert str(tmp_path / "d") in line
        assert f"in use by process {first.process.pid}" in line
        assert (await first.call())[0] == 200
    finally:
        assert await first.stop() == 0


@pytest.mark.parametrize(
    ("kind", "url"),
    [("Redis", "redis://127.0.0.1:1/0"), ("Postgres", "postgresql://u:hush@127.0.0.1:1/d")],
)
async def test_a_server_that_is_not_there_is_named_without_its_password(
    kind: str, url: str, config_file: Path, tmp_path: Path
) -> None:
    name = f"{kind.lower()}_url"
    edit(config_file, f'{name} = "embedded"', f'{name} = "{url}"')
    (line,) = await refused(config_file, tmp_path / "d")
    assert kind in line
    assert "127.0.0.1:1" in line
    assert "can't be used" in line
    assert "hush" not in line

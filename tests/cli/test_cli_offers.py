"""Plans and routes on the command line: as documents in files, and routes tried before that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.cli.typed import read_document
from gateway.operations.errors import UsageError
from tests.support.ports import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.conftest import CommandLine

PRO = """
slug = "pro"
credits = "50"
requests_per_second = 5
overage = "bill"
overage_cap = "20"
[caps]
day = "30"
"""
CHAT = """
[[routes]]
name = "chat"
match = "POST /v1/chat/{{model}}"
upstream = "http://127.0.0.1:{port}"
[routes.price]
per_request = "0.1"
[[routes.price.meters]]
unit = "token"
from = "response.json:/usage/total_tokens"
credits_per_unit = "0.001"
reserve_units = 4000
"""


@pytest.fixture
def shop(cli: CommandLine) -> CommandLine:
    """Agents may be on this machine."""
    text = cli.config.read_text()
    networks = 'shards = 4\nprivate_upstreams = ["127.0.0.0/8"]\n'
    cli.config.write_text(text.replace("shards = 4\n", networks))
    return cli


async def test_a_plan_is_made_shown_changed_and_deleted(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "pro.toml"
    file.write_text(PRO)
    await cli.json("apply")
    made = (await cli.json("plans", "create", "--file", str(file)))["plan"]
    assert (made["slug"], made["managed_by"], made["caps"]["day"]) == ("pro", "api", "30")
    assert "5/s, 30 credits/day" in (await cli("plans", "list")).out
    people = (await cli("plans", "show", "pro")).out
    assert "overage_cap: 20" in people
    assert "caps: day = 30" in people

    shown = await cli("plans", "show", "pro", "--json")
    changed = {"plan": shown.document["plan"] | {"credits": "60", "caps": None}}
    again = tmp_path / "pro.json"
    again.write_text(json.dumps(changed))  # what is shown can be given back
    assert "Plan pro is changed." in (await cli("plans", "update", "pro", "--file", str(again))).out
    plan = (await cli.json("plans", "show", "pro"))["plan"]
    assert (plan["credits"], plan["caps"], plan["requests_per_second"]) == ("60", None, 5)

    await cli.json("accounts", "create", "alice", "--plan", "pro")
    refused = await cli("plans", "delete", "pro")
    assert refused.code == 2
    await cli.json("accounts", "set-plan", "alice", "free")
    assert "Plan pro is deleted." in (await cli("plans", "delete", "pro")).out
    assert (await cli("plans", "show", "pro")).code == 2


async def test_a_route_is_tried_made_changed_and_taken_out_of_service(
    shop: CommandLine, tmp_path: Path
) -> None:
    await shop.json("apply")
    file = tmp_path / "chat.toml"
    port = free_port()  # where nobody listens
    file.write_text(CHAT.format(port=port))
    told = ("--file", str(file))
    tried = await shop("routes", "dry-run", *told, "--units", "token=1200")
    assert tried.code == 0, tried.err
    assert "Held before the call: 4.1 credits." in tried.out
    assert "Charged when completed, with token=1200: 1.3 credits." in tried.out

    made = (await shop.json("routes", "create", *told))["route"]
    assert (made["name"], made["active"], made["managed_by"]) == ("chat", True, "api")
    assert "0.1/call + 0.001/token" in (await shop("routes", "list")).out
    people = (await shop("routes", "show", "chat")).out
    assert f"POST /v1/chat/{{model}} to http://127.0.0.1:{port}, active" in people

    patch = tmp_path / "patch.json"
    patch.write_text('{"price": {"per_request": "0.2"}}')
    changed = await shop("routes", "update", "chat", "--file", str(patch))
    assert changed.out == "Route chat is changed.\n"
    assert "0.2/call + 0.001/token" in (await shop("routes", "list")).out
    replaced = await shop.json("routes", "update", "chat", *told, "--replace")
    assert replaced["route"]["price"]["per_request"] == "0.1"

    reached = await shop("routes", "reach", "chat")
    assert (reached.code, "can't be reached" in reached.out) == (1, True)
    tried = await shop("routes", "dry-run", "chat", "--max-credits", "0.05", "--reach")
    assert "Refused with 402" in tried.out
    assert "can't be reached" in tried.out

    assert "Route chat is out of service." in (await shop("routes", "delete", "chat")).out
    (row,) = [r for r in (await shop.json("routes", "list"))["routes"] if r["name"] == "chat"]
    assert row["active"] is False


async def test_every_mistake_of_a_route_is_told_at_once(shop: CommandLine, tmp_path: Path) -> None:
    await shop.json("apply")
    file = tmp_path / "wrong.toml"
    file.write_text('name = "x"\nmatch = "nowhere"\nupstream = "ftp://a"\ncolour = "red"\n')
    answer = await shop("routes", "create", "--file", str(file))
    assert (answer.code, answer.out) == (2, "")
    for field in ("match", "upstream", "colour"):
        assert f"\n  {field}: " in answer.err


def test_a_document_is_read_however_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "document"
    for text in (
        '{"name": "chat", "id": 3}',
        '{"route": {"name": "chat", "active": true}}',
        'name = "chat"\n',
        '[[routes]]\nname = "chat"\n',
    ):
        file.write_text(text)
        assert read_document(str(file), "route") == {"name": "chat"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "document: "),
        (b"name = ", "document: "),
        (b"\xff", "is not UTF-8"),
        (b'{"route": []}', "is no route: see one with routes show --json"),
        (b"#" * (1 << 20) + b"#", "is over"),
    ],
)
def test_what_is_no_document_is_said_to_be_none(
    tmp_path: Path, content: bytes, message: str
) -> None:
    file = tmp_path / "document"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_document(str(file), "route")


def test_a_document_can_come_from_stdin(tmp_path: Path) -> None:
    words = ["plans", "create", "--file", "-", "--config", str(tmp_path / "no.toml")]
    result = CliRunner().invoke(app, words, input=b"\xff")
    assert (result.exit_code, "- is not UTF-8" in result.stderr) == (2, True)

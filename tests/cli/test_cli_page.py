"""docs/cli.md: commands that there are, and what is said about them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from gateway.cli.app import app
from gateway.cli.run import FAILED, INTERRUPTED, WRONG
from gateway.identity.tokens import ACCESS_TOKEN_S
from gateway.operations.logins import LOGIN_S_MAX
from gateway.operations.settlements import FOLLOW_OVERLAP_MS, FOLLOW_PAST_MS_MAX
from tests.cli.test_cli_commands import commands

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
BLOCKS = re.findall(r"^```console\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [
    line.removeprefix("$ tollkeeper ").partition(" < ")[0]
    for block in BLOCKS
    for line in block.splitlines()
    if "-completion" not in line  # these end the process at once: test_cli_completion.py
]
# On pages of their own.
ELSEWHERE = {"routes", "plans", "accounts", "keys", "grants", "calls", "events"}


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_is_understood(line: str) -> None:
    group, words = typer.main.get_command(app), shlex.split(line)
    while subcommands := getattr(group, "commands", None):
        group = subcommands[words.pop(0)]
    group.make_context(line, words)  # raises for what it does not know; runs nothing


def test_every_group_of_commands_is_on_the_page_or_has_another() -> None:
    groups = sorted({words[0] for words in commands()} - ELSEWHERE)

    assert [name for name in groups if not re.search(rf"[` ]{name}\b", PAGE)] == []


def test_figures_of_the_page_are_those_of_the_code() -> None:
    assert "ten minutes" in PAGE
    assert ACCESS_TOKEN_S == 10 * 60
    assert "after 30 days" in PAGE
    assert LOGIN_S_MAX == 30 * 86_400
    assert "last five seconds" in PAGE
    assert FOLLOW_OVERLAP_MS == 5_000
    assert "up to an hour later" in PAGE
    assert FOLLOW_PAST_MS_MAX == 3_600_000
    for code in (FAILED, WRONG, INTERRUPTED):
        assert f"\n| {code} | " in PAGE

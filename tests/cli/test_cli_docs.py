"""The snippets of docs/credits.md: configs that start, and commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer.main

from gateway.cli.app import app
from gateway.config import load_config

PAGE = Path(__file__).parents[2] / "docs" / "credits.md"


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found
    return found


COMMANDS = [
    line.removeprefix("$ tollkeeper ") for block in blocks("console") for line in block.splitlines()
]


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_config_of_the_page_starts(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    load_config(file)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_page_is_understood(line: str) -> None:
    group, words = typer.main.get_command(app), shlex.split(line)
    while subcommands := getattr(group, "commands", None):
        group = subcommands[words.pop(0)]
    group.make_context(line, words)  # raises for what it does not know; runs nothing


def test_every_new_word_of_the_config_is_explained() -> None:
    page = PAGE.read_text()
    for key in (
        *("requests_per_second", "burst", "quota_window", "overage", "overage_cap", "rollover"),
        *("rollover_periods", "low_credits", "refund_expired", "[plans.caps]", "[routes.caps]"),
        *("[routes.limits]", "when_redis_is_down", "lease_s", "backlog_minutes_max"),
    ):
        assert key in page

"""Every command that the manual shows is one that there is."""

from __future__ import annotations

import re
import shlex

import pytest
import typer.main

from gateway.cli.app import app
from tests.support.manual_pages import DOCS

# Less what the shell does with files; completion ends the process at once: test_cli_completion.py.
LINES = sorted(
    {
        re.split(r" [<>] ", line)[0]
        for page in DOCS.glob("*.md")
        for line in re.findall(
            r"^\$ tollkeeper (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE
        )
        if "-completion" not in line
    }
)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_manual_is_understood(line: str) -> None:
    group, words = typer.main.get_command(app), shlex.split(line)
    while subcommands := getattr(group, "commands", None):
        group = subcommands[words.pop(0)]
    group.make_context(line, words)  # raises for what it does not know; runs nothing

"""docs/stripe.md: configs that start, commands that there are, every key of metadata and choice."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import typer.main

from gateway.cli.app import app
from gateway.config import load_config
from gateway.config.stripe import StripeTable, stripe_document
from gateway.stripe_sync.metadata import keys_of
from policies.billing_options import DunningRules

PAGE = (Path(__file__).parents[2] / "docs" / "stripe.md").read_text()


def blocks(kind: str) -> list[str]:
    found = re.findall(rf"^```{kind}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found
    return found


LINES = [
    line.removeprefix("$ tollkeeper ").partition(" < ")[0]
    for block in blocks("console")
    for line in block.splitlines()
]


@pytest.mark.parametrize("text", blocks("toml"))
def test_every_config_of_the_page_can_be_read(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    load_config(file)


@pytest.mark.parametrize("line", LINES)
def test_every_command_of_the_page_is_understood(line: str) -> None:
    group, words = typer.main.get_command(app), shlex.split(line)
    while subcommands := getattr(group, "commands", None):
        group = subcommands[words.pop(0)]
    group.make_context(line, words)  # raises for what it does not know; runs nothing


def test_every_key_of_metadata_and_every_choice_is_explained() -> None:
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert keys_of("plan") | keys_of("pack") <= named
    choices = set(stripe_document(StripeTable(""))) - {"secret_key", "webhook_secrets"}
    assert choices <= named
    assert {field.name for field in fields(DunningRules)} <= named

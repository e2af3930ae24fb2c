"""docs/cli.md: groups of commands, and figures."""

from __future__ import annotations

import re
from pathlib import Path

from gateway.cli.run import FAILED, INTERRUPTED, WRONG
from gateway.identity.tokens import ACCESS_TOKEN_S
from gateway.operations.logins import LOGIN_S_MAX
from gateway.operations.settlements import FOLLOW_OVERLAP_MS, FOLLOW_PAST_MS_MAX
from tests.cli.test_cli_commands import commands

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
# On pages of their own.
ELSEWHERE = {"routes", "plans", "accounts", "keys", "grants", "calls", "events"}


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

"""The README of stripe_sync tells no tale: its files and tests are there, all of them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "gateway/stripe_sync"
README = (PACKAGE / "README.md").read_text(encoding="utf-8")


def test_every_file_is_in_its_table() -> None:
    table = README.partition("## Its files")[2].partition("## A handler")[0]
    there = {path.name for path in PACKAGE.glob("[a-z]*.py")}
    assert set(re.findall(r"`([a-z_]+\.py)`", table)) == there


def test_every_test_that_holds_an_invariant_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", README))
    found = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text(encoding="utf-8"))
    }
    assert len(named) > 20
    assert named <= found

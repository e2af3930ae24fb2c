"""examples/mcp as a newcomer runs it: pages show what is printed, and tools are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.examples import assert_printed, running_example

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("README.md", "docs/mcp.md")


async def test_the_client_gets_what_its_pages_show_and_pays_for_it(tmp_path: Path) -> None:
    async with running_example("mcp", tmp_path, "--credits", "20") as example:
        printed = await example.client()
        for page in PAGES:
            assert_printed(printed, example.shown(page, "client.py"))
        printed = await example.client("--spend")
        for page in PAGES:
            assert_printed(printed, example.shown(page, "--spend"))
        # Four tools and one; to open and to list is free, twice. What was refused is no call.
        charges = await example.charges(9)
        assert [charge.microcredits for charge in charges if charge.microcredits] == [
            500_000,
            8_000_000,
            1_000_000,
            8_000_000,
        ]
        assert {(charge.ending, charge.flags) for charge in charges} == {("completed", "")}

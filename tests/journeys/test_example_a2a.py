"""examples/a2a as a newcomer runs it: pages show what is printed, and tasks are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.examples import assert_printed, running_example

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("README.md", "docs/a2a.md")


async def test_the_client_gets_what_its_pages_show_and_pays_for_it(tmp_path: Path) -> None:
    async with running_example("a2a", tmp_path, "--credits", "10") as example:
        printed = await example.client()
        for page in PAGES:
            assert_printed(printed, example.shown(page, "client.py"))
        printed = await example.client("--spend")
        for page in PAGES:
            assert_printed(printed, example.shown(page, "--spend"))
        # Three cards, five tasks, and two calls of the first and one of the second that are free.
        charges = [charge for charge in await example.charges(11) if charge.units]
        assert [(charge.units, charge.microcredits) for charge in charges] == [
            ("km=1500", 2_000_000),
            ("km=2200", 2_700_000),
            ("km=2200", 2_700_000),
        ]
        endings = {charge.ending: charge.microcredits for charge in await example.charges(11)}
        assert endings["client_disconnect"] == 500_000
        assert endings["upstream_error"] == 0

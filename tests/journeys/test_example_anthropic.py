"""examples/anthropic as a newcomer runs it: pages show what is printed, and calls are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.examples import running_example, same

if TYPE_CHECKING:
    from pathlib import Path

WHERE = {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_API_KEY": "{key}"}
PAGES = ("README.md", "docs/anthropic.md")


async def test_the_client_gets_what_its_pages_show_and_pays_for_it(tmp_path: Path) -> None:
    async with running_example("anthropic", tmp_path, "--credits", "50") as example:
        printed = await example.client(**WHERE)
        for page in PAGES:
            assert same(printed) == same(example.shown(page, "client.py"))
        charges = await example.charges(5)
        assert [charge.units for charge in charges] == [
            "input=3;output=5",
            "input=3;output=5",
            "input=3;output=12",
            "input=6;output=2",
            "input=10;output=6",
        ]
        # 0.001 and 0.005 a token; a fifth of it for the small model.
        assert [charge.microcredits for charge in charges] == [
            28_000,
            5_600,
            63_000,
            16_000,
            40_000,
        ]
        assert {(charge.ending, charge.flags) for charge in charges} == {("completed", "")}

        printed = await example.client("--spend", **WHERE)
        for page in PAGES:
            assert same(printed) == same(example.shown(page, "--spend"))
        spent = await example.charges(7)
        assert {charge.units for charge in spent[5:]} == {"input=3;output=4000"}
        assert {charge.microcredits for charge in spent[5:]} == {20_003_000}

"""examples/openai as a newcomer runs it: pages show what is printed, and calls are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.examples import running_example, same

if TYPE_CHECKING:
    from pathlib import Path

WHERE = {"OPENAI_BASE_URL": "{url}/v1", "OPENAI_API_KEY": "{key}"}
PAGES = ("README.md", "docs/openai.md")


async def test_the_client_gets_what_its_pages_show_and_pays_for_it(tmp_path: Path) -> None:
    async with running_example("openai", tmp_path, "--credits", "20") as example:
        printed = await example.client(**WHERE)
        for page in PAGES:
            assert same(printed) == same(example.shown(page, "client.py"))
        charges = await example.charges(5)
        assert [charge.units for charge in charges] == [
            "input=3;output=5",
            "input=3;output=5",
            "input=3;output=12",
            "input=6;output=2",
            "input=9;output=6",
        ]
        # 0.001 and 0.004 a token; a fifth of it for the small model.
        assert [charge.microcredits for charge in charges] == [
            23_000,
            4_600,
            51_000,
            14_000,
            33_000,
        ]
        assert {(charge.ending, charge.flags) for charge in charges} == {("completed", "")}

        printed = await example.client("--spend", **WHERE)
        for page in PAGES:
            # How far it comes depends on how the network cuts it.
            shown = example.shown(page, "--spend")
            assert same(printed, numbers=False) == same(shown, numbers=False)
        exhausted = (await example.charges(6))[-1]
        assert exhausted.ending == "exhausted"
        assert sum(charge.microcredits for charge in (*charges, exhausted)) <= 20_000_000

"""examples/a2a as a newcomer runs it: pages show what is printed, and tasks are charged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.examples import running_example, same

if TYPE_CHECKING:
    from pathlib import Path

PAGES = ("README.md", "docs/a2a.md")
COST, RESERVED = "  ", "  reserved "


def compare(printed: str, shown: str) -> None:
    """What was said is the same, and so is each cost that was known.

    The agent's server sends an answer's head and its body one after the other. On a busy machine
    the gateway may have to pass on the one before it has the other: its head then says what is
    reserved, in place of the charge. What was charged in the end is looked up in Postgres.
    """
    told, expected = same(printed).splitlines(), same(shown).splitlines()
    assert [line for line in told if not line.startswith(COST)] == [
        line for line in expected if not line.startswith(COST)
    ]
    charged = [line for line in told if line.startswith(COST) and not line.startswith(RESERVED)]
    assert contains(expected, charged)
    assert contains(told, [line for line in expected if line.startswith(RESERVED)])


def contains(lines: list[str], some: list[str]) -> bool:
    """Whether all of `some` are among the lines, in their order."""
    rest = iter(lines)
    return all(line in rest for line in some)


async def test_the_client_gets_what_its_pages_show_and_pays_for_it(tmp_path: Path) -> None:
    async with running_example("a2a", tmp_path, "--credits", "10") as example:
        printed = await example.client()
        for page in PAGES:
            compare(printed, example.shown(page, "client.py"))
        printed = await example.client("--spend")
        for page in PAGES:
            compare(printed, example.shown(page, "--spend"))
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

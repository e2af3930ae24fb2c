"""examples/websocket as a newcomer runs it: pages show what is printed, and talking is charged."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import load_config
from tests.support.examples import running_example, same

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/websocket.md")


async def test_the_client_gets_what_its_pages_show_and_pays_for_it(tmp_path: Path) -> None:
    async with running_example("websocket", tmp_path, "--credits", "20") as example:
        printed = await example.client()
        for page in PAGES:
            assert same(printed) == same(example.shown(page, "client.py"))
        (talked,) = await example.charges(1)
        assert (talked.ending, talked.status) == ("completed", 101)
        messages, seconds = units(talked.units)
        assert messages == 3
        assert talked.microcredits == 100_000 + 3 * 500_000 + seconds * 10_000

        printed = await example.client("--spend")
        for page in PAGES:
            # How far it comes depends on how long it takes.
            shown = example.shown(page, "--spend")
            assert same(printed, numbers=False) == same(shown, numbers=False)
        spent = (await example.charges(2))[-1]
        messages, seconds = units(spent.units)
        assert (spent.ending, spent.status) == ("exhausted", 101)
        assert spent.microcredits == 100_000 + messages * 500_000 + seconds * 10_000
        left = 20_000_000 - talked.microcredits - spent.microcredits
        assert 0 <= left < 500_000


def units(text: str) -> tuple[int, int]:
    """Messages and seconds of a settlement."""
    messages, seconds = text.split(";")
    return int(messages.removeprefix("message=")), int(seconds.removeprefix("second="))


@pytest.mark.parametrize("page", ["docs/websocket.md"])
def test_the_route_of_the_page_is_that_of_the_example(tmp_path: Path, page: str) -> None:
    text = (ROOT / page).read_text().partition("```toml\n")[2].partition("```")[0]
    file = tmp_path / "config.toml"
    file.write_text(text)
    example = load_config(ROOT / "examples" / "websocket" / "config.toml")
    assert load_config(file).routes == example.routes

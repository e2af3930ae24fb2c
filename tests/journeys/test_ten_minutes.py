"""The ten minutes that docs/stripe.md begins with: every command, and the buttons between them."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.support import dev as support
from tests.support.dev import output_of
from tests.support.manual_pages import DOCS
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from pathlib import Path

SECTION = re.compile(r"^## Ten minutes.*?(?=^## )", re.MULTILINE | re.DOTALL)
START = "$ tollkeeper dev --fake-stripe\n"
FAKE_SHOWN = "http://127.0.0.1:9110"
MONTH = {"days": 31, "hours": 2}


def blocks(kind: str) -> list[str]:
    found = SECTION.search((DOCS / "stripe.md").read_text(encoding="utf-8"))
    assert found is not None
    return re.findall(rf"^```{kind}\n(.*?)^```", found[0], re.MULTILINE | re.DOTALL)


class Newcomer:
    """Somebody with a terminal and a browser, who knows what was printed last."""

    def __init__(self, fake_url: str, browser: aiohttp.ClientSession, *options: str) -> None:
        self.printed = ""
        self._fake_url = fake_url
        self._browser = browser
        self._options = options

    async def types(self, block: str) -> None:
        """Every command of a block prints what is shown below it, at once or in a moment."""
        for step in block.removeprefix("$ ").split("\n$ "):
            command, *shown = step.replace(FAKE_SHOWN, self._fake_url).strip().split("\n")
            program, *words = shlex.split(command)
            assert program == "tollkeeper"
            pattern = ".*".join(re.escape(line).replace("…", r"\w+") for line in shown)
            await self._sees(words, re.compile(pattern, re.DOTALL))

    async def _sees(self, words: list[str], pattern: re.Pattern[str]) -> None:
        async def seen() -> bool:
            self.printed = await output_of(*words, *self._options)
            return pattern.search(self.printed) is not None

        try:
            await eventually(seen)
        except TimeoutError as error:
            told = f"{shlex.join(words)} does not print {pattern.pattern} but {self.printed}"
            raise AssertionError(told) from error

    async def presses(self, path: str, status: int = 200, **values: Any) -> None:
        url = f"{self._fake_url}/_fake/{path}"
        async with self._browser.post(url, json=values) as answer:
            assert answer.status == status, await answer.text()

    async def finds(self, pattern: str) -> str:
        """The name of something on the fake's first page."""
        async with self._browser.get(self._fake_url) as answer:
            page = await answer.text()
        found = re.search(pattern, page, re.DOTALL)
        assert found is not None, page
        return found[1]

    @property
    def page(self) -> str:
        """The last part of the address that was printed last."""
        return self.printed.split()[0].rsplit("/", 1)[1]


async def test_the_ten_minutes_of_the_manual(config_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "d"
    dev = await support.start(config_file, folder, "--fake-stripe")
    options = ("--config", str(config_file), "--data-dir", str(folder))
    try:
        async with aiohttp.ClientSession() as browser:
            newcomer = Newcomer(dev.ready["fake_stripe_url"], browser, *options)
            await go_through(newcomer, config_file)
    finally:
        await dev.stop()


async def go_through(newcomer: Newcomer, config_file: Path) -> None:
    start, *typed = blocks("console")
    assert start == START
    remaining = iter(typed)
    with config_file.open("a") as file:
        file.write("\n".join(["", *blocks("toml")]))
    await newcomer.types(next(remaining))

    await newcomer.types(next(remaining))
    pay = f"checkout/{newcomer.page}/pay"
    await newcomer.presses(pay, 402, card="fails")
    await newcomer.presses(pay, card="works")
    await newcomer.types(next(remaining))
    await newcomer.types(next(remaining))  # the upgrade

    first = await newcomer.finds(r"\$19\.00.*?charges/(ch_\w+)/refund")
    await newcomer.presses(f"charges/{first}/refund", money="9.50")
    await newcomer.types(next(remaining))
    second = await newcomer.finds(r"\$60\.00.*?charges/(ch_\w+)/dispute")
    await newcomer.presses(f"charges/{second}/dispute")
    await newcomer.types(next(remaining))
    dispute = await newcomer.finds(r"disputes/(du_\w+)/close")
    await newcomer.presses(f"disputes/{dispute}/close", ending="won")
    await newcomer.types(next(remaining))

    await newcomer.presses("advance", **MONTH)
    await newcomer.types(next(remaining))
    customer = await newcomer.finds(r"customers/(cus_\w+)/card")
    await newcomer.presses(f"customers/{customer}/card", card="fails at renewal")
    await newcomer.presses("advance", **MONTH)
    for _ in range(9):
        await newcomer.presses("advance", days=1)
    await newcomer.types(next(remaining))
    portal = f"portal/{newcomer.page}"
    await newcomer.presses(f"{portal}/card", card="works")
    invoice = await newcomer.finds(r"<code>invoice\.payment_failed.*?(in_\w+)")
    await newcomer.presses(f"{portal}/pay", invoice=invoice)
    await newcomer.types(next(remaining))

    await newcomer.types(next(remaining))  # cancels
    await newcomer.presses("advance", **MONTH)
    await newcomer.types(next(remaining))
    assert list(remaining) == []

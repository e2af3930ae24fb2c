"""docs/prices.md: its configs start, and every call in its tables costs what it says there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from gateway.config import load_config
from policies import pricing
from policies.catalog import MeterSpec, Price, Rule, Source
from policies.meters.call import BYTES_PER_UNIT
from policies.meters.reading import Reading
from policies.pricing import terms_of
from policies.terms import RpcCall, Terms
from policies.units import format_credits, parse_credits, parse_percent

PAGE = (Path(__file__).parents[2] / "docs" / "prices.md").read_text()
SNIPPETS = re.findall(
    r"^```toml\n(.*?)^```(.*?)(?=^```toml|^## |\Z)", PAGE, re.MULTILINE | re.DOTALL
)
ROW = re.compile(
    r"^\| (?:`([^`|]+)`[^|]*|any) \| ([\d.]+|refused) \| ([\d.]*) ?\|(?: ?`?([\w,]*)`? ?\|)?$"
)
ROWS = [
    (config, *row.groups())
    for config, text in SNIPPETS
    for line in text.splitlines()
    if (row := ROW.fullmatch(line))
]


class Call(NamedTuple):
    """A call as a table of the page writes it: `model=large token=1000`."""

    words: dict[str, str]
    tools: list[str]
    methods: list[str]

    def text(self, source: Source) -> str | None:
        return self.words.get(source.argument.removeprefix("/"))

    def units(self, source: Source) -> int | None:
        text = self.words.get(source.argument.removeprefix("/"))
        return None if text is None else int(text)

    def doubt(self, _source: Source) -> str | None:
        return None

    def rpc_calls(self, price: Price) -> tuple[RpcCall, ...]:
        rpc = price.rpc
        if rpc is None:
            return ()
        amounts = [rpc.tools.get(tool, rpc.default_tool) for tool in self.tools]
        amounts += [rpc.methods.get(method, 0) for method in self.methods]
        return tuple(RpcCall("1", "", amount) for amount in amounts)

    def estimate(self, meter: MeterSpec) -> int:
        per_unit = meter.estimate_per_unit if meter.estimate_from else BYTES_PER_UNIT
        return -(-int(self.words.get("passed", "0")) // per_unit)


def call_of(text: str | None) -> Call:
    pairs = [word.partition("=") for word in (text or "").split()]
    words = {name: value for name, _, value in pairs}
    return Call(
        words,
        [value for name, _, value in pairs if name == "tool"],
        [value for name, _, value in pairs if name == "method"],
    )


def price_in(folder: Path, config: str) -> Price:
    file = folder / "config.toml"
    file.write_text(config)
    (route,) = load_config(file).routes
    assert route.price is not None
    return route.price


@pytest.mark.parametrize("config", [config for config, _ in SNIPPETS])
def test_every_config_of_the_page_is_one(tmp_path: Path, config: str) -> None:
    price_in(tmp_path, config)


def test_every_snippet_says_what_calls_cost() -> None:
    tables = [line for line in PAGE.splitlines() if line.startswith("| the call | held |")]
    assert len(tables) == len(SNIPPETS)
    assert len(ROWS) == len(
        [line for line in PAGE.splitlines() if re.match(r"\| (`.*=|any)", line)]
    )


@pytest.mark.parametrize(("config", "text", "held", "cost", "flags"), ROWS)
def test_every_call_of_the_page_costs_what_it_says(
    tmp_path: Path, config: str, text: str | None, held: str, cost: str, flags: str | None
) -> None:
    price, call = price_in(tmp_path, config), call_of(text)
    words = call.words
    terms = terms_of(
        price,
        Rule.MINIMUM,
        call,
        discount=parse_percent(words.get("discount", "0")),
        bound=parse_credits(words["max"]) if "max" in words else None,
        calls=call.rpc_calls(price),
    )
    if held == "refused":
        assert not isinstance(terms, Terms)
        return
    assert isinstance(terms, Terms)
    assert terms.price is not None
    assert format_credits(terms.ceiling) == held
    counts = [words.get(meter.unit, "0") for meter in terms.price.meters]
    reading = Reading(
        tuple(None if count == "?" else int(count) for count in counts),
        tuple(call.estimate(meter) for meter in terms.price.meters),
        failed=(0,) if "failed" in words else (),
    )
    used = [int(words.get("used", "0"))] * len(counts)
    found = pricing.final(terms, reading, whole="cut" not in words, positions=used)
    assert format_credits(found.microcredits) == cost
    assert ",".join(found.flags) == (flags or "")

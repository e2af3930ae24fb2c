"""Discounts and prices on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from gateway.cli.price_text import price_text

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


async def test_an_account_is_given_a_discount_and_put_back_on_its_plans(cli: CommandLine) -> None:
    text = cli.config.read_text()
    cli.config.write_text(text.replace('slug = "free"', 'slug = "free"\ndiscount = "5"'))
    await cli.json("apply")
    made = await cli.json("accounts", "create", "alice", "--plan", "free")
    assert made["account"]["discount_percent"] is None
    assert "Discount 5%, of its plan." in (await cli("accounts", "show", "alice")).out
    given = await cli.json("accounts", "set-discount", "alice", "12.5")
    assert given["account"]["discount_percent"] == "12.5"
    assert "Discount 12.5%, of its own." in (await cli("accounts", "show", "alice")).out
    said = (await cli("accounts", "set-discount", "alice", "plan")).out
    assert "Account alice has a discount of 5%, its plan's." in said
    assert (await cli.json("plans", "list"))["plans"][0]["discount"] == "5"
    for wrong, reason in (
        ("101", "more than all"),
        ("five", "percentage"),
        ("0.001", "percentage"),
    ):
        answer = await cli("accounts", "set-discount", "alice", wrong)
        assert (answer.code, reason in answer.err) == (2, True)


TOKENS = {"unit": "token", "credits_per_unit": "0.000015"}
TIERS = [{"up_to": 9, "credits_per_unit": "10"}, {"up_to": None, "credits_per_unit": "5"}]
CALLS = {"unit": "call", "credits_per_unit": None, "tiers": TIERS}
TABLE = {"by": "request.json:/model", "cases": {"a": {}, "b": {}}, "listed_only": None}


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (None, "free"),
        ({"per_request": "0.1"}, "0.1/call"),
        ({"per_request": "0.1", "meters": [TOKENS]}, "0.1/call + 0.000015/token"),
        ({"per_request": "0", "meters": [CALLS, TOKENS]}, "10..5/call + 0.000015/token"),
        ({"meters": None, "outcome": {"credits": "2"}}, "2/outcome"),
        ({"meters": [TOKENS], "table": TABLE}, "0.000015/token, 2 by request.json:/model"),
        ({"table": {**TABLE, "listed_only": True}}, "2 by request.json:/model"),
        ({"jsonrpc": {"default_tool_credits": "1", "tools": {"a": "0.5"}}}, "0.5..1/tool"),
        ({"jsonrpc": {"default_tool_credits": None, "tools": None, "methods": {}}}, "0/tool"),
    ],
)
def test_a_price_is_shown_in_a_few_words(price: dict[str, Any] | None, text: str) -> None:
    assert price_text(price) == text

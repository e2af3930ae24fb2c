"""Discounts and prices on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.cli.price_text import price_text
from policies.catalog import MeterSpec, Price, RpcPrices, Source, Table, Tier

if TYPE_CHECKING:
    from tests.cli.conftest import CommandLine


async def test_an_account_is_given_a_discount_and_put_back_on_its_plans(cli: CommandLine) -> None:
    text = cli.config.read_text()
    cli.config.write_text(text.replace('slug = "free"', 'slug = "free"\ndiscount = "5"'))
    await cli.json("apply")
    made = await cli.json("accounts", "create", "alice", "--plan", "free")
    assert (made["account"]["discount"], made["account"]["discount_of"]) == ("5", "plan")
    given = await cli.json("accounts", "set-discount", "alice", "12.5")
    assert (given["account"]["discount"], given["account"]["discount_of"]) == ("12.5", "account")
    assert "Discount 12.5%, of its account." in (await cli("accounts", "show", "alice")).out
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


TOKENS = MeterSpec("token", (), 15_000_000, 1)
CALLS = MeterSpec("call", (), 0, 1, (Tier(9, 10**13), Tier(None, 5 * 10**12)))
TABLE = Table(Source("request.json", "/model"), {"a": Price(), "b": Price()})


@pytest.mark.parametrize(
    ("price", "text"),
    [
        (None, "free"),
        (Price(per_request_microcredits=100_000), "0.1/call"),
        (Price(0, 100_000, meters=(TOKENS,)), "0.1/call + 0.000015/token"),
        (Price(meters=(CALLS, TOKENS)), "10..5/call + 0.000015/token"),
        (Price(meters=(TOKENS,), table=TABLE), "0.000015/token, 2 by request.json:/model"),
        (
            Price(table=Table(TABLE.source, TABLE.cases, listed_only=True)),
            "2 by request.json:/model",
        ),
        (Price(rpc=RpcPrices({"a": 500_000}, 1_000_000)), "0.5..1/tool"),
        (Price(rpc=RpcPrices()), "0/tool"),
    ],
)
def test_a_price_is_shown_in_a_few_words(price: Price | None, text: str) -> None:
    assert price_text(price) == text

"""Every part of a price in a config: what it becomes, and what can't be meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import ConfigError, load_config
from policies.catalog import MeterSpec, OnMissing, Price, RpcPrices, Rule, Source, Table, Tier
from policies.meters.presets import PRESETS

if TYPE_CHECKING:
    from pathlib import Path

TOKENS = Source("response.json", "/usage/total_tokens")
METER = """
[[routes.price.meters]]
unit = "token"
from = "response.json:/usage/total_tokens"
reserve_units = 10
"""
FLAT = METER + 'credits_per_unit = "0.001"\n'
TIERS = """tiers = [
  { up_to = 1_000, credits_per_unit = "10" },
  { up_to = 10_000, credits_per_unit = "8" },
  { credits_per_unit = "5" },
]
"""
TABLE = """
[routes.price.table]
by = "request.json:/model"
[routes.price.table.cases."large"]
per_request = "2"
"""
OUTCOME = '[routes.price.outcome]\nfrom = "response.json:/n=1"\ncredits = "1"\n'


def write(folder: Path, price: str, pattern: str = "/v1/{agent}/chat") -> Path:
    file = folder / "config.toml"
    file.write_text(
        f'[[routes]]\nname = "chat"\nmatch = "POST {pattern}"\nupstream = "http://a:1"\n'
        f"[routes.price]\n{price}\n"
    )
    return file


def price_of(folder: Path, price: str) -> Price:
    (route,) = load_config(write(folder, price)).routes
    assert route.price is not None
    return route.price


def problems_of(folder: Path, price: str) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        load_config(write(folder, price))
    return {
        where.removeprefix("routes[chat].price"): message
        for where, message in caught.value.problems
    }


def test_a_meter_has_tiers_and_included_units(tmp_path: Path) -> None:
    price = price_of(tmp_path, METER + TIERS + "included_units = 5")
    assert price.meters == (
        MeterSpec(
            *("token", (TOKENS,), 0, 10),
            tiers=(
                Tier(1_000, 10 * 10**12),
                Tier(10_000, 8 * 10**12),
                Tier(None, 5 * 10**12),
            ),
            included_units=5,
        ),
    )


def test_a_meter_says_what_is_reserved_and_what_missing_units_cost(tmp_path: Path) -> None:
    (meter,) = price_of(
        tmp_path,
        FLAT
        + 'reserve_from = ["request.json:/max_completion_tokens", "request.json:/max_tokens"]\n'
        + 'on_missing = "estimate"\nestimate_from = "request.bytes"\nestimate_per_unit = 3',
    ).meters
    assert meter == MeterSpec(
        *("token", (TOKENS,), 10**9, 10),
        reserve_from=(
            Source("request.json", "/max_completion_tokens"),
            Source("request.json", "/max_tokens"),
        ),
        on_missing=OnMissing.ESTIMATE,
        estimate_from=Source("request.bytes", ""),
        estimate_per_unit=3,
    )


@pytest.mark.parametrize("vendor", ["openai", "anthropic", "google"])
def test_the_input_of_a_call_that_was_cut_is_estimated_from_its_request(
    tmp_path: Path, vendor: str
) -> None:
    named = FLAT.replace("response.json:/usage/total_tokens", f"{vendor}.input_tokens")
    (meter,) = price_of(tmp_path, named).meters
    assert (meter.estimate_from, meter.estimate_per_unit) == (Source("request.bytes", ""), 4)
    (meter,) = price_of(tmp_path, named + 'estimate_from = "response.bytes"').meters
    assert meter.estimate_from == Source("response.bytes", "")
    (meter,) = price_of(tmp_path, named + 'on_missing = "reserved"').meters
    assert meter.estimate_from is None


def test_a_preset_stands_for_all_places_where_an_api_reports_its_usage(tmp_path: Path) -> None:
    text = FLAT.replace(
        '"response.json:/usage/total_tokens"', '["response.header:X-Units", "openai.total_tokens"]'
    )
    (meter,) = price_of(tmp_path, text).meters
    assert meter.sources == (
        Source("response.header", "X-Units"),
        *PRESETS["openai.total_tokens"],
    )
    twice = text.replace("response.header:X-Units", "response.json:/usage/total_tokens")
    assert "twice" in problems_of(tmp_path, twice)[".meters[token].from"]


def test_left_out_is_the_default_of_a_meter(tmp_path: Path) -> None:
    (meter,) = price_of(tmp_path, FLAT).meters
    assert meter == MeterSpec("token", (TOKENS,), 10**9, 10)


def test_an_outcome_is_a_unit_that_costs_nothing_while_nobody_says_so(tmp_path: Path) -> None:
    delivered = Source("response.json", "/status=delivered|sent")
    outcome = (
        '[routes.price.outcome]\nfrom = "response.json:/status=delivered|sent"\ncredits = "5"\n'
    )
    assert price_of(tmp_path, outcome).meters == (
        MeterSpec("outcome", (delivered,), 5 * 10**12, 1, on_missing=OnMissing.MINIMUM),
    )
    (tokens, strict) = price_of(tmp_path, FLAT + outcome + 'on_missing = "reserved"').meters
    assert tokens.unit == "token"
    assert strict.on_missing is OnMissing.RESERVED


def test_a_case_of_a_table_is_the_price_around_it_with_what_it_says(tmp_path: Path) -> None:
    price = price_of(
        tmp_path,
        'per_request = "1"\nminimum = "0.5"\nmaximum = "9"\n'
        + METER
        + TIERS
        + FLAT.replace("token", "image")
        + TABLE
        + 'minimum = "0.25"\nmaximum = "20"\n'
        + 'credits_per_unit = { token = "0.002" }\nreserve_units = { image = 3, token = 5 }\n'
        + '[routes.price.table.cases.""]\n',
    )
    token, image = price.meters
    assert isinstance(price.table, Table)
    assert price.table.source == Source("request.json", "/model")
    assert price.table.listed_only is False
    large, same = (price.table.cases[value] for value in ("large", ""))
    assert large == Price(
        *(0, 2_000_000, 250_000, 20_000_000),
        meters=(
            MeterSpec("token", token.sources, 2 * 10**9, 5),
            MeterSpec("image", image.sources, 10**9, 3),
        ),
    )
    assert same == Price(0, 1_000_000, 500_000, 9_000_000, price.meters)


@pytest.mark.parametrize(
    "by",
    ["path:agent", "query:model", "jsonrpc.method", "jsonrpc.tool", "request.json:/a/0/b"],
)
def test_a_table_goes_by_a_value_of_the_request(tmp_path: Path, by: str) -> None:
    text = 'per_request = "1"' + TABLE.replace("request.json:/model", by)
    table = price_of(tmp_path, text).table
    assert table is not None
    assert str(table.source) == by


def test_with_listed_only_the_price_around_the_table_need_not_be_one(tmp_path: Path) -> None:
    listed = TABLE.replace("[routes.price.table.c", "listed_only = true\n[routes.price.table.c")
    table = price_of(tmp_path, listed).table
    assert table is not None
    assert table.listed_only
    assert "reserve nothing" in problems_of(tmp_path, TABLE)[""]


def test_a_case_may_cost_nothing_if_all_of_it_says_so(tmp_path: Path) -> None:
    text = 'per_request = "1"\n' + FLAT + TABLE.replace('"2"', '"0"')
    free = price_of(tmp_path, text + 'credits_per_unit = { token = "0" }').table
    assert free is not None
    assert free.cases["large"].per_request_microcredits == 0
    forgotten = problems_of(tmp_path, text + "reserve_units = { token = 0 }")
    assert "reserve nothing" in forgotten[".table.cases.large"]


def test_json_rpc_calls_are_priced_by_tool_and_by_method(tmp_path: Path) -> None:
    price = price_of(
        tmp_path,
        '[routes.price.jsonrpc]\ndefault_tool_credits = "1"\ntool_error = "actual"\n'
        'tools = { search = "0.5", free = "0" }\nmethods = { "resources/read" = "0.1" }',
    )
    assert price == Price(
        rpc=RpcPrices(
            {"search": 500_000, "free": 0}, 1_000_000, {"resources/read": 100_000}, Rule.ACTUAL
        )
    )
    assert price_of(tmp_path, "[routes.price.jsonrpc]\n").rpc == RpcPrices()


@pytest.mark.parametrize(
    ("price", "where", "message"),
    [
        (METER, ".meters[token].credits_per_unit", "is missing"),
        (FLAT + TIERS, ".meters[token].credits_per_unit", "keep one of the two"),
        (METER + "tiers = []", ".meters[token].tiers", "has none"),
        (METER + "tiers = 5", ".meters[token].tiers", "must be a list"),
        (METER + "tiers = [5]", ".meters[token].tiers", "list of tables"),
        (
            METER + "tiers = [{ credits_per_unit = 5 }]",
            ".meters[token].tiers[#1].credits_per_unit",
            'write "5"',
        ),
        (METER + "tiers = [{}]", ".meters[token].tiers[#1].credits_per_unit", "is missing"),
        (
            METER + 'tiers = [{ up_to = 0, credits_per_unit = "1" }]',
            ".meters[token].tiers[#1].up_to",
            "must be from 1",
        ),
        (
            METER + 'tiers = [{ upto = 5, credits_per_unit = "1" }]',
            ".meters[token].tiers[#1].upto",
            'did you mean "up_to"?',
        ),
        (METER + TIERS.replace("10_000", "1_000"), ".meters[token].tiers[#2].up_to", "above"),
        (METER + TIERS.replace("up_to = 1_000,", ""), ".meters[token].tiers[#1].up_to", "missing"),
        (
            METER + TIERS.replace("{ credits", "{ up_to = 20_000, credits"),
            ".meters[token].tiers[#3].up_to",
            "must be left out",
        ),
        (
            METER + "tiers = [" + '{ up_to = 5, credits_per_unit = "1" },' * 101 + "]",
            ".meters[token].tiers",
            "more than 100",
        ),
        (FLAT + "included_units = -1", ".meters[token].included_units", "from 0"),
        (FLAT + "reserve_from = []", ".meters[token].reserve_from", "must be a source"),
        (
            FLAT + 'reserve_from = "response.json:/n"',
            ".meters[token].reserve_from",
            "not known before the call",
        ),
        (FLAT + 'on_missing = "free"', ".meters[token].on_missing", "there is reserved"),
        (FLAT + "estimate_from = 5", ".meters[token].estimate_from", "must be a text"),
        (FLAT + 'estimate_from = "x"', ".meters[token].estimate_from", "not a kind"),
        (FLAT + "estimate_per_unit = 0", ".meters[token].estimate_per_unit", "from 1"),
        (
            FLAT + 'on_missing = "reserved"\nestimate_per_unit = 5',
            ".meters[token].estimate_per_unit",
            'of no use with on_missing = "reserved"',
        ),
        ("[routes.price.outcome]\n", ".outcome.credits", "is missing"),
        ("[routes.price.outcome]\n", ".outcome.from", "must be a source"),
        (
            '[routes.price.outcome]\nfrom = "response.json:/n"\ncredits = "1"',
            ".outcome.from",
            "means delivered",
        ),
        (
            OUTCOME + 'on_missing = "estimate"',
            ".outcome.on_missing",
            "matter of degree",
        ),
        (
            FLAT.replace('unit = "token"', 'unit = "outcome"') + OUTCOME,
            ".outcome",
            "already metered",
        ),
        ("[routes.price.table]\n", ".table.by", "is missing"),
        ("[routes.price.table]\n", ".table.cases", "has none"),
        (TABLE.replace("json:/model", "json:model"), ".table.by", "JSON pointer"),
        (TABLE.replace("/model", "/model=a"), ".table.by", "the table itself compares"),
        (TABLE.replace("request.json:/model", "path:x"), ".table.by", 'has no "{x}"'),
        (TABLE.replace("request.json:/model", "query:"), ".table.by", "needs a name"),
        (TABLE.replace("request.json:/model", "jsonrpc.id"), ".table.by", "there is request.json"),
        (TABLE + "per_reqest = 5", ".table.cases.large.per_reqest", 'mean "per_request"'),
        (TABLE + 'maximum = "1"\nminimum = "2"', ".table.cases.large", "below minimum"),
        (
            FLAT + TABLE + 'credits_per_unit = { tokens = "1" }',
            ".table.cases.large.credits_per_unit.tokens",
            "there is token",
        ),
        (
            TABLE + "reserve_units = { token = 1 }",
            ".table.cases.large.reserve_units.token",
            "has no meters",
        ),
        (
            FLAT + TABLE + "credits_per_unit = { token = 5 }",
            ".table.cases.large.credits_per_unit.token",
            'write "5"',
        ),
        (
            FLAT + TABLE + f"reserve_units = {{ token = {2**53} }}",
            ".table.cases.large.reserve_units.token",
            "must be from 0",
        ),
        ("[routes.price.jsonrpc]\ntool_error = 'minimum'", ".jsonrpc.tool_error", "there is"),
        ("[routes.price.jsonrpc]\ntools = { a = 5 }", ".jsonrpc.tools.a", 'write "5"'),
        (
            "[routes.price.jsonrpc]\nmethods = { 'tools/call' = '5' }",
            ".jsonrpc.methods",
            "priced by its tools",
        ),
        ("[routes.price.jsonrpc]\ntool = 5", ".jsonrpc.tool", 'did you mean "tools"?'),
    ],
)
def test_a_price_that_cannot_be_meant_is_refused_by_its_key(
    tmp_path: Path, price: str, where: str, message: str
) -> None:
    assert message in problems_of(tmp_path, price)[where]


def test_every_mistake_of_a_price_is_told_at_once(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path,
        "per_request = 5\n" + METER + "tiers = [{}]\nincluded_units = -1" + TABLE + "tax = 5",
    )
    assert set(problems) == {
        ".per_request",
        ".meters[token].tiers[#1].credits_per_unit",
        ".meters[token].included_units",
        ".table.cases.large.tax",
    }


def test_caps_and_trust_have_to_let_the_cheapest_call_pass(tmp_path: Path) -> None:
    file = write(tmp_path, 'per_request = "1"\n' + TABLE.replace('"2"', '"0.5"'))
    text = file.read_text()
    file.write_text(text + '[routes.caps]\nday = "0.5"')
    load_config(file)
    file.write_text(text + '[routes.caps]\nday = "0.4"')
    with pytest.raises(ConfigError, match=r'one holds "0\.5"'):
        load_config(file)

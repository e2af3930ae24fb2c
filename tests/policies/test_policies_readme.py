"""The README of policies tells no tale: its files, tests, bounds and example are real."""

from __future__ import annotations

import re
from pathlib import Path

from policies import pricing
from policies.catalog import MeterSpec, Price, Rule
from policies.meters import parse_source
from policies.meters.decoding import DECODED_BODY_MAX_BYTES, DECODED_CHUNK_MAX_BYTES
from policies.meters.reading import Reading
from policies.meters.response_json import JSON_BODY_MAX_BYTES
from policies.meters.response_ndjson import NDJSON_LINE_MAX_BYTES
from policies.meters.response_sse import SSE_EVENT_MAX_BYTES
from policies.terms import Terms
from policies.units import parse_credits, parse_unit_price

ROOT = Path(__file__).parents[2]
README = (ROOT / "policies/README.md").read_text(encoding="utf-8")


def test_every_file_of_the_package_is_in_its_table_and_the_other_way_round() -> None:
    table = README.partition("## Words")[0]
    named = set(re.findall(r"`([a-z_]+(?:\.py|/))`", table))
    there = {path.name for path in (ROOT / "policies").glob("[a-z]*.py")}
    there |= {f"{path.name}/" for path in (ROOT / "policies").glob("[a-z]*/")}
    assert named == there


def test_every_path_it_names_exists() -> None:
    for path in re.findall(r"`(tests/[\w./]+)`", README):
        assert (ROOT / path).exists(), path


def test_its_bounds_are_those_of_the_code() -> None:
    mebibyte = 1024 * 1024
    bounds = (
        DECODED_BODY_MAX_BYTES,
        DECODED_CHUNK_MAX_BYTES,
        JSON_BODY_MAX_BYTES,
        SSE_EVENT_MAX_BYTES,
        NDJSON_LINE_MAX_BYTES,
    )
    assert [int(number) for number in re.findall(r"(\d+) MiB", README)] == [
        bound // mebibyte for bound in bounds
    ]


def test_its_example_costs_what_it_says() -> None:
    meter = MeterSpec(
        "token",
        (parse_source("response.json:/usage/total_tokens"),),
        parse_unit_price("0.001"),
        4_000,
    )
    price = Price(per_request_microcredits=parse_credits("0.1"), meters=(meter,))
    terms = pricing.terms_of(price, Rule.MINIMUM, None)
    assert isinstance(terms, Terms)
    held = terms.ceiling
    cost = pricing.final(terms, Reading((30,)), whole=True).microcredits
    assert held == parse_credits("4.1")
    assert cost == parse_credits("0.13")
    assert held - cost == parse_credits("3.97")
    more = pricing.final(terms, Reading((5_000,)), whole=True)
    assert more.microcredits == parse_credits("5.1")

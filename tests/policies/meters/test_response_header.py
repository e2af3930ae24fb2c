"""`response.header`: one plain decimal number, or nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import MeterSpec, Price, Source, Table
from policies.meters import UNITS_MAX, MeterPlan, Tools, metered_headers, parse_source

TOOLS = Tools(json.loads)


def meter(*sources: str) -> MeterSpec:
    return MeterSpec("unit", tuple(map(parse_source, sources)), 1, 1)


def read(*headers: tuple[bytes, bytes], content_type: str = "image/png") -> int | None:
    plan = MeterPlan(Price(meters=(meter("response.header:X-Units"),)), content_type)
    (units,) = plan.read_whole(TOOLS, b"anything", headers, None, 0).units
    streamed = plan.open(TOOLS, headers, None)
    assert streamed.so_far().units == streamed.reading().units == (units,)
    return units


@pytest.mark.parametrize(
    ("value", "units"),
    [
        (b"0", 0),
        (b"30", 30),
        (b" 30\t", 30),
        (b"007", 7),
        (str(UNITS_MAX).encode(), UNITS_MAX),
        (str(UNITS_MAX + 1).encode(), None),
        (b"9" * 5000, None),
        (b"", None),
        (b"-1", None),
        (b"+1", None),
        (b"1.0", None),
        (b"1e3", None),
        (b"0x10", None),
        (b"1_000", None),
        (b"1,000", None),
        (b"30, 30", None),
        (b"NaN", None),
        (b"Infinity", None),
        (b"\xb2", None),
        ("٣".encode(), None),
        (b"3 0", None),
        (b"30;q=1", None),
    ],
)
def test_a_plain_decimal_number_is_read(value: bytes, units: int | None) -> None:
    assert read((b"Content-Type", b"image/png"), (b"X-Units", value)) == units


def test_the_name_is_read_in_any_case() -> None:
    assert read((b"x-uNITs", b"7")) == 7
    assert read((b"X-Units-Of", b"7"), (b"Units", b"7")) is None
    assert read() is None


def test_a_header_that_is_there_twice_is_no_value_even_if_both_agree() -> None:
    assert read((b"X-Units", b"7"), (b"x-units", b"7")) is None


def test_it_is_read_whatever_the_answer_is() -> None:
    for content_type in ("", "application/json", "text/event-stream"):
        assert read((b"X-Units", b"7"), content_type=content_type) == 7


def test_the_names_that_a_price_reads_are_known_with_those_of_its_table() -> None:
    price = Price(
        meters=(
            meter("response.json:/n", "response.header:X-Units"),
            MeterSpec("t", (), 1, 1, estimate_from=Source("response.header", "X-Guess")),
        ),
        table=Table(
            Source("request.json", "/model"),
            {"large": Price(meters=(meter("response.header:X-Large-Units"),))},
        ),
    )
    assert metered_headers(price) == {b"x-units", b"x-guess", b"x-large-units"}
    assert metered_headers(Price()) == frozenset()


@given(st.binary(max_size=30))
def test_no_bytes_in_a_header_make_it_fail(value: bytes) -> None:
    units = read((b"X-Units", value))
    assert units is None or value.strip(b" \t").isdigit()

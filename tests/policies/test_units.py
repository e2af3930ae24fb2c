"""Amounts: one way to write them, exact both ways, rounded in one place."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.units import (
    AMOUNT_MICROCREDITS_MAX,
    PICOCREDITS_PER_MICROCREDIT,
    format_credits,
    format_percent,
    format_unit_price,
    parse_credits,
    parse_percent,
    parse_unit_price,
    round_up_to_microcredits,
)

MICROCREDITS = st.integers(0, AMOUNT_MICROCREDITS_MAX)


@given(MICROCREDITS)
def test_an_amount_survives_being_written_and_read(microcredits: int) -> None:
    assert parse_credits(format_credits(microcredits)) == microcredits


@given(MICROCREDITS)
def test_an_amount_is_written_as_short_as_can_be(microcredits: int) -> None:
    text = format_credits(microcredits)
    whole, _, fraction = text.partition(".")
    assert not fraction.endswith("0")
    assert str(int(whole)) == whole
    assert format_credits(-microcredits) == (f"-{text}" if microcredits else "0")


@given(st.text(max_size=12) | st.from_regex(r"\A[0-9]{0,30}\.?[0-9]{0,30}\Z"))
def test_any_text_is_an_exact_amount_or_a_value_error(text: str) -> None:
    for parse in (parse_credits, parse_unit_price):
        try:
            amount = parse(text)
        except ValueError:
            continue
        assert type(amount) is int
        assert amount >= 0
        assert text.isascii()


@pytest.mark.parametrize(
    ("text", "microcredits"),
    [
        ("0", 0),
        ("0.1", 100_000),
        ("1.250000", 1_250_000),
        ("1.2500000000", 1_250_000),
        ("007", 7_000_000),
        ("9007199254.740991", AMOUNT_MICROCREDITS_MAX),
    ],
)
def test_credits_are_read_exactly(text: str, microcredits: int) -> None:
    assert parse_credits(text) == microcredits


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "-0",
        "1e3",
        "1_000",
        " 1",
        "1 ",
        ".5",
        "5.",
        "nan",
        "inf",
        "0x1",
        "\u0661",
        "1,5",
    ],
)
def test_there_is_one_way_to_write_an_amount(text: str) -> None:
    with pytest.raises(ValueError, match="not a plain decimal"):
        parse_credits(text)


def test_what_is_finer_than_the_unit_is_refused_not_rounded() -> None:
    with pytest.raises(ValueError, match="more than 6 decimal places"):
        parse_credits("0.0000001")
    with pytest.raises(ValueError, match="more than 12 decimal places"):
        parse_unit_price("0.000000000000" + "1")
    assert parse_unit_price("0.000015") == 15_000_000


def test_amounts_stay_below_what_lua_counts_exactly() -> None:
    with pytest.raises(ValueError, match="too large"):
        parse_credits("9007199254.740992")
    with pytest.raises(ValueError, match="too large"):
        parse_unit_price("9007199254.740992")
    with pytest.raises(ValueError, match="not a plain decimal"):
        parse_credits("9" * 5_000)


@given(st.integers(0, AMOUNT_MICROCREDITS_MAX * PICOCREDITS_PER_MICROCREDIT))
def test_rounding_goes_up_by_less_than_a_microcredit(picocredits: int) -> None:
    excess = round_up_to_microcredits(picocredits) * PICOCREDITS_PER_MICROCREDIT - picocredits
    assert 0 <= excess < PICOCREDITS_PER_MICROCREDIT


@given(
    st.integers(0, AMOUNT_MICROCREDITS_MAX * PICOCREDITS_PER_MICROCREDIT), st.integers(0, 10_000)
)
def test_a_discount_is_taken_off_before_the_one_rounding(picocredits: int, discount: int) -> None:
    exact = Fraction(picocredits, PICOCREDITS_PER_MICROCREDIT) * (1 - Fraction(discount, 10_000))
    assert 0 <= round_up_to_microcredits(picocredits, discount) - exact < 1


@given(st.integers(0, 10_000))
def test_a_percentage_survives_being_written_and_read(basis_points: int) -> None:
    assert parse_percent(format_percent(basis_points)) == basis_points


@given(st.integers(0, AMOUNT_MICROCREDITS_MAX * PICOCREDITS_PER_MICROCREDIT))
def test_a_unit_price_survives_being_written_and_read(picocredits: int) -> None:
    assert parse_unit_price(format_unit_price(picocredits)) == picocredits


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, "not a percentage") for text in ("", "-1", "1%", "1e1", "0.001", "٣")),
        *((text, "more than all") for text in ("100.01", "101")),
    ],
)
def test_what_is_no_percentage_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_percent(text)


def test_percentages_are_written_as_short_as_can_be() -> None:
    assert [format_percent(points) for points in (0, 1, 10, 1_250, 1_500, 10_000)] == [
        *("0", "0.01", "0.1", "12.5", "15", "100"),
    ]

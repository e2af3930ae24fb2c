"""Money: one way to write it, exact both ways, rounded in one place."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.money import (
    AMOUNT_MINOR_MAX,
    CURRENCIES,
    NANOS_PER_MAJOR,
    NO_PLACES,
    THREE_PLACES,
    Coupon,
    Money,
    OveragePrice,
    discount_minor,
    format_minor,
    format_money,
    format_overage_price,
    minor_places,
    minor_step,
    overage_minor,
    parse_money,
    parse_overage_price,
)

ANY_CURRENCY = st.sampled_from(sorted(CURRENCIES))
NANOS = st.integers(1, 10**12)


@given(ANY_CURRENCY, st.integers(0, AMOUNT_MINOR_MAX // 100))
def test_an_amount_survives_being_written_and_read(currency: str, steps: int) -> None:
    money = Money(currency, min(steps * minor_step(currency), AMOUNT_MINOR_MAX // 100 * 100))
    assert parse_money(format_money(money)) == money


@pytest.mark.parametrize(
    ("text", "amount_minor"),
    [("19 usd", 1900), ("19.5 usd", 1950), ("1900 jpy", 1900), ("5.120 kwd", 5120), ("5 isk", 500)],
)
def test_the_places_are_those_of_the_currency(text: str, amount_minor: int) -> None:
    assert parse_money(text) == Money(text[-3:], amount_minor)


@pytest.mark.parametrize(
    "text",
    [
        "19", "usd", "19 USD", "-1 usd", "1e3 usd", "19.999 usd", "1.5 jpy", "5.124 kwd", "5.5 isk",
        "1000000 usd", "19  usd", "19 usdc", "١٩ usd", "", "19.00 zzz", "19.00 xau",
    ],
)  # fmt: skip
def test_what_stripe_could_not_take_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_money(text)


def test_currencies_of_other_places_are_among_those_that_stripe_charges_in() -> None:
    assert {one for one in CURRENCIES if minor_places(one) != 2} == NO_PLACES | THREE_PLACES


def test_what_is_given_back_is_below_nothing() -> None:
    assert format_minor(-5, "usd") == "-0.05"
    assert format_minor(-5, "jpy") == "-5"
    assert str(Money("eur", 7)) == "0.07 eur"


@given(NANOS)
def test_a_price_of_overage_survives_being_written_and_read(nanos: int) -> None:
    price = OveragePrice(nanos)
    assert parse_overage_price(format_overage_price(price)) == price


@pytest.mark.parametrize("text", ["0", "0.0000000001", "-1", "1e-3", ".5", "0.002 usd", ""])
def test_no_price_of_overage_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_overage_price(text)


@given(NANOS, st.integers(0, 2**53 - 1), ANY_CURRENCY)
def test_overage_is_rounded_up_once_to_what_can_be_charged(
    nanos: int, microcredits: int, currency: str
) -> None:
    exact = Fraction(nanos * microcredits * 10 ** minor_places(currency), NANOS_PER_MAJOR * 10**6)
    amount = overage_minor(OveragePrice(nanos), microcredits, currency)
    assert amount % minor_step(currency) == 0
    assert exact <= amount < exact + minor_step(currency)


def test_a_thousand_credits_of_overage_at_a_fifth_of_a_cent_cost_two_dollars() -> None:
    assert overage_minor(parse_overage_price("0.002"), 1_000_000_000, "usd") == 200
    assert overage_minor(parse_overage_price("0.002"), 1_000_000_001, "usd") == 201


@pytest.mark.parametrize(
    ("coupons", "off"),
    [
        ([], 0),
        ([Coupon(basis_points=2_500)], 250),
        ([Coupon(basis_points=3_333)], 333),
        ([Coupon(basis_points=5)], 1),  # half a minor unit
        ([Coupon(amount_minor=300), Coupon(basis_points=5_000)], 650),
        ([Coupon(basis_points=5_000), Coupon(amount_minor=300)], 800),
        ([Coupon(amount_minor=1_500)], 1_000),
        ([Coupon(basis_points=10_000), Coupon(basis_points=10_000)], 1_000),
    ],
)
def test_each_coupon_takes_of_what_those_before_it_left(coupons: list[Coupon], off: int) -> None:
    assert discount_minor(1_000, coupons) == off

"""Money as integers: minor units of a currency, as Stripe counts them; parsing and formatting.

People write the major unit ("19.00 usd", "1900 jpy"). How many minor units make one depends on the
currency, which is why an amount without one is not money.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.units import BASIS_POINTS, MICROCREDITS_PER_CREDIT

if TYPE_CHECKING:
    from collections.abc import Iterable

# Stripe's largest amount of a price has eight digits, of any currency.
AMOUNT_MINOR_MAX = 99_999_999
NANOS_PER_MAJOR = 1_000_000_000
_PLACES_NANOS = 9
# https://docs.stripe.com/currencies: all others have two places. ISK and UGX have none in the
# world, but two at Stripe, which takes whole ones only; of three places the last is always 0.
NO_PLACES = frozenset(
    [
        *("bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga"),
        *("pyg", "rwf", "vnd", "vuv", "xaf", "xof", "xpf"),
    ]
)
THREE_PLACES = frozenset(("bhd", "jod", "kwd", "omr", "tnd"))
_WHOLE_ONLY = frozenset(("isk", "ugx"))
# What Stripe charges in: the presentment currencies of https://docs.stripe.com/currencies, and the
# few that its API names besides when it refuses another.
_CHARGED = (
    "aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl "
    "bsd btn bwp byn bzd cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb "
    "eur fjd fkp gbp gel ghs gip gmd gnf gtq gyd hkd hnl htg huf idr ils inr isk jmd "
    "jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad mdl mga mkd mmk "
    "mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr "
    "pln pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std svc szl thb "
    "tjs tnd top try ttd twd tzs uah ugx usd uyu uzs vnd vuv wst xaf xcd xcg xof xpf "
    "yer zar zmw"
)
CURRENCIES = frozenset(_CHARGED.split())
_MONEY = re.compile(r"([0-9]{1,12})(?:\.([0-9]{1,9}))? ([a-z]{3})")
_DECIMAL = re.compile(r"([0-9]{1,9})(?:\.([0-9]{1,9}))?")


@dataclass(frozen=True, slots=True)
class Money:
    """An amount in minor units of a currency, "usd" and the like."""

    currency: str
    amount_minor: int

    def __str__(self) -> str:
        return format_money(self)


@dataclass(frozen=True, slots=True)
class Coupon:
    """What a discount takes off an amount: a part of it, or so many minor units."""

    basis_points: int = 0
    amount_minor: int = 0


@dataclass(frozen=True, slots=True)
class OveragePrice:
    """What a credit beyond the grants costs: billionths of the subscription's major unit."""

    nanos_per_credit: int


def minor_places(currency: str) -> int:
    """Decimal places between the major and the minor unit."""
    if currency in NO_PLACES:
        return 0
    return 3 if currency in THREE_PLACES else 2


def minor_step(currency: str) -> int:
    """What Stripe can charge is a multiple of this many minor units."""
    if currency in _WHOLE_ONLY:
        return 100
    return 10 if currency in THREE_PLACES else 1


def parse_money(text: str) -> Money:
    """An amount in the major unit with its currency, such as "19.00 usd".

    Raises: ValueError when it is not written so, is finer than Stripe takes, too large, or in a
    currency that Stripe does not charge in.
    """
    plain = _MONEY.fullmatch(text)
    if plain is None:
        raise ValueError(f'"{text}" is not an amount with its currency, such as "19.00 usd"')
    currency, places = plain[3], minor_places(plain[3])
    if currency not in CURRENCIES:
        raise ValueError(
            f'"{text}": Stripe does not charge in "{currency}"; https://docs.stripe.com/currencies '
            "lists what it charges in"
        )
    fraction = (plain[2] or "").rstrip("0")
    if len(fraction) > places:
        raise ValueError(f'"{text}" has more than the {places} decimal places of {currency}')
    amount_minor = int(plain[1] + fraction.ljust(places, "0"))
    if amount_minor % minor_step(currency):
        raise ValueError(f'"{text}" is finer than what can be paid in {currency}')
    if amount_minor > AMOUNT_MINOR_MAX:
        raise ValueError(f'"{text}" is more than Stripe takes at once')
    return Money(currency, amount_minor)


def format_money(money: Money) -> str:
    """An amount with all places of its currency: "19.00 usd", "1900 jpy"."""
    return f"{format_minor(money.amount_minor, money.currency)} {money.currency}"


def format_minor(amount_minor: int, currency: str) -> str:
    """Minor units as the major unit's decimal string, without the currency: "19.00"."""
    places = minor_places(currency)
    sign, digits = ("-" if amount_minor < 0 else ""), str(abs(amount_minor)).rjust(places + 1, "0")
    if not places:
        return sign + digits
    return f"{sign}{digits[:-places]}.{digits[-places:]}"


def discount_minor(amount_minor: int, coupons: Iterable[Coupon]) -> int:
    """What coupons take off together: each of what those before it left, never more than that.

    A part is rounded to the nearest minor unit, halves up, as on an invoice.
    """
    left = amount_minor
    for coupon in coupons:
        part = (left * coupon.basis_points + BASIS_POINTS // 2) // BASIS_POINTS
        left -= min(left, part + coupon.amount_minor)
    return amount_minor - left


def parse_overage_price(text: str) -> OveragePrice:
    """What a credit costs in the major unit of any currency, such as "0.002".

    Raises: ValueError when it is no plain decimal, has more than nine places, or is nothing.
    """
    plain = _DECIMAL.fullmatch(text)
    if plain is None:
        raise ValueError(
            f'"{text}" is not a price of a credit such as "0.002", with at most nine places'
        )
    nanos = int(plain[1] + (plain[2] or "").ljust(_PLACES_NANOS, "0"))
    if nanos == 0:
        raise ValueError("bills nothing; leave it out for that")
    return OveragePrice(nanos)


def format_overage_price(price: OveragePrice) -> str:
    """The shortest exact decimal string: 2000000 is "0.002"."""
    whole, rest = divmod(price.nanos_per_credit, NANOS_PER_MAJOR)
    return f"{whole}.{rest:0{_PLACES_NANOS}d}".rstrip("0") if rest else str(whole)


def overage_minor(price: OveragePrice, microcredits: int, currency: str) -> int:
    """What so many microcredits of overage cost, rounded up once, to what can be charged."""
    step, minor_per_major = minor_step(currency), int(10 ** minor_places(currency))
    finer = price.nanos_per_credit * microcredits * minor_per_major
    return -(-finer // (NANOS_PER_MAJOR * MICROCREDITS_PER_CREDIT * step)) * step

"""[routes.price.table]: other prices for some values of the request, such as models or tools."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.config.problems import did_you_mean
from policies.catalog import Source, Table
from policies.meters import UNITS_MAX, parse_source
from policies.meters.registry import mistake_in_table_source
from policies.pricing import mistake_in_case
from policies.units import parse_unit_price

if TYPE_CHECKING:
    from gateway.config.section import Section
    from policies.catalog import MeterSpec, Price

CASES_MAX = 1_000
_NO_SOURCE = Source("", "")


def read_table(section: Section, price: Price, pattern: str) -> Table:
    """The table of a price: each case is that price with what it says itself.

    `pattern` is the path of the route.
    """

    def source_of(text: str) -> Source:
        return _source(text, pattern)

    table = Table(
        source=section.parsed("by", source_of, _NO_SOURCE),
        cases=_cases(section, price),
        listed_only=section.flag("listed_only"),
    )
    section.close()
    return table


def _cases(section: Section, price: Price) -> dict[str, Price]:
    cases = section.table("cases")
    values = cases.take_keys()
    if not values:
        section.complain("cases", 'has none; open the first with [routes.price.table.cases."…"]')
    elif len(values) > CASES_MAX:
        section.complain("cases", f"are more than {CASES_MAX}")
    return {value: _case(cases.table(value), price) for value in values}


def _case(section: Section, price: Price) -> Price:
    """The price around the table, with what the case says."""
    before = section.problems_so_far()
    maximum = price.maximum_microcredits
    case = replace(
        price,
        per_request_microcredits=_amount(section, "per_request", price.per_request_microcredits),
        minimum_microcredits=_amount(section, "minimum", price.minimum_microcredits),
        maximum_microcredits=section.amount("maximum") if "maximum" in section else maximum,
        meters=_meters(section, price.meters),
    )
    section.close()
    mistake = mistake_in_case(case) if section.problems_so_far() == before else None
    if mistake is not None:
        section.complain("", mistake)
    return case


def _amount(section: Section, key: str, default: int) -> int:
    return section.amount(key) if key in section else default


def _meters(section: Section, meters: tuple[MeterSpec, ...]) -> tuple[MeterSpec, ...]:
    units = [meter.unit for meter in meters]
    table, named = _by_unit(section, "credits_per_unit", units)
    prices = {unit: table.amount(unit, parse_unit_price) for unit in named}
    table, named = _by_unit(section, "reserve_units", units)
    reserves = {unit: table.integer(unit, least=0, most=UNITS_MAX) for unit in named}
    changed = []
    for meter in meters:
        reserve = reserves.get(meter.unit, meter.reserve_units)
        case = replace(meter, reserve_units=reserve)
        if meter.unit in prices:
            # One price for all units stands in for tiers, too.
            case = replace(case, picocredits_per_unit=prices[meter.unit], tiers=())
        changed.append(case)
    return tuple(changed)


def _by_unit(section: Section, key: str, units: list[str]) -> tuple[Section, list[str]]:
    """A table of numbers per unit of the price, as in `{ token = "0.002" }`, and its units."""
    table = section.table(key)
    there = f"; {did_you_mean('', units)}" if units else ", which has no meters"
    named = table.take_keys()
    for unit in named:
        if unit not in units:
            table.complain(unit, f"is not metered by this price{there}")
    return table, [unit for unit in named if unit in units]


def _source(text: str, pattern: str) -> Source:
    """Where the value is read that chooses the case."""
    source = parse_source(text)
    mistake = mistake_in_table_source(source)
    if mistake is not None:
        raise ValueError(mistake)
    if source.kind == "path" and f"/{{{source.argument}}}" not in pattern:
        raise ValueError(f'"{text}": the path "{pattern}" has no "{{{source.argument}}}"')
    return source

"""[routes.price]: what a call costs, tried on sample usage before anybody pays it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.catalog import MeterSpec, Price, Source
from policies.meters import UNITS_MAX, mistake_in_source, parse_source
from policies.pricing import mistake_in
from policies.units import parse_unit_price

if TYPE_CHECKING:
    from gateway.config.section import Section

_UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}")


def read_price(section: Section) -> Price:
    """The price of one route."""
    before = section.problems_so_far()
    maximum = section.amount("maximum") if "maximum" in section else None
    price = Price(
        per_request_microcredits=section.amount("per_request"),
        minimum_microcredits=section.amount("minimum"),
        maximum_microcredits=maximum,
        meters=_meters(section),
    )
    section.close()
    mistake = mistake_in(price)
    # A price that was misread would be tried for nothing.
    if mistake is not None and section.problems_so_far() == before:
        section.complain("", mistake)
    return price


def _meters(price: Section) -> tuple[MeterSpec, ...]:
    meters: dict[str, MeterSpec] = {}
    for section in price.tables("meters", named_by="unit"):
        meter = _meter(section)
        if meter.unit and meter.unit in meters:
            section.complain("unit", f'"{meter.unit}" is already metered by this price')
        meters[meter.unit] = meter
    return tuple(meters.values())


def _meter(section: Section) -> MeterSpec:
    meter = MeterSpec(
        unit=section.parsed("unit", _unit, ""),
        sources=_sources(section),
        picocredits_per_unit=section.amount("credits_per_unit", parse_unit_price, default=None),
        reserve_units=section.integer("reserve_units", least=0, most=UNITS_MAX),
    )
    if "reserve_from" in section:
        section.complain("reserve_from", "is not part of this version; use reserve_units")
    section.close()
    return meter


def _sources(section: Section) -> tuple[Source, ...]:
    written = section.value("from")
    texts = [written] if isinstance(written, str) else written
    if not isinstance(texts, list) or not texts:
        section.complain(
            "from",
            'must be a source such as "response.json:/usage/total_tokens", or a list of them',
        )
        return ()
    sources = []
    for text in texts:
        source = parse_source(text) if isinstance(text, str) else Source(str(text), "")
        mistake = mistake_in_source(source)
        if mistake is not None:
            section.complain("from", mistake)
        elif source in sources:
            section.complain("from", f'names "{source}" twice')
        sources.append(source)
    return tuple(sources)


def _unit(text: str) -> str:
    if not _UNIT.fullmatch(text):
        raise ValueError(f'"{text}" must be up to 32 of a-z, 0-9 and "_", such as "token"')
    return text

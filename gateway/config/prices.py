"""[routes.price]: what a call costs, tried on sample usage before anybody pays it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.config.meters import read_meters
from gateway.config.price_tables import read_table
from gateway.config.rpc_prices import read_rpc_prices
from policies.catalog import Price
from policies.pricing import mistake_in

if TYPE_CHECKING:
    from gateway.config.section import Section


def read_price(section: Section, pattern: str) -> Price:
    """The price of one route; `pattern` is the path's, whose parts a table may go by."""
    before = section.problems_so_far()
    price = Price(
        per_request_microcredits=section.amount("per_request"),
        minimum_microcredits=section.amount("minimum"),
        maximum_microcredits=section.amount("maximum") if "maximum" in section else None,
        meters=read_meters(section),
        rpc=read_rpc_prices(section.table("jsonrpc")) if "jsonrpc" in section else None,
    )
    if "table" in section:
        price = replace(price, table=read_table(section.table("table"), price, pattern))
    section.close()
    # A price that was misread would be tried for nothing.
    mistake = mistake_in(price) if section.problems_so_far() == before else None
    if mistake is not None:
        section.complain("", mistake)
    return price

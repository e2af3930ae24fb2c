"""What a call costs whose end nobody saw: what was seen of it, and never more than its hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.catalog import MeterSpec, Price, Rule
from policies.meters.reading import NOTHING_READ, Reading
from policies.pricing import due_if_lost, floor, terms_of
from policies.terms import Terms

TOKENS = MeterSpec("token", (), picocredits_per_unit=2_000_000, reserve_units=100)
IMAGES = MeterSpec("image", (), picocredits_per_unit=50_000_000, reserve_units=3)


def terms(price: Price | None) -> Terms:
    fixed = terms_of(price, Rule.MINIMUM, None)
    assert isinstance(fixed, Terms)
    return fixed


METERED = terms(Price(per_request_microcredits=10, meters=(TOKENS, IMAGES)))
FIXED = terms(Price(per_request_microcredits=1_000))
HELD = METERED.ceiling

units = st.tuples(*2 * [st.none() | st.integers(0, 2**53 - 1)])


@pytest.mark.parametrize("rule", list(Rule))
def test_a_free_route_owes_nothing(rule: Rule) -> None:
    assert due_if_lost(terms(None), rule, NOTHING_READ) == 0


def test_the_routes_rule_decides() -> None:
    seen = Reading((7, None))
    assert due_if_lost(METERED, Rule.NOTHING, seen) == 0
    assert due_if_lost(METERED, Rule.RESERVED, seen) == HELD
    assert due_if_lost(METERED, Rule.MINIMUM, seen) == 10 + 14
    assert due_if_lost(METERED, Rule.ACTUAL, Reading((7, 2))) == 10 + 14 + 100


@pytest.mark.parametrize("rule", [Rule.MINIMUM, Rule.ACTUAL])
def test_what_nobody_has_read_counts_as_nothing(rule: Rule) -> None:
    for seen in (Reading((None, None)), NOTHING_READ, Reading((None, None), (50, 1))):
        assert due_if_lost(METERED, rule, seen) == floor(METERED)
    assert due_if_lost(FIXED, rule, NOTHING_READ) == 1_000


@given(st.sampled_from(list(Rule)), units)
def test_it_is_never_more_than_the_hold(rule: Rule, seen: tuple[int | None, ...]) -> None:
    assert 0 <= due_if_lost(METERED, rule, Reading(seen)) <= HELD

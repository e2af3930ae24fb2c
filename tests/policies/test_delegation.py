"""How a delegated key counts in its parent, as it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.delegation import Share, parse_share

amounts = st.integers(0, 2**53 - 1)


@given(amounts, amounts, st.none() | amounts)
def test_a_share_comes_back_as_it_was_written(parent: int, budget: int, used: int | None) -> None:
    share = Share(parent, budget, used)
    assert parse_share(str(share)) == share


def test_a_share_counts_its_budget_until_that_was_given_back() -> None:
    assert parse_share("17:5000000").counted_microcredits == 5_000_000
    assert parse_share("17:5000000:0").counted_microcredits == 0
    assert parse_share("17:5000000:1200000").counted_microcredits == 1_200_000


@pytest.mark.parametrize("text", ["", "17", "17:", "17:5:", "17:5:1:2", "17:-5", "a:5", "17:٣"])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="share"):
        parse_share(text)

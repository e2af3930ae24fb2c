"""Which lots pay: the order, and the arithmetic of reserve and settle."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from policies.burndown import Lot, allocate, available, draw, order, remaining, split
from policies.settlement import Posting

NOW_MS = 1_790_000_000_000


def lot(grant_id: int, left: int = 100, **others: int) -> Lot:
    values = {"held": 0, "settled": 0, "expires_ms": 0, "effective_ms": 0}
    return Lot(grant_id, left, **(values | {"priority": 0, "created_ms": 0} | others))


lots = st.builds(
    Lot,
    grant_id=st.integers(1, 99),
    available=st.integers(0, 50),
    held=st.just(0),
    settled=st.just(0),
    expires_ms=st.sampled_from([0, NOW_MS, NOW_MS + 1, NOW_MS + 2]),
    effective_ms=st.sampled_from([0, NOW_MS, NOW_MS + 1]),
    priority=st.integers(0, 2),
    created_ms=st.integers(0, 2),
    overage=st.booleans(),
)
many_lots = st.lists(lots, max_size=6, unique_by=lambda each: each.grant_id)
postings = st.builds(Posting, st.integers(1, 99), st.integers(1, 50))
allocations = st.lists(postings, max_size=5, unique_by=lambda posting: posting.grant_id)


def test_lots_pay_by_priority_then_soonest_expiry_then_oldest() -> None:
    expected = [
        lot(6, priority=0, expires_ms=0, created_ms=5),
        lot(9, priority=1, expires_ms=100, created_ms=9),
        lot(3, priority=1, expires_ms=200, created_ms=1),
        lot(7, priority=1, expires_ms=200, created_ms=2),
        lot(1, priority=1, expires_ms=0, created_ms=0),
        lot(2, priority=1, expires_ms=0, created_ms=0),
        lot(8, priority=2, expires_ms=1, created_ms=0),
    ]
    assert order(reversed(expected)) == expected


def test_a_lot_is_spendable_from_its_effective_time_until_just_before_its_expiry() -> None:
    limited = lot(1, effective_ms=10, expires_ms=20)
    assert [now for now in range(8, 23) if limited.spendable(now)] == list(range(10, 20))


@given(many_lots, st.integers(0, 200))
def test_an_allocation_is_all_or_nothing_and_never_more_than_a_lot_has(
    some_lots: list[Lot], amount: int
) -> None:
    allocation = allocate(some_lots, amount, NOW_MS)
    by_id = {each.grant_id: each for each in some_lots}
    if allocation is None:
        assert available(some_lots, NOW_MS) < amount
    else:
        assert sum(part.microcredits for part in allocation) == amount
        assert all(0 < part.microcredits <= by_id[part[0]].available for part in allocation)
        assert all(by_id[part.grant_id].spendable(NOW_MS) for part in allocation)


@given(many_lots, st.integers(0, 200))
def test_a_draw_goes_as_far_as_the_lots_do_and_leaves_later_lots_alone(
    some_lots: list[Lot], amount: int
) -> None:
    drawn, missing = draw(some_lots, amount, NOW_MS)
    assert sum(part.microcredits for part in drawn) + missing == amount
    assert missing == max(0, amount - available(some_lots, NOW_MS))
    by_id = {each.grant_id: each.available for each in some_lots}
    assert all(part.microcredits == by_id[part.grant_id] for part in drawn[:-1])


@given(allocations, st.integers(0, 300))
def test_a_split_conserves_the_hold_and_charges_what_is_owed(
    allocation: list[Posting], owed: int
) -> None:
    charged, released, excess = split(allocation, owed)
    held = sum(part.microcredits for part in allocation)
    assert sum(part.microcredits for part in charged) == min(owed, held)
    assert excess == max(0, owed - held)
    totals = dict.fromkeys((part.grant_id for part in allocation), 0)
    for grant_id, part in charged + released:
        totals[grant_id] += part
    assert totals == dict(allocation)
    assert all(part.microcredits > 0 for part in charged + released)


def test_overage_counts_as_room_for_a_call_and_as_debt_in_what_is_left() -> None:
    lots = [lot(1, 10), lot(99, 30, held=5, settled=14, withdrawn=1, overage=True)]
    assert available(lots, NOW_MS) == 40
    assert remaining(lots, NOW_MS) == 10 - 20
    assert remaining([lot(1, 10), lot(99, 50, overage=True)], NOW_MS) == 10


@given(many_lots, st.integers(0, 200))
def test_holding_an_amount_lowers_what_is_left_by_it_whoever_pays(
    some_lots: list[Lot], amount: int
) -> None:
    allocation = allocate(some_lots, amount, NOW_MS)
    parts = dict(allocation or ())
    after = [
        each._replace(
            available=each.available - parts.get(each.grant_id, 0),
            held=each.held + parts.get(each.grant_id, 0),
        )
        for each in some_lots
    ]
    held = 0 if allocation is None else amount
    assert remaining(after, NOW_MS) == remaining(some_lots, NOW_MS) - held
    assert available(after, NOW_MS) == available(some_lots, NOW_MS) - held

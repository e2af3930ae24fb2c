"""What each rule makes a call pay, and the outbox's spelling of a settlement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import pricing
from policies.catalog import DEFAULT_RULES, Ending, MeterSpec, Price, Rule, Source
from policies.settlement import (
    Posting,
    Settlement,
    owed,
    parse_outbox,
    parse_postings,
    result_blob,
    units_text,
)

METERS = (
    MeterSpec("token", (Source("response.json", "/usage/total_tokens"),), 1_000_000_000, 4_000),
    MeterSpec("image", (Source("response.json", "/usage/images"),), 5 * 10**12, 2),
)
PRICE = Price(7, 100_000, 0, None, METERS)
HELD = pricing.ceiling(PRICE)


def test_each_rule_costs_what_its_name_says() -> None:
    units = (30, 1)
    assert owed(PRICE, Rule.ACTUAL, HELD, units) == (5_130_000, "")
    assert owed(PRICE, Rule.RESERVED, HELD, units) == (HELD, "")
    assert owed(PRICE, Rule.MINIMUM, HELD, units) == (100_000, "")
    assert owed(PRICE, Rule.NOTHING, HELD, units) == (0, "")


def test_missing_units_are_flagged_only_where_they_decided_the_amount() -> None:
    assert owed(PRICE, Rule.ACTUAL, HELD, (30, None)) == (10_130_000, "units_missing")
    for rule in (Rule.RESERVED, Rule.MINIMUM, Rule.NOTHING):
        assert owed(PRICE, rule, HELD, (None, None)).flags == ""


@pytest.mark.parametrize("rule", list(Rule))
def test_a_free_route_owes_nothing_however_it_ends(rule: Rule) -> None:
    assert owed(None, rule, 0, ()) == (0, "")


@given(
    st.sampled_from(Rule),
    st.tuples(*[st.none() | st.integers(0, meter.reserve_units) for meter in METERS]),
)
def test_no_rule_takes_more_than_was_held_while_units_stay_in_the_reserve(
    rule: Rule, units: tuple[int | None, ...]
) -> None:
    assert 0 <= owed(PRICE, rule, HELD, units).microcredits <= HELD


def test_every_ending_has_a_rule() -> None:
    assert set(DEFAULT_RULES) == set(Ending)


def test_a_settlement_keeps_only_the_units_that_were_read() -> None:
    assert units_text(PRICE, (30, 2)) == "token=30;image=2"
    assert units_text(PRICE, (None, 2)) == "image=2"
    assert units_text(PRICE, (None, None)) == ""


def outbox_fields(settlement: Settlement) -> dict[bytes, bytes]:
    """What the settle script writes for a settlement, with the blob that the worker gave it."""
    blob = result_blob(
        Ending(settlement.ending), settlement.status, settlement.units, settlement.flags
    )
    context = ",".join(str(number) for number in settlement[3:8])
    postings = " ".join(f"{grant}:{amount}" for grant, amount in settlement.postings)
    numbers = {
        "m": settlement.held_microcredits,
        "t": settlement.admitted_ms,
        "n": settlement.settled_ms,
        "c": settlement.charged_microcredits,
        "u": settlement.uncollected_microcredits,
    }
    texts = {"i": settlement.call_id, "x": context, "p": postings, "r": blob}
    return {key.encode(): str(value).encode() for key, value in {**numbers, **texts}.items()}


IDS = st.integers(1, 2**63 - 1)
AMOUNTS = st.integers(0, 2**53 - 1)
SETTLEMENTS = st.builds(
    Settlement,
    call_id=st.uuids().map(lambda call_id: call_id.hex),
    shard=st.just(3),
    outbox_id=st.just("1-0"),
    platform_id=IDS,
    account_id=IDS,
    key_id=IDS,
    route_id=IDS,
    price_version=IDS,
    admitted_ms=AMOUNTS,
    settled_ms=AMOUNTS,
    ending=st.sampled_from([ending.value for ending in Ending]),
    status=st.integers(0, 599),
    units=st.sampled_from(["", "token=30", "token=30;image=2"]),
    flags=st.sampled_from(["", "units_missing", "units_missing,late"]),
    held_microcredits=AMOUNTS,
    charged_microcredits=AMOUNTS,
    uncollected_microcredits=AMOUNTS,
    postings=st.lists(st.builds(Posting, IDS, AMOUNTS), max_size=3).map(tuple),
)


@given(SETTLEMENTS)
def test_a_settlement_comes_out_of_the_outbox_as_it_went_in(settlement: Settlement) -> None:
    parsed = parse_outbox(3, "1-0", outbox_fields(settlement))
    assert parsed == settlement
    assert type(parsed.ending) is str


SAMPLE = {
    b"i": b"0" * 32, b"x": b"1,2,3,4,5", b"m": b"9", b"t": b"1", b"n": b"2", b"c": b"7",
    b"u": b"0", b"p": b"12:7", b"r": b"completed,200,token=30,",
}  # fmt: skip


@pytest.mark.parametrize("key", sorted(SAMPLE))
def test_an_outbox_entry_without_one_of_its_fields_is_refused(key: bytes) -> None:
    rest = {name: value for name, value in SAMPLE.items() if name != key}
    with pytest.raises(ValueError, match=f"1-0 has no field b'{key.decode()}'"):
        parse_outbox(0, "1-0", rest)


@pytest.mark.parametrize(
    "damage",
    [
        {b"x": b"1,2,3,4"},
        {b"r": b"completed,200"},
        {b"r": b"vanished,200,,"},
        {b"m": b"nine"},
        {b"p": b"12"},
        {b"i": b"\xff"},
    ],
)
def test_a_damaged_outbox_entry_is_refused_by_its_id(damage: dict[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="outbox entry 1-0 is malformed"):
        parse_outbox(0, "1-0", {**SAMPLE, **damage})


def test_postings_are_read_in_the_order_in_which_they_paid() -> None:
    assert parse_postings("12:1000 3:15") == (Posting(12, 1000), Posting(3, 15))
    assert parse_postings("") == ()

"""What each rule makes a call pay, and the outbox's spelling of a settlement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import pricing
from policies.catalog import DEFAULT_RULES, Ending, MeterSpec, Price, Rule, Source
from policies.meters.reading import NOTHING_READ, Reading
from policies.settlement import (
    LateSettlement,
    LedgerChange,
    Posting,
    Settlement,
    owed,
    parse_entry,
    parse_postings,
    result_blob,
    units_text,
    with_overage,
)
from policies.terms import Terms

METERS = (
    MeterSpec("token", (Source("response.json", "/usage/total_tokens"),), 1_000_000_000, 4_000),
    MeterSpec("image", (Source("response.json", "/usage/images"),), 5 * 10**12, 2),
)
PRICE = Price(7, 100_000, 0, None, METERS)
HELD = pricing.ceiling(PRICE)


def terms(price: Price | None) -> Terms:
    fixed = pricing.terms_of(price, Rule.MINIMUM, None)
    assert isinstance(fixed, Terms)
    return fixed


TERMS = terms(PRICE)
COMPLETED = Ending.COMPLETED


def test_each_rule_costs_what_its_name_says() -> None:
    reading = Reading((30, 1))
    assert owed(TERMS, Rule.ACTUAL, COMPLETED, reading) == (5_130_000, "", ())
    assert owed(TERMS, Rule.RESERVED, COMPLETED, reading) == (HELD, "", ())
    assert owed(TERMS, Rule.MINIMUM, COMPLETED, reading) == (100_000, "", ())
    assert owed(TERMS, Rule.NOTHING, COMPLETED, reading) == (0, "", ())


def test_missing_units_are_flagged_only_where_they_decided_the_amount() -> None:
    missing = Reading((30, None))
    assert owed(TERMS, Rule.ACTUAL, COMPLETED, missing) == (10_130_000, "units_missing", ())
    for rule in (Rule.RESERVED, Rule.MINIMUM, Rule.NOTHING):
        assert owed(TERMS, rule, COMPLETED, Reading((None, None))).flags == ""


@pytest.mark.parametrize("ending", list(Ending))
def test_only_a_complete_answer_owes_what_it_did_not_report(ending: Ending) -> None:
    owing = owed(TERMS, Rule.ACTUAL, ending, Reading((30, None), (30, 1)))
    if ending is COMPLETED:
        assert owing == (10_130_000, "units_missing", ())
    else:
        assert owing == (5_130_000, "units_missing,estimated", ())


@pytest.mark.parametrize("rule", list(Rule))
def test_a_free_route_owes_nothing_however_it_ends(rule: Rule) -> None:
    for ending in Ending:
        assert owed(terms(None), rule, ending, NOTHING_READ) == (0, "", ())


@given(
    st.sampled_from(Rule),
    st.sampled_from(Ending),
    st.tuples(*[st.none() | st.integers(0, meter.reserve_units) for meter in METERS]),
    st.tuples(*[st.integers(0, 10**9) for _ in METERS]),
)
def test_no_rule_takes_more_than_was_held_while_units_stay_in_the_reserve(
    rule: Rule, ending: Ending, units: tuple[int | None, ...], estimates: tuple[int, ...]
) -> None:
    assert 0 <= owed(TERMS, rule, ending, Reading(units, estimates)).microcredits <= HELD


def test_every_ending_has_a_rule() -> None:
    assert set(DEFAULT_RULES) == set(Ending)


def test_a_settlement_keeps_only_the_units_that_were_read() -> None:
    assert units_text(PRICE, Reading((30, 2))) == "token=30;image=2"
    assert units_text(PRICE, Reading((None, 2))) == "image=2"
    assert units_text(PRICE, Reading((None, None))) == ""
    assert units_text(PRICE, NOTHING_READ) == ""
    assert units_text(None, NOTHING_READ) == ""


def outbox_text(settlement: Settlement) -> str:
    """What a script writes for a settlement, with the context and blob that the worker gave it."""
    blob = result_blob(
        Ending(settlement.ending), settlement.status, settlement.units, settlement.flags
    )
    context = ",".join(str(part) for part in (*settlement[3:8], settlement.session))
    postings = " ".join(f"{grant}:{amount}" for grant, amount in settlement.postings)
    times = (settlement.admitted_ms, settlement.settled_ms)
    amounts = (settlement.charged_microcredits, settlement.uncollected_microcredits)
    before = (settlement.call_id, context, settlement.held_microcredits, *times, *amounts)
    return "|".join(map(str, (*before, postings, blob)))


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
    session=st.sampled_from(["", "s", "0190.a:b~c_d-e", "x" * 128]),
    held_microcredits=AMOUNTS,
    charged_microcredits=AMOUNTS,
    uncollected_microcredits=AMOUNTS,
    postings=st.lists(st.builds(Posting, IDS, AMOUNTS), max_size=3).map(tuple),
)


@given(SETTLEMENTS)
def test_a_settlement_comes_out_of_the_outbox_as_it_went_in(settlement: Settlement) -> None:
    parsed = parse_entry(3, "1-0", {b"v": outbox_text(settlement).encode()})
    assert parsed == settlement
    assert isinstance(parsed, Settlement)
    assert type(parsed.ending) is str


def test_a_change_comes_out_of_the_outbox_as_it_went_in() -> None:
    text = f"{'c' * 32}|late|1,7|5000|{'a' * 32}|12:4 99o:3"
    assert parse_entry(3, "1-0", {b"c": text.encode()}) == LedgerChange(
        *("c" * 32, 3, "1-0", "late", 1, 7, "a" * 32, 5000),
        (Posting(12, 4), Posting(99, 3)),
    )


@pytest.mark.parametrize(
    ("postings", "flags", "expected"),
    [
        ("12:7", "", ""),
        ("12:7", "expired", "expired"),
        ("99o:7", "", "overage"),
        ("12:1 99o:6", "units_missing,late", "units_missing,late,overage"),
    ],
)
def test_a_settlement_says_that_overage_paid(postings: str, flags: str, expected: str) -> None:
    text = f"{'0' * 32}|1,2,3,4,5,|9|1|2|7|0|{postings}|completed,200,token=30,{flags}"
    parsed = parse_entry(0, "1-0", {b"v": text.encode()})
    assert isinstance(parsed, Settlement)
    assert parsed.flags == expected
    assert sum(amount for _, amount in parsed.postings) == 7
    assert with_overage(flags, postings) == expected


def test_a_late_settlement_knows_its_context() -> None:
    late = LateSettlement(
        *("a" * 32, 3, 1, 7, 5, 2, 9, "s", 1000, 2000, "completed", 200, "", "", 6, 4)
    )
    assert late.context() == "1,7,5,2,9,s"


SAMPLE = f"{'0' * 32}|1,2,3,4,5,s|9|1|2|7|0|12:7|completed,200,token=30,"
CHANGE = f"{'c' * 32}|expire|1,7|5000||12:4"


def test_an_outbox_entry_with_neither_of_its_fields_is_refused() -> None:
    with pytest.raises(ValueError, match="1-0 has neither field v nor c"):
        parse_entry(0, "1-0", {b"x": b"1,2,3,4,5"})


@pytest.mark.parametrize(
    ("field", "text"),
    [
        *((b"v", SAMPLE.rsplit("|", cut)[0]) for cut in range(1, 9)),
        (b"v", SAMPLE.replace("1,2,3,4,5,s", "1,2,3,4")),
        (b"v", SAMPLE.replace("completed,200,token=30,", "completed,200")),
        (b"v", SAMPLE.replace("completed", "vanished")),
        (b"v", SAMPLE.replace("|9|", "|nine|")),
        (b"v", SAMPLE.replace("12:7", "12")),
        (b"v", SAMPLE.replace("12:7", "12x:7")),
        *((b"c", CHANGE.rsplit("|", cut)[0]) for cut in range(1, 6)),
        (b"c", CHANGE + "|"),
        (b"c", CHANGE.replace("1,7", "1")),
    ],
)
def test_a_damaged_outbox_entry_is_refused_by_its_id(field: bytes, text: str) -> None:
    with pytest.raises(ValueError, match="outbox entry 1-0 is malformed"):
        parse_entry(0, "1-0", {field: text.encode()})


def test_an_outbox_entry_that_is_no_text_is_refused_by_its_id() -> None:
    with pytest.raises(ValueError, match="outbox entry 1-0 is malformed"):
        parse_entry(0, "1-0", {b"v": b"\xff" + SAMPLE.encode()})


def test_postings_are_read_in_the_order_in_which_they_paid() -> None:
    assert parse_postings("12:1000 3:15 99o:4") == (Posting(12, 1000), Posting(3, 15), (99, 4))
    assert parse_postings("") == ()

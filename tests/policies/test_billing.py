"""What a paid invoice gives, to the microcredit and the millisecond; which subscription serves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from policies.billing import (
    PACK_PRIORITY,
    Contender,
    Given,
    Line,
    PaidInvoice,
    Served,
    Slice,
    given,
    given_by_session,
    invoice_kind,
    invoice_status,
    period_at,
    price_problem,
    served,
    session_status,
    slices,
)
from policies.billing_options import BillingOptions, UpgradeCredits
from policies.catalog import Pack, Plan
from policies.dunning import Stage

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
PRO = Plan("pro", credits_microcredits=1_000)
MAX = Plan("max", credits_microcredits=5_000)
YEAR = Plan("year", credits_microcredits=9_000, period="year")
PACK = Pack("small", "Small", credits_microcredits=30, validity_days=10)
OPTIONS = BillingOptions()
PRORATED = BillingOptions(upgrade_credits=UpgradeCredits.PRORATED)
BRIDGE_MS = OPTIONS.bridge_ms


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000


START_MS, END_MS = at("2026-03-01"), at("2026-04-01")
YEAR_END_MS = at("2027-03-01")
LATER_MS = at("2030-01-01")


def line(sold: Plan | Pack = PRO, **fields: object) -> Line:
    whole = Line("il_1", sold, 1, 2_000, START_MS, END_MS, 1)
    return whole._replace(**fields)


def invoice(*lines: Line, paid_ms: int = START_MS + HOUR_MS, **fields: object) -> PaidInvoice:
    made = PaidInvoice("in_1", paid_ms, is_change=False, trial_end_ms=0, lines=lines)
    return made._replace(**fields)


def rest(
    sold: Plan, start_ms: int, *, end_ms: int = END_MS, months: int = 1, **more: object
) -> Line:
    """What a change in mid-period asks for the new price, or credits of the old."""
    return line(
        sold,
        line_id=f"il_{sold.slug}",
        start_ms=start_ms,
        end_ms=end_ms,
        months=months,
        is_proration=True,
        **more,
    )


def test_a_period_gives_its_plan_times_the_quantity_until_its_end_and_the_bridge() -> None:
    assert given(invoice(line(quantity=3)), LATER_MS, OPTIONS) == (
        Given("il_1", "plan", 3_000, START_MS, END_MS + BRIDGE_MS),
    )


def test_a_clock_that_is_behind_delays_nothing() -> None:
    now_ms = START_MS - 5_000
    (lot,) = given(invoice(line()), now_ms, OPTIONS)
    assert lot.effective_ms == now_ms


def test_a_period_paid_after_its_end_lasts_as_long_as_one_from_then() -> None:
    paid_ms = END_MS + 5 * DAY_MS
    (lot,) = given(invoice(line(), paid_ms=paid_ms), LATER_MS, OPTIONS)
    assert (lot.effective_ms, lot.expires_ms) == (START_MS, paid_ms + END_MS - START_MS)


def test_a_short_month_is_a_month() -> None:
    february = line(start_ms=at("2026-01-31"), end_ms=at("2026-02-28"))
    march = line(start_ms=at("2026-02-28"), end_ms=at("2026-03-31"))
    for one in (february, march):
        (lot,) = given(invoice(one, paid_ms=one.start_ms), LATER_MS, OPTIONS)
        assert (lot.microcredits, lot.expires_ms) == (1_000, one.end_ms + BRIDGE_MS)


def test_a_years_price_of_a_months_plan_gives_each_month_its_own() -> None:
    yearly = line(end_ms=YEAR_END_MS, months=12)
    lots = given(invoice(yearly), START_MS, OPTIONS)
    assert [lot.key for lot in lots] == [f"il_1:{month}" for month in range(12)]
    assert {lot.microcredits for lot in lots} == {1_000}
    assert lots[0].effective_ms == START_MS
    assert lots[1].effective_ms == END_MS == lots[0].expires_ms - BRIDGE_MS
    assert lots[-1].expires_ms == YEAR_END_MS + BRIDGE_MS


def test_a_years_plan_gives_a_year_at_once() -> None:
    yearly = line(YEAR, end_ms=YEAR_END_MS, months=12)
    assert given(invoice(yearly), START_MS, OPTIONS) == (
        Given("il_1", "plan", 9_000, START_MS, YEAR_END_MS + BRIDGE_MS),
    )


def test_a_trial_gives_trial_credits_and_a_coupon_of_all_gives_the_plan() -> None:
    plan = Plan("try", credits_microcredits=1_000, trial_microcredits=50)
    trial = invoice(line(plan, amount_minor=0, quantity=2), trial_end_ms=END_MS)
    (lot,) = given(trial, LATER_MS, OPTIONS)
    assert (lot.source, lot.microcredits, lot.expires_ms) == ("trial", 100, END_MS + BRIDGE_MS)
    free = invoice(line(plan, amount_minor=0), trial_end_ms=START_MS)
    (lot,) = given(free, LATER_MS, OPTIONS)
    assert (lot.source, lot.microcredits) == ("plan", 1_000)
    (lot,) = given(invoice(line(amount_minor=0), trial_end_ms=END_MS), LATER_MS, OPTIONS)
    assert (lot.source, lot.microcredits) == ("trial", 1_000)  # it says nothing of trials


def test_a_trial_that_was_ended_early_is_none_the_less_a_trial() -> None:
    """Its invoice may be looked at only then, and names the end that was planned."""
    plan = Plan("try", credits_microcredits=1_000, trial_microcredits=50)
    ended = invoice(line(plan, amount_minor=0), trial_end_ms=START_MS + HOUR_MS)
    (lot,) = given(ended, LATER_MS, OPTIONS)
    assert (lot.source, lot.microcredits, lot.expires_ms) == ("trial", 50, END_MS + BRIDGE_MS)


@pytest.mark.parametrize(
    ("options", "microcredits"), [(OPTIONS, 4_000), (PRORATED, 4_000 * 21 // 31)]
)
def test_an_upgrade_gives_the_difference(options: BillingOptions, microcredits: int) -> None:
    changed_ms = START_MS + 10 * DAY_MS
    change = invoice(
        rest(PRO, changed_ms, amount_minor=-1_300, is_credit=True),
        rest(MAX, changed_ms, amount_minor=6_000),
        is_change=True,
        paid_ms=changed_ms,
    )
    (lot,) = given(change, LATER_MS, options)
    assert abs(lot.microcredits - microcredits) <= 1  # each line is rounded down
    assert lot.microcredits <= microcredits
    assert lot[:2] == ("in_1:change", "plan")
    assert lot[3:5] == (changed_ms, END_MS + BRIDGE_MS)
    assert (lot.ceiling, lot.replaces) == (5_000, False)


def test_a_downgrade_gives_nothing_and_takes_nothing() -> None:
    change = invoice(
        rest(MAX, START_MS, amount_minor=-9_000, is_credit=True),
        rest(PRO, START_MS, amount_minor=2_000),
        is_change=True,
    )
    assert given(change, LATER_MS, OPTIONS) == ()


def test_several_changes_billed_together_give_the_last_plan_less_the_first() -> None:
    first_ms, second_ms = START_MS + DAY_MS, START_MS + 2 * DAY_MS
    top = Plan("top", credits_microcredits=8_000)
    change = invoice(
        rest(PRO, first_ms, amount_minor=-1, is_credit=True),
        rest(MAX, first_ms),
        rest(MAX, second_ms, amount_minor=-1, is_credit=True),
        rest(top, second_ms),
        line(top, line_id="il_9", start_ms=END_MS, end_ms=at("2026-05-01")),
        paid_ms=END_MS + HOUR_MS,
    )
    cycle, lot = given(change, LATER_MS, OPTIONS)
    assert (cycle.key, cycle.microcredits) == ("il_9", 8_000)
    assert (lot.key, lot.microcredits, lot.ceiling) == ("in_1:change", 7_000, 8_000)
    # Billed after its end, so it lasts as long as what it is for.
    assert lot.expires_ms == END_MS + HOUR_MS + END_MS - second_ms


def test_a_change_that_begins_anew_gives_a_period_less_what_is_unused_of_the_old() -> None:
    changed_ms = START_MS + 15 * DAY_MS + DAY_MS // 2  # the middle
    change = invoice(
        rest(PRO, changed_ms, amount_minor=-1_000, is_credit=True),
        line(MAX, line_id="il_y", start_ms=changed_ms, end_ms=at("2027-03-16"), months=12),
        is_change=True,
        paid_ms=changed_ms,
    )
    lots = given(change, LATER_MS, OPTIONS)
    assert [lot.microcredits for lot in lots] == [4_500] + [5_000] * 11
    assert lots[0].key == "il_y:0"


def test_months_to_come_are_set_to_what_the_new_plan_gives() -> None:
    changed_ms = START_MS + 40 * DAY_MS
    more = {"end_ms": YEAR_END_MS, "months": 12, "period_start_ms": START_MS}
    down = invoice(
        rest(MAX, changed_ms, amount_minor=-1, is_credit=True, **more),
        rest(PRO, changed_ms, **more),
        is_change=True,
        paid_ms=changed_ms,
    )
    lots = given(down, LATER_MS, OPTIONS)
    assert [lot.key for lot in lots] == [f"in_1:change:{month}" for month in range(1, 11)]
    assert {(lot.microcredits, lot.replaces) for lot in lots} == {(1_000, True)}
    assert lots[0].effective_ms == at("2026-05-01")

    monthly = invoice(
        rest(MAX, changed_ms, amount_minor=-1, is_credit=True, **more),
        line(PRO, line_id="il_m", start_ms=changed_ms, end_ms=at("2026-05-10")),
        is_change=True,
        paid_ms=changed_ms,
    )
    *gone, new = given(monthly, LATER_MS, OPTIONS)
    assert {(lot.microcredits, lot.replaces) for lot in gone} == {(0, True)}
    assert len(gone) == 10
    assert new.key == "il_m"
    assert new.microcredits == 0  # the unused rest of a month of max is worth more than pro


def test_a_pack_is_for_its_days_from_the_payment_and_pays_after_plans() -> None:
    session = given_by_session("cs_1", [("li_1", PACK, 2)], START_MS)
    assert session == (
        Given("cs_1:li_1", "pack", 60, START_MS, START_MS + 10 * DAY_MS, PACK_PRIORITY),
    )
    for_ever = Pack("big", "Big", credits_microcredits=1)
    (lot,) = given_by_session("cs_1", [("li_1", for_ever, 1)], START_MS)
    assert lot.expires_ms == 0
    paid = invoice(line(PACK, months=None), paid_ms=END_MS)
    (lot,) = given(paid, LATER_MS, OPTIONS)
    assert (lot.key, lot.microcredits, lot.effective_ms) == ("il_1", 30, END_MS)


@for_all(
    st.integers(START_MS, END_MS - 1),
    st.integers(0, 10_000),
    st.integers(0, 10_000),
    st.sampled_from([OPTIONS, PRORATED]),
)
def test_an_upgrade_never_gives_more_than_the_difference(
    changed_ms: int, old: int, new: int, options: BillingOptions
) -> None:
    change = invoice(
        rest(Plan("a", credits_microcredits=old), changed_ms, amount_minor=-1, is_credit=True),
        rest(Plan("b", credits_microcredits=new), changed_ms),
        is_change=True,
        paid_ms=changed_ms,
    )
    assert sum(lot.microcredits for lot in given(change, LATER_MS, options)) <= max(new - old, 0)


@for_all(st.integers(at("2024-01-01"), at("2032-12-31")), st.sampled_from([1, 3, 12, 24]))
def test_slices_have_no_gap_and_no_overlap(start_ms: int, months: int) -> None:
    end_ms = start_ms + months * 31 * DAY_MS
    parts = slices(Slice(start_ms, end_ms), months, 1)
    assert len(parts) == months
    assert (parts[0].start_ms, parts[-1].end_ms) == (start_ms, end_ms)
    assert [part.end_ms for part in parts[:-1]] == [part.start_ms for part in parts[1:]]
    for part in parts:
        assert period_at(PRO, months, Slice(start_ms, end_ms), part.start_ms)[1:] == part
        assert period_at(PRO, months, Slice(start_ms, end_ms), part.end_ms - 1)[1:] == part


def test_before_and_after_its_subscription_an_account_has_the_first_or_last_period() -> None:
    whole = Slice(START_MS, YEAR_END_MS)
    assert period_at(PRO, 12, whole, 0)[1:] == (START_MS, END_MS)
    assert period_at(PRO, 12, whole, LATER_MS).end_ms == YEAR_END_MS
    assert period_at(YEAR, 12, whole, LATER_MS) == (START_MS, START_MS, YEAR_END_MS)


@pytest.mark.parametrize(
    ("plan", "months", "fits"),
    [
        (PRO, 1, True),
        (PRO, 12, True),
        (PRO, None, False),
        (YEAR, 12, True),
        (YEAR, 24, True),
        (YEAR, 1, False),
        (YEAR, 18, False),
    ],
)
def test_a_price_fits_its_plan_or_has_a_problem(
    plan: Plan, months: int | None, *, fits: bool
) -> None:
    assert (price_problem(plan, months) is None) is fits


def contender(name: str, status: str = "active", started_ms: int = 1, **more: object) -> Contender:
    made = Contender(name, status, started_ms, Stage.NONE, has_plan=True)
    return made._replace(**more)


@pytest.mark.parametrize(
    "status", ["incomplete", "incomplete_expired", "paused", "unpaid", "canceled", "what comes"]
)
def test_what_does_not_entitle_serves_nobody(status: str) -> None:
    assert served([contender("a", status)]) == Served(None)
    assert served([contender("a", status, 9), contender("b")]) == Served("b")


@pytest.mark.parametrize("status", ["trialing", "active", "past_due"])
def test_the_newest_that_entitles_serves(status: str) -> None:
    older, newer = contender("a", status, 1), contender("b", status, 2)
    assert served([older, newer]) == served([newer, older]) == Served("b", frozenset({"a"}))


def test_the_older_serves_while_the_newer_is_downgraded_or_sells_no_plan() -> None:
    older = contender("a")
    for change in ({"stage": Stage.DOWNGRADED}, {"stage": Stage.SUSPENDED}, {"has_plan": False}):
        newer = contender("b", started_ms=2, **change)
        assert served([older, newer]).by == "a"
        assert served([newer]) == Served(None)


@pytest.mark.parametrize(
    ("status", "attempts", "is_processing", "ours"),
    [
        ("draft", 0, False, "pending"),
        ("open", 0, False, "pending"),
        ("open", 1, True, "processing"),
        ("open", 1, False, "failed"),
        ("paid", 3, False, "succeeded"),
        ("void", 1, False, "cancelled"),
        ("uncollectible", 4, False, "cancelled"),
    ],
)
def test_an_invoice_has_one_status_here(
    status: str, attempts: int, ours: str, *, is_processing: bool
) -> None:
    assert invoice_status(status, attempts=attempts, is_processing=is_processing) == ours


@pytest.mark.parametrize(
    ("status", "payment", "has_failed", "ours"),
    [
        ("open", "unpaid", False, "pending"),
        ("complete", "paid", False, "succeeded"),
        ("complete", "no_payment_required", False, "succeeded"),
        ("complete", "unpaid", False, "processing"),
        ("complete", "unpaid", True, "cancelled"),
        ("expired", "unpaid", False, "cancelled"),
    ],
)
def test_a_session_has_one_status_here(
    status: str, payment: str, ours: str, *, has_failed: bool
) -> None:
    assert session_status(status, payment, has_failed=has_failed) == ours


def test_a_payment_is_named_by_why_it_was_asked_for() -> None:
    assert invoice_kind("subscription_create", only_overage=False) == "subscription"
    assert invoice_kind("subscription_cycle", only_overage=False) == "renewal"
    assert invoice_kind("subscription_update", only_overage=False) == "change"
    assert invoice_kind("manual", only_overage=False) == invoice_kind(None, only_overage=False)
    assert invoice_kind("manual", only_overage=True) == "overage"

"""What Postgres has of an account and its live holds make the account that Redis is given."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.limits import month_end_ms
from policies.rebuild import HoldText, _end_of, parse_hold, rebuild_account, session_holds

NOON = 1_790_000_000_000  # 2026-09-21
MONTH_END = month_end_ms(NOON)
DAY_END = NOON - NOON % 86_400_000 + 86_400_000


def state(**changes: str | int) -> dict[str, str | int]:
    fields: dict[str, str | int] = {"status": "active", "rpm": 0, "rpmonth": 0, "conc": 0}
    fields |= {"rules": "", "lots": "12 15 99o", "k:5": "0"}
    for lot, left, settled in ((12, 1_000, 10), (15, 500, 0), (99, 300, 0)):
        fields |= {f"a:{lot}": left, f"s:{lot}": settled, f"w:{lot}": 0}
        fields |= {f"e:{lot}": 0, f"f:{lot}": 0}
    return fields | {name.replace("_", ":"): value for name, value in changes.items()}


def hold(allocation: str, **changes: Any) -> str:
    held = sum(int(part.partition(":")[2]) for part in allocation.split())
    text = HoldText(7, NOON, held, 0, "", "", allocation, "1,7,5,2,9,")
    return str(text._replace(**changes))


def test_a_hold_text_comes_back_as_it_was() -> None:
    text = "h|7|1790000000123|2500|100|token=3;image=2|K5.cd@17 S.A|12:2000 99o:500|1,7,5,2,9,s.1~a"
    parsed = parse_hold(text)
    assert str(parsed) == text
    assert (parsed.key_id, parsed.route_id, parsed.session) == ("5", "2", "s.1~a")
    assert parsed.held == 2_500


@pytest.mark.parametrize("text", ["", "s|17-0", "h|7|1|2|3", "h|7|1|2|3|||12:1|1,7,5", "h|a|b|c"])
def test_what_is_no_hold_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"hold|invalid literal"):
        parse_hold(text)


def test_what_is_held_is_not_available() -> None:
    fields, rewritten = rebuild_account(
        state(), {"a1": hold("12:400"), "b2": hold("12:600 15:100"), "c3": hold("99o:20")}
    )
    assert (fields["a:12"], fields["h:12"], fields["s:12"]) == (0, 1_000, 10)
    assert (fields["a:15"], fields["h:15"]) == (400, 100)
    assert (fields["a:99"], fields["h:99"]) == (280, 20)
    assert fields["running"] == 3
    assert rewritten == {}


def test_a_raised_hold_holds_all_of_its_parts_and_what_was_used_of_tiers_stays() -> None:
    raised = hold("12:1000 15:200 99o:30", counted=f"A.cd@{DAY_END}", held=1_230)
    used = {"u:2:token": f"{MONTH_END}:600", "A.cd": f"{DAY_END}:0"}
    fields, rewritten = rebuild_account(state() | used, {"a1": raised})
    assert [fields[f"h:{lot}"] for lot in (12, 15, 99)] == [1_000, 200, 30]
    assert fields["A.cd"] == f"{DAY_END}:1230"
    assert fields["u:2:token"] == f"{MONTH_END}:600"
    assert rewritten == {}


def test_a_hold_that_lives_with_a_task_holds_but_does_not_run() -> None:
    parked = hold("12:400", counted="P K5.ct@0")
    assert parse_hold(parked).parked
    fields, rewritten = rebuild_account(
        state() | {"K5.ct": "0:0"}, {"a1": parked, "b2": hold("12:100")}
    )
    assert (fields["a:12"], fields["h:12"], fields["running"]) == (500, 500, 1)
    assert "P" not in fields
    assert fields["K5.ct"] == "0:400"
    assert rewritten == {}


def test_an_account_without_holds_is_what_postgres_says() -> None:
    assert rebuild_account(state(), {}).fields == state() | {"running": 0}


def test_lots_that_have_less_than_their_holds_give_it_to_the_oldest_first() -> None:
    fields, rewritten = rebuild_account(
        state(a_15=150),
        {"young": hold("15:100", admitted_ms=NOON + 1), "old": hold("15:100 12:5")},
    )
    assert (fields["a:15"], fields["h:15"]) == (0, 150)
    assert rewritten == {
        "young": hold("15:100", admitted_ms=NOON + 1).replace("15:100", "15:50"),
    }


def test_a_lot_that_is_not_listed_any_more_holds_nothing() -> None:
    fields, rewritten = rebuild_account(state(), {"a1": hold("11:70 12:30")})
    assert "h:11" not in fields
    assert fields["h:12"] == 30
    assert parse_hold(rewritten["a1"]).allocation == "12:30"
    assert parse_hold(rewritten["a1"]).held == 100, "what the call reserved is on record"


def test_a_hold_counts_where_it_says_that_it_counts() -> None:
    counted = f"A.cd@{DAY_END} K5.ct@0 K5.cm@{MONTH_END} R2.cc K5.cc S.A"
    kept = {
        "A.cd": f"{DAY_END}:40",
        "K5.ct": "0:7",
        "K5.cm": f"{MONTH_END - 1}:999",  # last month's
    }
    fields, _ = rebuild_account(
        state() | kept, {"a1": hold("12:100", counted=counted), "b2": hold("12:1", counted="K5.cc")}
    )
    assert fields["A.cd"] == f"{DAY_END}:140"
    assert fields["K5.ct"] == "0:107"
    assert fields["K5.cm"] == f"{MONTH_END}:100"
    assert (fields["R2.cc"], fields["K5.cc"]) == (1, 2)
    assert not [name for name in fields if name.startswith("S.")]


def test_a_window_that_has_passed_is_left_alone() -> None:
    kept = {"A.cd": f"{DAY_END}:40"}
    fields, _ = rebuild_account(
        state() | kept, {"a1": hold("12:100", counted=f"A.cd@{DAY_END - 1}")}
    )
    assert fields["A.cd"] == f"{DAY_END}:40"


def test_a_cap_that_is_no_more_is_not_counted_again() -> None:
    # Should it come back, it begins with what Postgres says, and not with what this call holds.
    fields, _ = rebuild_account(state(), {"a1": hold("12:100", counted="K5.ct@0 K5.cc")})
    assert "K5.ct" not in fields
    assert fields["K5.cc"] == 1


def test_running_calls_count_in_the_quotas_of_their_time() -> None:
    fields, _ = rebuild_account(
        state(rpmonth=100, month=202609, count=8, k_5="0 qm:50")
        | {"rules": f"qp:9 pw:{NOON + 5}:{NOON + 10}", "R2.qm": f"{MONTH_END}:4"},
        {"a1": hold("12:1"), "b2": hold("12:1", admitted_ms=NOON - 30 * 86_400_000)},
    )
    assert fields["count"] == 9, "a call of the month before is not of this month's"
    assert fields["K5.qm"] == f"{MONTH_END}:1"
    assert fields["A.qp"] == f"{NOON + 5}:2"
    assert fields["R2.qm"] == f"{MONTH_END}:5"


def test_calls_of_delegated_keys_count_in_the_keys_that_they_were_carved_from() -> None:
    kept = {"k:6": "9 ct:90 up:5", "k:7": "9 ct:40 up:6 qm:3", "K7.ct": "0:4", "p:7": "6:40"}
    kept |= {"K6.ct": "0:50", "p:6": "5:90", "K5.ct": "0:95", "k:5": "0 ct:500 qm:9 cd:80"}
    kept |= {"K5.cd": f"{DAY_END}:0"}
    counted = f"K7.ct@0 K5.cd@{DAY_END}"
    fields, _ = rebuild_account(
        state() | kept, {"a1": hold("12:10", counted=counted, context="1,7,7,2,9,")}
    )
    assert fields["K7.ct"] == "0:14"
    # Each counts with its whole budget already, whatever its calls hold.
    assert (fields["p:7"], fields["K6.ct"]) == ("6:40", "0:50")
    assert (fields["p:6"], fields["K5.ct"]) == ("5:90", "0:95")
    assert fields["K5.cd"] == f"{DAY_END}:10"
    assert (fields["K7.qm"], fields["K5.qm"]) == (f"{MONTH_END}:1", f"{MONTH_END}:1")


def test_sessions_hold_what_their_calls_hold() -> None:
    def of(session: str, counted: str) -> str:
        return hold("12:100", counted=counted, context=f"1,7,5,2,9,{session}")

    holds = [of("a.b", "S.A S.K5"), of("a.b", "S.A"), of("c", "S.K5 A.ct@0"), of("", "A.ct@0")]
    assert session_holds(holds) == {(7, "a.b"): {"A": 200, "K5": 100}, (7, "c"): {"K5": 100}}


def test_the_end_of_every_month_is_found() -> None:
    now_ms = 0
    for year in range(1970, 2200):
        for month in range(1, 13):
            assert _end_of(year * 100 + month) == month_end_ms(now_ms)
            now_ms = month_end_ms(now_ms)


PARTS = st.lists(
    st.tuples(st.sampled_from(["11", "12", "15", "99o"]), st.integers(1, 900)),
    max_size=4,
    unique_by=lambda part: part[0],
)


@given(st.dictionaries(st.text("abc", min_size=1), PARTS, max_size=6))
def test_no_credit_is_made_or_lost(calls: dict[str, list[tuple[str, int]]]) -> None:
    """I1 and I3 per lot, and holds hold what their texts say."""
    holds = {
        call_id: hold(" ".join(f"{lot}:{amount}" for lot, amount in parts))
        for call_id, parts in calls.items()
    }
    fields, rewritten = rebuild_account(state(), holds)
    texts = holds | rewritten
    parts = [part for text in texts.values() for part in parse_hold(text).allocation.split()]
    for lot, token in ((12, "12"), (15, "15"), (99, "99o")):
        before, left = int(state()[f"a:{lot}"]), int(fields[f"a:{lot}"])
        held = int(fields.get(f"h:{lot}", 0))
        assert left >= 0
        assert left + held == before
        named = [int(part.partition(":")[2]) for part in parts if part.startswith(f"{token}:")]
        assert held == sum(named)
    again = rebuild_account(state(), texts)
    assert again.fields == fields
    assert again.holds == {}

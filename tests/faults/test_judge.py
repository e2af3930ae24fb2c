"""The judge of the fault tests finds what it is there to find."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.clients import Seen
from tests.faults.judge import Charge, Journal, judge
from tests.faults.kinds import FIXED, FIXED_CALL, PER_REQUEST, PER_TOKEN, REFUSE_CALL, STREAM_CALL

LEASE_S = 3
WELL = Seen(
    *("n1", 7, FIXED_CALL, 0, 100.0, 101.0),
    status=200,
    request_id="c1",
    told=FIXED,
    complete=True,
)
CUT = replace(WELL, status=0, told=None, complete=False)
STREAM = replace(CUT, kind=STREAM_CALL, tokens=500, started_s=90.0)
CHARGE = Charge("c1", 7, "completed", "", rows=1, charged=FIXED, uncollected=0, net=FIXED)
UNKNOWN = CHARGE._replace(ending="unknown", flags="expired")


def found(seen: Seen | None, charge: Charge | None, *, arrivals: int = 1) -> list[str]:
    """The rules that are broken, by a call with so many arrivals at its agent."""
    journal = Journal()
    journal.take([{"call": "c1", "nonce": "n1", "at": 99.0 + n} for n in range(arrivals)])
    # The agent reported 100 tokens each second.
    journal.take({"call": "c1", "tokens": 100 * n, "at": 95.0 + n} for n in range(1, 7))
    calls, charges = [seen] if seen else [], [charge] if charge else []
    return [violation.rule for violation in judge(calls, journal, charges, lease_s=LEASE_S)]


@pytest.mark.parametrize(
    ("seen", "charge"),
    [
        (WELL, CHARGE),
        (CUT, CHARGE),
        (CUT, UNKNOWN),
        (STREAM, UNKNOWN._replace(net=PER_REQUEST + 300 * PER_TOKEN)),
        (STREAM, UNKNOWN._replace(net=STREAM_CALL.hold)),
    ],
)
def test_calls_that_are_as_they_should_be_pass(seen: Seen, charge: Charge) -> None:
    assert found(seen, charge) == []


def test_a_call_that_never_reached_its_agent_and_cost_nothing_passes() -> None:
    assert found(CUT, None, arrivals=0) == []
    refused = replace(WELL, kind=REFUSE_CALL, status=502, told=0)
    assert found(refused, CHARGE._replace(ending="upstream_error", net=0), arrivals=0) == []
    assert found(replace(WELL, status=503, told=None), None, arrivals=0) == []


@pytest.mark.parametrize(
    ("rule", "seen", "charge"),
    [
        ("lost", WELL, None),
        ("free", CUT, None),
        ("free", CUT, CHARGE._replace(net=0)),
        ("free", CUT, UNKNOWN._replace(net=0)),
        ("free", WELL, CHARGE._replace(uncollected=1)),
        ("free", STREAM, UNKNOWN._replace(net=PER_REQUEST + 299 * PER_TOKEN)),
        ("wrong", STREAM, UNKNOWN._replace(net=STREAM_CALL.hold + 1)),
        ("wrong", CUT, CHARGE._replace(net=2 * FIXED)),
        ("wrong", replace(WELL, status=500), CHARGE),
        ("free", CUT, CHARGE._replace(ending="upstream_error", net=0)),
        ("double", WELL, CHARGE._replace(rows=2)),
        ("told", WELL, CHARGE._replace(net=FIXED + 1)),
        ("dispatched", replace(WELL, status=503, told=None), None),
    ],
)
def test_a_broken_promise_is_found(rule: str, seen: Seen, charge: Charge | None) -> None:
    assert rule in found(seen, charge)


def test_a_charge_at_the_brink_is_told_from_a_phantom() -> None:
    silent = replace(CUT, request_id="", started_s=100.0, ended_s=101.0)
    call_id = f"{100_500:012x}" + "0" * 20
    charge = UNKNOWN._replace(call_id=call_id)
    assert found(silent, charge, arrivals=0) == ["brink"]
    assert found(silent, charge, arrivals=1) == ["free", "phantom"], "it was sent on, and not paid"
    assert found(replace(silent, account_id=8), charge, arrivals=0) == ["phantom"]
    assert found(replace(silent, ended_s=100.2), charge, arrivals=0) == ["phantom"]
    assert found(silent, charge._replace(net=FIXED + 1), arrivals=0) == ["phantom"]
    assert found(silent, charge._replace(ending="completed"), arrivals=0) == ["phantom"]


def test_a_second_arrival_at_the_agent_is_found() -> None:
    assert found(WELL, CHARGE, arrivals=2) == ["double"]


def test_a_charge_for_what_never_arrived_is_found() -> None:
    assert "phantom" in found(CUT, UNKNOWN, arrivals=0)
    assert found(None, CHARGE, arrivals=0) == ["phantom"]

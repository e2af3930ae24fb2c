"""Use beyond the grants: a lot of overage pays last, up to its cap, and shows as debt."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policies.settlement import OVERAGE, parse_entry, parse_postings
from tests.support.lua_calls import NOW_MS, NOW_US, admit, late, load, lot, settle, void, withdraw

if TYPE_CHECKING:
    from policies.settlement import Settlement
    from tests.support.lua_shard import LuaShard

ONE, TWO, THREE = (digit * 32 for digit in "123")


@pytest.fixture
def billed(open_shard: LuaShard) -> LuaShard:
    """10 credits in a grant, and overage up to 50, of which 3 were used."""
    load(open_shard, lots={12: 10}, overage={99: 47}, settled={99: 3})
    return open_shard


def carried(shard: LuaShard) -> Settlement:
    ((outbox_id, entry),) = shard.state((7,))["outbox"].items()
    fields = {name.encode(): text.encode() for name, text in entry.items()}
    settlement: Settlement = parse_entry(0, outbox_id, fields)  # type: ignore[assignment]
    return settlement


def test_overage_pays_what_grants_lack_and_shows_as_debt(billed: LuaShard) -> None:
    assert admit(billed, ONE, amount=15)[3:5] == [-8, "12:10 99o:5"]
    assert (lot(billed), lot(billed, 99)) == ([0, 10, 0, 0], [42, 5, 3, 0])
    settled = settle(billed, 12, ONE)
    assert settled[3:7] == [12, 0, -5, "12:10 99o:2"]
    assert lot(billed, 99) == [45, 0, 5, 0]
    assert carried(billed).flags == OVERAGE
    assert carried(billed).postings == parse_postings("12:10 99:2")


def test_what_grants_cover_leaves_overage_alone(billed: LuaShard) -> None:
    assert admit(billed, ONE, amount=10)[3:5] == [-3, "12:10"]
    assert settle(billed, 4, ONE)[5:7] == [3, "12:4"]
    assert carried(billed).flags == ""


def test_no_call_holds_more_than_the_overage_cap_leaves(billed: LuaShard) -> None:
    refused = admit(billed, ONE, amount=58)
    assert (refused[0], refused[3:]) == ("CREDITS", [57, 0])
    assert admit(billed, ONE, amount=57)[3] == -50
    refused = admit(billed, TWO, amount=1)
    assert (refused[0], refused[3:]) == ("CREDITS", [0, 57])
    assert admit(billed, TWO, amount=0)[3] == -50
    assert void(billed, ONE)[3] == 7


def test_what_is_owed_beyond_the_hold_ends_at_the_overage_cap(billed: LuaShard) -> None:
    admit(billed, ONE, amount=1)
    assert settle(billed, 70, ONE)[3:7] == [57, 13, -50, "12:10 99o:47"]
    assert late(billed, 5, TWO)[3:6] == [0, 5, -50]
    assert lot(billed, 99) == [0, 0, 50, 0]


def test_overage_alone_serves_an_account_without_grants(open_shard: LuaShard) -> None:
    load(open_shard, overage={99: 5})
    assert admit(open_shard, ONE, amount=4)[3:5] == [-4, "99o:4"]
    assert admit(open_shard, TWO, amount=2)[0] == "CREDITS"


def test_overage_ends_with_its_period(open_shard: LuaShard) -> None:
    load(open_shard, lots={12: 1}, overage={99: 50}, expires_ms={99: NOW_MS + 1})
    assert admit(open_shard, ONE, amount=2)[0] == "OK"
    open_shard.set_clock(NOW_US + 1000)
    refused = admit(open_shard, TWO, amount=2)
    assert (refused[0], refused[3:]) == ("CREDITS", [0, 1])
    assert settle(open_shard, 2, ONE)[5:7] == [0, "12:1 99o:1"]  # what it held it still pays


def test_only_a_late_debit_may_use_room_in_overage(billed: LuaShard) -> None:
    assert withdraw(billed, ONE, "adjust", "", 30)[3:6] == [10, -3, "12:10"]
    assert withdraw(billed, TWO, "late", "", 30)[3:6] == [30, -33, "99o:30"]
    assert lot(billed, 99) == [17, 0, 33, 0]
    assert withdraw(billed, THREE, "expire", 99)[3:5] == [17, -50]  # its period is over

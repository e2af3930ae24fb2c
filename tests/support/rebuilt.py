"""What a shard must hold after a rebuild: Postgres plus the holds that are live, field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.limits import month_end_ms
from policies.rebuild import parse_hold, rebuild_account

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from tests.support.calls import Caller

# What no seed says: where calls stand in their rate, and under which epoch the account was loaded.
OWN_FIELDS = ("epoch", "tat", "month_end", "month")


async def assert_rebuilt(
    ledger: Ledger,
    counters: Counters,
    people: Iterable[Caller],
    calls: Iterable[str],
    *,
    counts: bool = True,
) -> None:
    """Exactly these calls hold, and each account is what Postgres has less its holds.

    Without `counts` quotas and caps are left out. Until an account is loaded again, a call that was
    undone counts there, and one that was charged without its hold does not.
    """
    live: dict[str, str] = {}
    for who in people:
        seen = await counters.inspect(who.keys)
        live |= seen.holds
        state = await ledger.account_state(who.account_id)
        assert state is not None
        expected, rewritten = rebuild_account(state, seen.holds)
        assert rewritten == {}
        assert seen.fields["epoch"] == str(seen.epoch)
        wanted = {name: str(value) for name, value in expected.items() if name not in OWN_FIELDS}
        for lot in str(expected["lots"]).split():
            wanted.setdefault(f"h:{lot.removesuffix('o')}", "0")
        found = {name: value for name, value in seen.fields.items() if name not in OWN_FIELDS}
        if not counts:
            found = {name: value for name, value in found.items() if not _counts(name)}
            wanted = {name: value for name, value in wanted.items() if not _counts(name)}
        assert found == wanted
        month_end = int(seen.fields["month_end"])
        assert month_end in (0, month_end_ms(int(month_end) - 1))
    assert live.keys() == set(calls)
    texts = [parse_hold(text) for text in live.values()]
    assert all(hold.allocation or not hold.held for hold in texts)


def _counts(field: str) -> bool:
    return field == "count" or "." in field

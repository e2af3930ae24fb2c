"""What an account gets off every price, and what of its period its prices have to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.ledger.periods import AccountChange
from policies.catalog import MeterSpec, Plan, Platform, Price, Route, Source, Table, Tier

if TYPE_CHECKING:
    from gateway.ledger import Ledger

PLAIN = Plan("plain", 0)
PARTNER = Plan("partner", 0, discount_basis_points=1_500)
CALLS = MeterSpec("call", (Source("response.json", "/n"),), 0, 1)
FLAT = Route("flat", (), "/flat", "http://a:1", Price(meters=(CALLS,)))
GRADUATED = MeterSpec("call", CALLS.sources, 0, 1, (Tier(10, 5), Tier(None, 4)))
TABLE = Table(Source("request.json", "/model"), {"big": Price(meters=(GRADUATED,))})
BY_MODEL = Route("by-model", (), "/by-model", "http://a:1", Price(meters=(CALLS,), table=TABLE))
TIERED = Route("tiered", (), "/tiered", "http://a:1", Price(meters=(GRADUATED,)))


async def account(ledger: Ledger, plan: str | None, *routes: Route) -> int:
    report = await ledger.apply_catalog(Platform("demo"), (PLAIN, PARTNER), (FLAT, *routes))
    account_id = await ledger.create_account(report.platform_id, "alice", plan)
    assert account_id is not None
    await ledger.create_key(
        account_id,
        name="ci",
        prefix="tk_dev_ab",
        last4="wxyz",
        pepper_version=1,
        digest=b"one",
    )
    return account_id


async def discounts(ledger: Ledger, account_id: int) -> tuple[int, str]:
    """As a worker and as Redis are told it."""
    key = await ledger.find_key(b"one")
    state = await ledger.account_state(account_id)
    assert key is not None
    assert state is not None
    return key.discount, str(state["rules"])


@pytest.mark.parametrize(
    ("plan", "basis_points", "rules"),
    [(None, 0, ""), ("plain", 0, ""), ("partner", 1_500, "dp:1500")],
)
async def test_without_one_of_its_own_an_account_has_its_plans_discount(
    ledger: Ledger, plan: str | None, basis_points: int, rules: str
) -> None:
    account_id = await account(ledger, plan)
    assert await discounts(ledger, account_id) == (basis_points, rules)


@pytest.mark.parametrize("plan", [None, "plain", "partner"])
async def test_an_accounts_own_discount_stands_in_for_its_plans_until_it_is_taken_back(
    ledger: Ledger, plan: str | None
) -> None:
    account_id = await account(ledger, plan)
    before = await discounts(ledger, account_id)

    assert await ledger.change_account(1, account_id, AccountChange(discount_basis_points=2_000))
    assert await discounts(ledger, account_id) == (2_000, "dp:2000")
    assert await ledger.change_account(1, account_id, AccountChange(discount_basis_points=0))
    assert await discounts(ledger, account_id) == (0, "")
    assert await ledger.change_account(1, account_id, AccountChange(discount_basis_points=None))
    assert await discounts(ledger, account_id) == before
    assert not await ledger.change_account(
        1, account_id + 1, AccountChange(discount_basis_points=5)
    )


@pytest.mark.parametrize("route", [TIERED, BY_MODEL])
async def test_where_a_price_is_graduated_redis_is_told_the_billing_period(
    ledger: Ledger, route: Route
) -> None:
    account_id = await account(ledger, "plain")
    assert await discounts(ledger, account_id) == (0, "")

    await ledger.apply_catalog(Platform("demo"), (PLAIN,), (route,))
    rules = (await discounts(ledger, account_id))[1]
    assert rules.startswith("pw:")
    # Not for a route that is out of service, nor another platform's.
    await ledger.apply_catalog(Platform("demo"), (PLAIN,), (FLAT,))
    assert await discounts(ledger, account_id) == (0, "")
    await ledger.apply_catalog(Platform("other"), (PLAIN,), (route,))
    assert await discounts(ledger, account_id) == (0, "")

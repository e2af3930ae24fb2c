"""`tollkeeper transactions`, `revenue` and `subscriptions`: what people see of money."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.control.api.roles import Role
from tests.support.billing_rows import BillingRows
from tests.support.stripe_desk import THANKS, opened_desk

if TYPE_CHECKING:
    from tests.support.api import Api
    from tests.support.remote_cli import Remote


@pytest_asyncio.fixture
async def rows(api: Api) -> BillingRows:
    """A payment in November, and one that failed."""
    account = api.demo.account.account_id
    made = BillingRows(api.postgres_url, api.demo.platform_id)
    await made.subscription(account)
    await made.transaction(account, [{"amount_minor": 1_000}], invoice_id="in_1")
    await made.transaction(account, status="failed", failure="No money.", paid_at=None)
    return made


async def test_payments_are_listed_shown_and_written_as_csv(
    api: Api, remote: Remote, rows: BillingRows
) -> None:
    del rows
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    found = (await remote.json("transactions", "list", "alice"))["transactions"]
    failed = (await remote("transactions", "list", "--status", "failed")).out
    text = (await remote("transactions", "list", "--csv")).out

    assert [one["status"] for one in found] == ["failed", "succeeded"]
    assert "in_1" not in failed
    listed = (await remote("transactions", "list")).out
    assert "in_1" in listed
    assert listed.splitlines()[1].split()[1] == "alice"
    assert "DISPUTED" in listed
    assert text.splitlines()[0].startswith("id,account_id,mode,kind,status,currency,amount")
    assert len(text.splitlines()) == 3
    shown = (await remote("transactions", "show", str(found[1]["id"]))).out
    assert "amount: 10.00" in shown
    assert "pro" in shown
    assert "no payment 99" in (await remote("transactions", "show", "99")).err


async def test_a_payment_says_what_was_taken_back_of_what_it_gave(
    api: Api, remote: Remote, rows: BillingRows
) -> None:
    account = api.demo.account.account_id
    paid = await rows.sql("SELECT id FROM billing_transactions WHERE status = 'succeeded'")
    grant = await rows.sql("SELECT id FROM grants WHERE account_id = $1", account)
    lot = {"grant_id": grant, "transaction_id": paid, "account_id": account}
    await rows.insert("paid_lots", **lot, microcredits=100_000_000)
    for number, amount in enumerate((70_000_000, -20_000_000)):
        await rows.insert(
            "clawbacks",
            id=f"0197{number:028}",
            account_id=account,
            transaction_id=paid,
            cause="refund",
            amount_microcredits=amount,
            parts="[]",
        )
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    shown = (await remote("transactions", "show", str(paid))).out

    assert f"It gave 100 credits (grant {grant})." in shown
    assert "50 credits went back with its money." in shown


async def test_a_month_is_shown_to_the_platform_and_to_the_account(
    api: Api, remote: Remote, rows: BillingRows
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    shown = (await remote("transactions", "statement", "alice", "--month", "2026-11")).out
    assert "Paid 10.00 eur, of which tax 0.00; paid back 0.00; open 10.00." in shown
    await rows.sql("UPDATE grants SET revoked_microcredits = 30000000")
    shown = (await remote("transactions", "statement", "alice")).out
    assert ", so far; plan: none\n" in shown
    assert "Given: 100 credits (manual), 30 taken away since." in shown
    shown = (await remote("transactions", "statement", "alice", "--month", "2026-01")).out
    assert shown.startswith("alice, 2026-01\n")
    wrong = await remote("transactions", "statement", "alice", "--month", "2026-13")
    assert 'write it as "2026-11"' in wrong.err

    await remote.log_in(api.demo.key.text)
    own = (await remote.json("transactions", "statement"))["statement"]
    assert own["account"] == "alice"
    assert [one["status"] for one in (await remote.json("transactions", "list"))["transactions"]]


async def test_revenue_is_shown_by_month_by_product_and_in_metrics(
    api: Api, remote: Remote, rows: BillingRows
) -> None:
    del rows
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    since = ("--since", "2026-11-01", "--until", "2026-11-30")
    (point,) = (await remote.json("revenue", "show", *since))["revenue"]
    (sold,) = (await remote.json("revenue", "products", *since))["products"]
    (eur,) = (await remote.json("revenue", "metrics", "--month", "2026-10"))["metrics"]
    metrics = (await remote("revenue", "metrics", "--month", "2026-10")).out

    assert (point["gross"], sold["net"], eur["mrr"]) == ("10.00", "10.00", "10.00")
    assert "10.00" in (await remote("revenue", "show", *since)).out
    assert "pro" in (await remote("revenue", "products", *since)).out
    assert "customer churn %" in metrics
    assert "at,currency,payments" in (await remote("revenue", "show", "--csv", *since)).out
    assert (await remote("revenue", "show", "--by", "week")).code == 2
    assert (await remote("revenue", "show", "--by", "week", "--csv")).code == 2


@pytest.mark.parametrize("what", ["show", "products"])
@pytest.mark.parametrize("when", ["abc", "-5d"])
@pytest.mark.parametrize("option", ["--since", "--until"])
async def test_a_time_that_is_none_is_said_to_be_none(
    api: Api, remote: Remote, what: str, when: str, option: str
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    for words in ((), ("--csv",)):
        wrong = await remote("revenue", what, option, when, *words)
        assert (wrong.code, f'"{when}" is neither a duration' in wrong.err) == (2, True)


async def test_where_nothing_came_in_it_is_said_in_which_mode(
    api: Api, remote: Remote, rows: BillingRows
) -> None:
    await remote.log_in(api.demo.tokens[Role.VIEWER])
    since = ("--since", "2026-11-01", "--until", "2026-11-30")
    for words in (("show", *since), ("products", *since), ("metrics", "--month", "2026-10")):
        told = (await remote("revenue", *words, "--mode", "test")).out
        assert "in test mode. In live mode there is something: --mode live." in told, words
        await rows.insert(
            "stripe_settings", livemode=False, secret_key="secret:x", webhook_secrets=[]
        )
        assert (await remote("revenue", *words)).out == told, words
        await rows.sql("DELETE FROM stripe_settings")
    before = ("--since", "2025-01-01", "--until", "2025-01-31")
    told = (await remote("revenue", "show", *before)).out
    assert told.endswith("nothing went back, in live mode or in test mode.\n")
    told = (await remote("revenue", "show", *before, "--mode", "test")).out
    assert told.endswith("nothing went back, in test mode.\n")


async def test_a_subscription_is_bought_changed_and_ended(api: Api, remote: Remote) -> None:
    async with opened_desk(api) as desk:
        await remote.log_in(api.demo.tokens[Role.EDITOR])
        page = await remote.json("subscriptions", "subscribe", "pro", "--account", "alice")
        await desk.pay(page["checkout"])
        shown = (await remote("subscriptions", "show", "alice")).out
        assert "Plan: pro (active)." in shown
        assert "1000 of 1000 credits left, and 100 of other grants." in shown

        changed = (await remote("subscriptions", "change", "max", "--account", "alice")).out
        assert changed.startswith("It is changed.\nPlan: max (active).")
        later = await remote("subscriptions", "change", "pro", "--account", "alice")
        assert later.out.startswith("It changes at ")
        undone = (await remote("subscriptions", "undo-change", "alice")).out
        assert undone.startswith("The change is dropped: the subscription goes on as it is.\n")
        undone = (await remote("subscriptions", "undo-change", "alice")).out
        assert undone.startswith("There was no change to drop")

        assert (await remote("subscriptions", "cancel", "alice")).out.startswith("It ends at ")
        assert "Plan: max (active)." in (await remote("subscriptions", "resume", "alice")).out
        pack = await remote("subscriptions", "buy", "small", "--account", "alice")
        assert pack.out.startswith(desk.fake.url)
        portal = await remote("subscriptions", "portal", "alice", "--return-url", THANKS)
        assert portal.out.startswith(desk.fake.url)


async def test_an_account_does_it_for_itself(api: Api, remote: Remote) -> None:
    async with opened_desk(api) as desk:
        await remote.log_in(api.demo.tokens[Role.ADMIN])
        page = await remote.json("subscriptions", "subscribe", "pro", "--success-url", THANKS)
        await desk.pay(page["checkout"])

        assert "Plan: pro (active)." in (await remote("subscriptions", "show")).out
        refused = await remote("subscriptions", "subscribe", "max")
        assert (refused.code, "change it" in refused.err) == (2, True)


async def test_without_stripe_it_is_said_what_to_set(api: Api, remote: Remote) -> None:
    await remote.log_in(api.demo.tokens[Role.ADMIN])

    assert "Plan: none (none)." in (await remote("subscriptions", "show")).out
    refused = await remote("subscriptions", "subscribe", "pro")
    assert "tollkeeper stripe set" in refused.err

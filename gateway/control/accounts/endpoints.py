"""What can be done with accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.accounts.models import (
    Account,
    AccountChange,
    Accounts,
    AccountsQuery,
    NewAccount,
)
from gateway.control.api.cursors import read_id_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.problems import conflict, invalid_field
from gateway.control.api.roles import EDITORS, VIEWERS
from gateway.operations import accounts
from policies.units import format_percent, parse_percent

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.rows import AccountRow

PATH = "/v1/accounts"
ONE = f"{PATH}/{{account_id}}"


def document(row: AccountRow) -> Account:
    """The account's document."""
    discount = row.discount_basis_points
    return Account(
        id=row.account_id,
        name=row.name,
        status=row.status,  # type: ignore[arg-type] # the table's own check
        plan=row.plan_slug,
        discount_percent=None if discount is None else format_percent(discount),
        created_at=row.created_ms,
    )


async def create(ask: Ask, body: NewAccount) -> Account:
    """Make one, with its first credits."""
    if body.plan is not None:
        await _check_plan(ask, body.plan)
    if await ask.ledger.find_account(ask.platform_id, body.name) is not None:
        raise conflict("name_taken", f'The name "{body.name}" is taken: choose another.')
    made = await accounts.create_account(
        ask.ledger, ask.platform_id, body.name, plan=body.plan, microcredits=body.credits
    )
    return document(made.account)


async def read(ask: Ask) -> Account:
    """One of them."""
    return document(await ask.account())


async def read_list(ask: Ask, query: AccountsQuery) -> Accounts:
    """All, oldest first."""
    page = await ask.ledger.accounts_page(
        ask.platform_id,
        after_id=read_id_cursor(query.cursor),
        limit=query.limit,
        status=query.status,
        plan=query.plan,
        name_prefix=query.name,
    )
    return Accounts(
        data=[document(row) for row in page],
        next_cursor=write_cursor(page[-1].account_id) if len(page) == query.limit else None,
    )


async def change(ask: Ask, body: AccountChange) -> Account:
    """Suspend or resume it, put it on a plan, give it a discount: from its very next call."""
    account = await ask.account()
    told = body.model_fields_set
    if "status" in told and body.status is not None:
        await accounts.set_status(ask.ledger, ask.counters, account, body.status)
    if "plan" in told and body.plan is not None:
        await _check_plan(ask, body.plan)
        await accounts.set_plan(ask.ledger, ask.counters, account, body.plan)
    if "discount_percent" in told:
        text = body.discount_percent
        basis_points = None if text is None else parse_percent(text)
        await accounts.set_discount(ask.ledger, ask.counters, account, basis_points)
    return await read(ask)


async def _check_plan(ask: Ask, slug: str) -> None:
    if slug not in {plan.slug for plan in await ask.ledger.plans(ask.platform_id)}:
        raise invalid_field("plan", f'There is no plan "{slug}".')


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Make an account", EDITORS, create,
        body=NewAccount, answers=Account, status=201, creates=True,
    ),
    Endpoint(
        "GET", PATH, "List accounts", VIEWERS, read_list,
        query=AccountsQuery, answers=Accounts, exports=True,
    ),
    Endpoint("GET", ONE, "Read an account", VIEWERS, read, answers=Account),
    Endpoint(
        "PATCH", ONE, "Change an account", EDITORS, change,
        body=AccountChange, answers=Account, reads=read,
    ),
)  # fmt: skip

"""What can be done with accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.accounts.documents import account_document, balance_document, limits_document
from gateway.control.accounts.models import (
    Account,
    AccountPatch,
    Accounts,
    AccountsQuery,
    Balance,
    Limits,
    LimitsQuery,
    NewAccount,
)
from gateway.control.api.cursors import next_cursor, read_id_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.problems import conflict, invalid_field, not_found
from gateway.control.api.roles import EDITORS, MEMBERS, VIEWERS
from gateway.ledger.periods import AccountChange
from gateway.operations import accounts
from gateway.operations.errors import UsageError
from gateway.operations.standing import allowance_of, balance_of
from policies.units import parse_percent

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.control.api.problems import Problem

PATH = "/v1/accounts"
ONE = f"{PATH}/{{account_id}}"


async def create(ask: Ask, body: NewAccount) -> Account:
    """Make one, with its first credits."""
    where, credits_ = (ask.ledger, ask.platform_id), body.credits
    if body.plan is not None:
        await _check_plan(ask, body.plan)
    try:
        if body.plan is None:
            made = await accounts.sign_up(*where, body.name, microcredits=credits_)
        else:
            made = await accounts.create_account(
                *where, body.name, plan=body.plan, microcredits=credits_
            )
    except accounts.NameTakenError as error:
        raise _taken(error) from None
    return account_document(made.account)


async def read(ask: Ask) -> Account:
    """One of them."""
    return account_document(await ask.account())


async def read_list(ask: Ask, query: AccountsQuery) -> Accounts:
    """All, oldest first."""
    page = await ask.ledger.accounts_page(
        ask.platform_id,
        status=query.status,
        plan_slug=query.plan,
        name_prefix=query.name,
        after=read_id_cursor(query.cursor),
        limit=query.limit,
    )
    return Accounts(
        data=[account_document(row) for row in page.rows],
        next_cursor=next_cursor(page.after),
    )


async def change(ask: Ask, body: AccountPatch) -> Account:
    """Rename it, suspend or resume it, put it on a plan, give it a discount: all at once."""
    account = await ask.account()
    if body.plan is not None:
        await _check_plan(ask, body.plan)
    percent = body.discount_percent
    discount = None if percent is None else parse_percent(percent)
    told = AccountChange(
        name=body.name,
        status=body.status,
        plan_slug=body.plan,
        discount_basis_points=discount if "discount_percent" in body.model_fields_set else ...,
    )
    try:
        changed = await accounts.change_account(ask.ledger, ask.counters, account, told)
    except accounts.NameTakenError as error:
        raise _taken(error) from None
    return account_document(changed)


async def read_balance(ask: Ask) -> Balance:
    """What it has now, lot by lot."""
    return balance_document(await balance_of(ask.ledger, ask.counters, await ask.account()))


async def read_limits(ask: Ask, query: LimitsQuery) -> Limits:
    """What it may do, and how much of that is left."""
    account = await ask.account()
    if query.key_id is not None:
        key = await ask.ledger.key(ask.platform_id, query.key_id)
        if key is None or key.account_id != account.account_id:
            raise not_found("key")
    found = await allowance_of(ask.ledger, ask.counters, account, key_id=query.key_id)
    return limits_document(found, query.key_id)


async def _check_plan(ask: Ask, slug: str) -> None:
    try:
        await accounts.find_plan(ask.ledger, ask.platform_id, slug)
    except UsageError as error:
        raise invalid_field("plan", str(error)) from None


def _taken(error: accounts.NameTakenError) -> Problem:
    return conflict("name_taken", f"{error}.")


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
        body=AccountPatch, answers=Account, reads=read,
    ),
    Endpoint(
        "GET", f"{ONE}/balance", "What an account has now", VIEWERS, read_balance, answers=Balance,
    ),
    Endpoint(
        "GET", f"{ONE}/limits", "What an account's limits have left", VIEWERS, read_limits,
        query=LimitsQuery, answers=Limits,
    ),
    Endpoint("GET", "/v1/me/balance", "What I have now", MEMBERS, read_balance, answers=Balance),
    Endpoint(
        "GET", "/v1/me/limits", "What my limits have left", MEMBERS, read_limits,
        query=LimitsQuery, answers=Limits,
    ),
)  # fmt: skip

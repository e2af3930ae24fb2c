"""Accounts: create, find, change (name, status, plan, discount)."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.errors import LedgerRejected
from gateway.operations.errors import ConflictError, UsageError
from gateway.operations.publish import publish_account
from policies.units import AMOUNT_MICROCREDITS_MAX, BASIS_POINTS

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.periods import AccountChange, Trial
    from gateway.ledger.rows import AccountRow
    from policies.catalog import Plan

ACCOUNT_NAME_CHARACTERS_MAX = 200


class NameTakenError(UsageError):
    """Another account of the platform has this name."""

    def __init__(self, name: str) -> None:
        super().__init__(f'the name "{name}" is taken: choose another')


class NewAccount(NamedTuple):
    """An account just made, and what it was given."""

    account: AccountRow
    granted_microcredits: int


async def create_account(
    ledger: Ledger,
    platform_id: int,
    name: str,
    *,
    plan: str | None = None,
    microcredits: int | None = None,
    source: str = "manual",
    trial: Trial | None = None,
) -> NewAccount:
    """A new account with its first grant and, on a plan, its first period; or none of these.

    Without `microcredits` it gets what its plan gives for a period; else these, from `source` and
    for ever; 0 gives nothing. A trial comes beside them.

    Raises: UsageError for a bad or taken name, or an unknown plan.
    """
    check_account_name(name)
    amount = microcredits or 0
    if plan is not None:
        found = await find_plan(ledger, platform_id, plan)
        amount = found.credits_microcredits if microcredits is None else microcredits
    if not 0 <= amount <= AMOUNT_MICROCREDITS_MAX:
        raise UsageError("a grant is more than 0 and less than 2^53 microcredits")
    made = await ledger.create_account(
        platform_id,
        name,
        plan,
        first_microcredits=microcredits,
        first_source=source,
        trial=trial,
    )
    if made is None:
        raise NameTakenError(name)
    amount += trial.microcredits if trial else 0
    return NewAccount(await find_account(ledger, platform_id, name), amount)


async def sign_up(
    ledger: Ledger, platform_id: int, name: str, *, microcredits: int | None = None
) -> NewAccount:
    """A new account on the plan that the platform puts new accounts on, with its trial.

    Without such a plan, an account without one. With `microcredits` it gets these and nothing else.

    Raises: UsageError for a bad or taken name; ConflictError when there is no such plan any more.
    """
    terms = await ledger.signup_terms(platform_id)
    if terms is None or terms.plan_slug is None:
        return await create_account(ledger, platform_id, name, microcredits=microcredits)
    if terms.plan_slug not in {plan.slug for plan in await ledger.plans(platform_id)}:
        raise ConflictError(
            "no_signup_plan",
            f'new accounts are to be on the plan "{terms.plan_slug}", which is not there: make it, '
            "or name another as the platform's signup_plan",
        )
    return await create_account(
        ledger,
        platform_id,
        name,
        plan=terms.plan_slug,
        microcredits=microcredits,
        trial=terms.trial if microcredits is None else None,
    )


async def find_account(ledger: Ledger, platform_id: int, name: str) -> AccountRow:
    """The account of this name.

    Raises: UsageError when the platform has none; it names near ones.
    """
    account = await ledger.find_account(platform_id, name)
    if account is not None:
        return account
    names = [account.name for account in await ledger.accounts(platform_id)]
    raise UsageError(f'there is no account "{name}"{_near(name, names)}')


async def change_account(
    ledger: Ledger, counters: Counters, account: AccountRow, change: AccountChange
) -> AccountRow:
    """Change an account at once in all that is named, from its very next call; as it is then.

    A new plan begins a period with its credits, and its limits hold from now on; what earlier
    periods gave stays until its own end, but overage. An account that is on the plan already keeps
    its period. A discount of 0 is none, of None what the account's plan says; running calls keep
    their terms. Its name is what it is called by, and nothing else: keys and calls stay its own.

    Raises: UsageError for a bad or taken name, an unknown plan or a discount that is none;
    ConflictError for another plan than that of its subscription; NotToldError when Redis could not
    be told.
    """
    if change.name is not None:
        check_account_name(change.name)
    if change.plan_slug is not None:
        await find_plan(ledger, account.platform_id, change.plan_slug)
        if account.renewed_by == "subscription" and change.plan_slug != account.plan_slug:
            raise ConflictError(
                "plan_follows_subscription",
                f'the plan of "{account.name}" is that of its subscription: change or cancel that',
            )
    if isinstance(change.discount_basis_points, int):
        check_discount(change.discount_basis_points)
    try:
        changed = await ledger.change_account(account.platform_id, account.account_id, change)
    except LedgerRejected:
        raise NameTakenError(change.name or account.name) from None
    if changed is None:
        raise UsageError(f'the account "{account.name}" is gone')
    await publish_account(ledger, counters, account.account_id, changed.name)
    return changed


async def find_plan(ledger: Ledger, platform_id: int, slug: str) -> Plan:
    """The plan of this name. Raises: UsageError when there is none; it names near ones."""
    plans = {row.slug: row for row in await ledger.plans(platform_id)}
    if slug not in plans:
        raise UsageError(f'there is no plan "{slug}"{_near(slug, list(plans))}')
    return plans[slug]


def check_account_name(name: str) -> None:
    """Raises: UsageError for what can't be an account's name."""
    if not 0 < len(name) <= ACCOUNT_NAME_CHARACTERS_MAX or not name.isprintable():
        raise UsageError(
            f"an account's name is 1 to {ACCOUNT_NAME_CHARACTERS_MAX} printable characters"
        )
    if name != name.strip():
        raise UsageError("an account's name can't begin or end with a space")


def check_discount(basis_points: int) -> None:
    """Raises: UsageError for more than all of it."""
    if not 0 <= basis_points <= BASIS_POINTS:
        raise UsageError(f"a discount is from 0 to {BASIS_POINTS} ten-thousandths")


def _near(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f': did you mean "{near[0]}"?' if near else ""

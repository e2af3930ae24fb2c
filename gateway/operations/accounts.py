"""Accounts: create, find, show, suspend, resume, put on a plan, give a discount."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, NamedTuple

from gateway.clock import now_ms
from gateway.counters.errors import CountersUnavailable
from gateway.ledger.errors import LedgerRejected
from gateway.operations.errors import UsageError
from gateway.operations.publish import publish_account
from policies.units import AMOUNT_MICROCREDITS_MAX, BASIS_POINTS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.periods import AccountChange
    from gateway.ledger.rows import AccountRow, GrantRow, KeyListRow
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


class LiveBalance(NamedTuple):
    """What Redis has of an account at this moment, over its lots; in microcredits.

    `available` is what the lots have that may pay now, less what is owed or held in overage: below
    0 while the account owes.
    """

    available_microcredits: int
    held_microcredits: int
    settled_microcredits: int
    running: int


class AccountReport(NamedTuple):
    """Everything about one account. `live` is None when no call was made since Redis started."""

    account: AccountRow
    grants: list[GrantRow]
    keys: list[KeyListRow]
    live: LiveBalance | None


async def create_account(
    ledger: Ledger,
    platform_id: int,
    name: str,
    *,
    plan: str | None = None,
    microcredits: int | None = None,
    source: str = "manual",
) -> NewAccount:
    """A new account with its first grant and, on a plan, its first period; or none of these.

    Without `microcredits` it gets what its plan gives for a period; else these, from `source` and
    for ever; 0 gives nothing.

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
        platform_id, name, plan, first_microcredits=microcredits, first_source=source
    )
    if made is None:
        raise NameTakenError(name)
    return NewAccount(await find_account(ledger, platform_id, name), amount)


async def find_account(ledger: Ledger, platform_id: int, name: str) -> AccountRow:
    """The account of this name.

    Raises: UsageError when the platform has none; it names near ones.
    """
    account = await ledger.find_account(platform_id, name)
    if account is not None:
        return account
    names = [account.name for account in await ledger.accounts(platform_id)]
    raise UsageError(f'there is no account "{name}"{_near(name, names)}')


async def show_account(
    ledger: Ledger, counters: Counters, platform_id: int, name: str
) -> AccountReport:
    """The account, its grants and keys from Postgres, and its balance in Redis at this moment.

    Raises: UsageError when there is no such account.
    """
    account = await find_account(ledger, platform_id, name)
    grants = await ledger.grants(account.account_id)
    return AccountReport(
        account,
        grants,
        await ledger.keys(platform_id, account.account_id),
        await _live_balance(counters, account.account_id, grants),
    )


async def change_account(
    ledger: Ledger, counters: Counters, account: AccountRow, change: AccountChange
) -> AccountRow:
    """Change an account at once in all that is named, from its very next call; as it is then.

    What `set_status`, `set_plan` and `set_discount` say of each holds. Its name is what it is
    called by, and nothing else: keys and calls stay its own.

    Raises: UsageError for a bad or taken name, an unknown plan or a discount that is none;
    NotToldError when Redis could not be told.
    """
    if change.name is not None:
        check_account_name(change.name)
    if change.plan_slug is not None:
        await find_plan(ledger, account.platform_id, change.plan_slug)
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


async def set_status(ledger: Ledger, counters: Counters, account: AccountRow, status: str) -> None:
    """Suspend or resume an account ("suspended", "active"), from the very next call.

    Raises: NotToldError when Redis could not be told.
    """
    await ledger.set_account_status(account.account_id, status)
    await publish_account(ledger, counters, account.account_id, account.name)


async def set_plan(
    ledger: Ledger, counters: Counters, account: AccountRow, plan: str
) -> AccountRow:
    """Put an account on a plan: a period begins with its credits, its limits hold from now on.

    What earlier periods gave stays until its own end, but overage. An account that is on the plan
    already keeps its period.

    Raises: UsageError for an unknown plan; NotToldError when Redis could not be told.
    """
    await find_plan(ledger, account.platform_id, plan)
    if not await ledger.set_account_plan(account.account_id, plan):
        raise UsageError(f'the account "{account.name}" is gone')
    await publish_account(ledger, counters, account.account_id, account.name)
    return await find_account(ledger, account.platform_id, account.name)


async def set_discount(
    ledger: Ledger, counters: Counters, account: AccountRow, basis_points: int | None
) -> AccountRow:
    """Take so much off every price for this account, from its next call on.

    0 is no discount, None what the account's plan says. Running calls keep their terms.

    Raises: UsageError for more than all of it; NotToldError when Redis could not be told.
    """
    if basis_points is not None:
        check_discount(basis_points)
    if not await ledger.set_account_discount(account.account_id, basis_points):
        raise UsageError(f'the account "{account.name}" is gone')
    await publish_account(ledger, counters, account.account_id, account.name)
    return account._replace(discount_basis_points=basis_points)


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


async def _live_balance(
    counters: Counters, account_id: int, grants: Sequence[GrantRow]
) -> LiveBalance | None:
    try:
        seen = await counters.inspect(counters.keys(account_id))
    except CountersUnavailable:
        return None
    if not seen.epoch or int(seen.fields.get("epoch", 0)) != seen.epoch:
        return None
    held, settled = (
        sum(int(value) for name, value in seen.fields.items() if name.startswith(kind))
        for kind in ("h:", "s:")
    )
    credited = {grant.grant_id: grant.credited_microcredits for grant in grants}
    available = _available(seen.fields, credited, now_ms())
    return LiveBalance(available, held, settled, int(seen.fields["running"]))


def _available(fields: Mapping[str, str], credited: Mapping[int, int], moment_ms: int) -> int:
    """What the lots have that may pay at a moment; a lot of overage counts as what it owes.

    Of that, Redis does not know what was refunded since.
    """
    available = 0
    for token in fields["lots"].split():
        lot = token.removesuffix("o")
        expires_ms = int(fields[f"e:{lot}"])
        if int(fields[f"f:{lot}"]) > moment_ms or 0 < expires_ms <= moment_ms:
            continue
        if token == lot:
            available += int(fields[f"a:{lot}"])
        else:
            available -= sum(int(fields[f"{kind}:{lot}"]) for kind in "hsw")
            available += credited.get(int(lot), 0)
    return available


def _near(name: str, names: list[str]) -> str:
    near = get_close_matches(name, names, n=1)
    return f': did you mean "{near[0]}"?' if near else ""

"""Plans that people make by the API: read as the config's are, and followed from the next call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config import Problem
from gateway.config.documents import merged, read_plan_document
from gateway.config.writing import plan_document
from gateway.ledger import BY_API, BY_CONFIG, LedgerRejected
from gateway.operations.documents import managed_by_config, managed_elsewhere
from gateway.operations.errors import ConflictError, DocumentError, UnknownError
from gateway.operations.publish import publish_accounts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.offerings import PlanUse, StoredPlan
    from gateway.operations.documents import Written
    from policies.catalog import Plan


async def find_plan(ledger: Ledger, platform_id: int, slug: str) -> StoredPlan:
    """The platform's plan of this slug.

    Raises: UnknownError.
    """
    stored = await ledger.plan(platform_id, slug)
    if stored is None:
        raise UnknownError("plan", slug)
    return stored


async def create_plan(ledger: Ledger, platform_id: int, written: Written) -> StoredPlan:
    """A new plan.

    Raises: DocumentError with all mistakes; ConflictError for a slug that is taken.
    """
    plan = _read(written, written.content)
    if not await ledger.create_plan(platform_id, plan):
        raise ConflictError("name_taken", f'there is a plan "{plan.slug}": choose another slug')
    return await find_plan(ledger, platform_id, plan.slug)


async def change_plan(
    ledger: Ledger, counters: Counters, platform_id: int, slug: str, patch: Written
) -> StoredPlan:
    """Change a plan by a merge patch: the next call of its accounts follows it.

    Accounts are told also where nothing is different, so that a repeated change mends what Redis
    could not be told before.

    Raises: UnknownError, DocumentError, ConflictError; AccountsNotToldError.
    """
    stored = await _own(ledger, platform_id, slug)
    plan = _read(patch, merged(plan_document(stored.plan), patch.content))
    if plan.slug != slug:
        raise DocumentError([Problem("slug", "stays as it is: accounts' settings name it")])
    if not await ledger.change_plan(platform_id, plan):
        raise UnknownError("plan", slug)  # it was deleted at this moment
    account_ids = await ledger.account_ids_of_plan(platform_id, slug)
    await publish_accounts(ledger, counters, account_ids)
    return await find_plan(ledger, platform_id, slug)


async def delete_plan(ledger: Ledger, platform_id: int, slug: str) -> None:
    """Delete a plan that no account has, and none is put on when it is made.

    One of Stripe's goes when its products do not say it any more.

    Raises: UnknownError, ConflictError.
    """
    stored = await find_plan(ledger, platform_id, slug)
    if stored.managed_by == BY_CONFIG:
        raise managed_by_config("plan", slug)
    try:
        deleted = await ledger.delete_plan(platform_id, slug)
    except LedgerRejected:
        deleted = False  # an account was put on it at this moment
    if not deleted:
        raise ConflictError("in_use", _uses(slug, await ledger.plan_use(platform_id, slug)))


async def _own(ledger: Ledger, platform_id: int, slug: str) -> StoredPlan:
    """A plan that the API manages."""
    stored = await find_plan(ledger, platform_id, slug)
    if stored.managed_by != BY_API:
        raise managed_elsewhere("plan", slug, stored.managed_by)
    return stored


def _uses(slug: str, use: PlanUse) -> str:
    """What keeps a plan, and what to do about it."""
    told = []
    if use.has_accounts:
        told.append(f'accounts have the plan "{slug}": put them on another first')
    if use.has_subscriptions:
        told.append(
            f'subscriptions that are not over are for the plan "{slug}": what is paid for them '
            "would give nothing; leave its prices out, and it is not sold any more"
        )
    if use.is_signup:
        told.append(f'new accounts get the plan "{slug}": choose another signup_plan first')
    if use.product_ids:
        products = ", ".join(use.product_ids)
        told.append(f'at Stripe {products} says the plan "{slug}": archive it there first')
    return "; ".join(told) or f'the plan "{slug}" was just in use: try again'


def _read(written: Written, document: Mapping[str, Any]) -> Plan:
    plan, problems = read_plan_document(document)
    written.check(problems)
    return plan

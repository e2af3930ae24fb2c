"""Gives a platform its Stripe, and takes it away: what owners do by the API.

Settings are written as the owner, whom the audit log names; keys are opened by books that are bound
to no tenant, because no owner may read a secret back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from gateway.config import ConfigError, Problem
from gateway.config.stripe import read_stripe_document
from gateway.ledger.rows import BY_API
from gateway.operations.documents import MANAGED_BY_CONFIG
from gateway.operations.errors import ConflictError, DocumentError
from gateway.stripe_sync.errors import KeysMissingError, NotSetUpError
from gateway.stripe_sync.settings import keys_of

if TYPE_CHECKING:
    from gateway.identity.seal import Sealer
    from gateway.ledger import Ledger
    from gateway.ledger.stripe_settings import StoredStripe
    from gateway.operations.documents import Written
    from gateway.stripe_sync.sync import Billing


class Found(NamedTuple):
    """Settings, and why they can't be used; None: they can."""

    stored: StoredStripe
    problem: str | None


async def find_stripe(ledger: Ledger, billing: Billing, platform_id: int) -> Found:
    """Which Stripe the platform has.

    Raises: NotSetUpError.
    """
    problem = None
    try:
        await billing.source.settings(platform_id)  # notes the key's mode, should it have changed
    except KeysMissingError as error:
        problem = str(error)
    stored = await ledger.stripe_settings(platform_id)
    if stored is None:
        raise NotSetUpError(await billing.ledger.platform_slug(platform_id) or "")
    return Found(stored, problem)


async def set_stripe(
    ledger: Ledger, billing: Billing, sealer: Sealer, platform_id: int, written: Written
) -> None:
    """Let the platform have the Stripe that a document describes.

    Raises: DocumentError with all mistakes, missing secrets included; ConflictError where the
    config describes it.
    """
    await _check_own(ledger, platform_id)
    table, problems = read_stripe_document(written.content)
    written.check(problems)
    try:
        keys = await keys_of(billing.ledger, sealer, platform_id, table)
    except ConfigError as error:
        raise DocumentError(
            [Problem(one.where.removeprefix("stripe."), one.message) for one in error.problems]
        ) from None
    await ledger.save_stripe_settings(platform_id, table, livemode=keys.livemode, managed_by=BY_API)
    billing.source.forget(platform_id)


async def unset_stripe(ledger: Ledger, billing: Billing, platform_id: int) -> None:
    """Take the platform's Stripe away. What was bought stays.

    Raises: NotSetUpError; ConflictError where the config describes it.
    """
    await _check_own(ledger, platform_id)
    if not await ledger.delete_stripe_settings(platform_id, BY_API):
        raise NotSetUpError(await billing.ledger.platform_slug(platform_id) or "")
    billing.source.forget(platform_id)


async def _check_own(ledger: Ledger, platform_id: int) -> None:
    stored = await ledger.stripe_settings(platform_id)
    if stored is not None and stored.managed_by != BY_API:
        raise ConflictError(
            MANAGED_BY_CONFIG,
            "the platform's Stripe is described by the config file: change its [stripe] table, "
            'then run "tollkeeper apply"',
        )

"""Moves what time alone moves of subscriptions; Stripe's events tell of everything else.

    what                                          how
    --------------------------------------------  ------------------------------------------------
    an unpaid subscription reaches its next stage  it is looked at at Stripe again, for it may have
                                                   been paid; then all is decided anew
    a month of a yearly price is over              the books say which one is now: decided anew
    a subscription's own period has been over      its event was lost: it is looked at again
    for long
    a superseded one is still live, and is not     refunded and cancelled (superseded.py)
    to be

Each is done by whoever comes first and changes nothing when done again, so every node does this.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from gateway.ledger import LedgerRejected, LedgerUnavailable
from gateway.stripe_sync.deciding import decide_account
from gateway.stripe_sync.errors import NeedsMendingError, NotSetUpError, StripeTroubleError
from gateway.stripe_sync.subscriptions import see_to_subscription
from gateway.stripe_sync.superseded import cancel_superseded
from policies.dunning import Unpaid, stage_at, with_another

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from gateway.ledger.subscriptions import UnpaidRow
    from gateway.stripe_sync.sync import Billing, Sync

INTERVAL_S = 60.0
# Stripe tells of a new period within seconds.
STALE_MS = 600_000

log = logging.getLogger("tollkeeper.jobs")


class Dunning:
    """Looks at every platform's subscriptions."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing
        self._ledger = billing.ledger

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("dunning", self.look, INTERVAL_S)

    async def look(self) -> int:
        """One round; answers how many subscriptions and accounts were seen to.

        One's trouble, and one platform's, is its own. Raises: LedgerUnavailable.
        """
        seen = 0
        for stored in await self._ledger.all_stripe_settings():
            try:
                sync = await self._billing.sync(stored.platform_id)
            except NotSetUpError:
                continue  # its settings were taken away at this moment
            except NeedsMendingError as error:
                log.warning("subscriptions of %s can't be looked at: %s", stored.slug, error)
                continue
            seen += await look_at_platform(sync)
        return seen


async def look_at_platform(sync: Sync) -> int:
    """The same for one platform."""
    mode = sync.mode
    seen = 0
    after = 0
    while page := await sync.ledger.unpaid_subscriptions(mode, after):
        for row in page:
            after = row.id
            if _has_moved(sync, row):
                seen += await _tried(see_to_subscription(sync, row.stripe_id), row.stripe_id)
    for over in await sync.ledger.subscribed_periods_over(mode, stale_ms=STALE_MS):
        if over.is_stale:
            seen += await _tried(see_to_subscription(sync, over.stripe_id), over.stripe_id)
        elif not over.is_over:
            seen += await _tried(decide_account(sync, over.account_id), over.stripe_id)
    await _tried(cancel_superseded(sync), "superseded subscriptions")
    return seen


def _has_moved(sync: Sync, row: UnpaidRow) -> bool:
    unpaid = Unpaid(row.unpaid_invoice_id, row.failures, row.unpaid_since_ms)
    stage = stage_at(unpaid, row.now_ms, sync.options.dunning)
    return with_another(stage, is_served=row.is_served).value != row.dunning_stage


async def _tried(work: Awaitable[object], what: str) -> bool:
    """Whether it was done. One that can't be seen to must not keep others from it."""
    try:
        await work
    except (StripeTroubleError, NeedsMendingError, LedgerRejected) as error:
        log.warning("%s can't be seen to: %s", what, error)
        return False
    except (LedgerUnavailable, CountersUnavailable):
        raise
    except Exception:
        log.exception("%s can't be seen to", what)
        return False
    return True

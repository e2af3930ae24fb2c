"""Bills overage that no event has put on an invoice, and what was begun and not finished.

An invoice that is drawn up tells of itself, and the period's overage goes on it at once
(gateway/stripe_sync/overage.py). This does the same where the event did not come, and sees to what
has no such invoice: periods that were cut short, subscriptions that ended, calls that were settled
after their period was billed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from gateway.counters import CountersUnavailable
from gateway.jobs.rounds import repeat
from gateway.ledger import LedgerUnavailable
from gateway.stripe_sync.errors import NeedsMendingError, NotSetUpError, StripeTroubleError
from gateway.stripe_sync.overage import ASKING_MS_MAX, bill_overage
from policies.spans import DAY_MS

if TYPE_CHECKING:
    from gateway.ledger.overage import DueOverage
    from gateway.stripe_sync.sync import Billing, Sync

INTERVAL_S = 60.0
PAGE_ACCOUNTS_MAX = 500
# Lots outlast their period by the platform's bridge, which is at most this.
AHEAD_MS = DAY_MS
# Overage of a period that ended before this is not billed any more: nobody would expect it.
GIVEN_UP_MS = 90 * DAY_MS

log = logging.getLogger("tollkeeper.jobs")


class Overage:
    """Bills what is due, account by account."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing
        self._ledger = billing.ledger

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("overage", self.bill, INTERVAL_S)

    async def bill(self) -> int:
        """One round; answers how many accounts were seen to. One's failure is its own.

        Raises: LedgerUnavailable, CountersUnavailable.
        """
        seen = after = 0
        syncs: dict[int, Sync | None] = {}
        await self._ledger.overage_done(GIVEN_UP_MS)
        while page := await self._ledger.overage_accounts(
            after, PAGE_ACCOUNTS_MAX, ahead_ms=AHEAD_MS, begun_ms=ASKING_MS_MAX
        ):
            for due in page:
                after = due.account_id
                if due.platform_id not in syncs:
                    syncs[due.platform_id] = await self._sync(due.platform_id)
                sync = syncs[due.platform_id]
                if sync is not None:
                    seen += await _bill(sync, due)
        return seen

    async def _sync(self, platform_id: int) -> Sync | None:
        try:
            return await self._billing.sync(platform_id)
        except NotSetUpError:
            return None
        except NeedsMendingError as error:
            log.warning("overage of platform %d can't be billed: %s", platform_id, error)
            return None


async def _bill(sync: Sync, due: DueOverage) -> bool:
    """Whether the account was seen to. Before its period is over there is nothing to be seen."""
    if due.expires_ms - sync.options.bridge_ms > due.now_ms:
        return False
    try:
        await bill_overage(sync, due.account_id)
    except StripeTroubleError as error:
        log.warning("overage of account %d can't be billed: %s", due.account_id, error)
        return False
    except (LedgerUnavailable, CountersUnavailable):
        raise
    except Exception:
        log.exception("overage of account %d can't be billed", due.account_id)
        return False
    return True

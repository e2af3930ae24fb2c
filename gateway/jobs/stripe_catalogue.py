"""Looks at every platform's products and prices at Stripe from time to time.

Events tell of changes as they are made. This finds what they did not tell: products of before the
platform had Stripe here, and changes whose events were lost.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from gateway.jobs.rounds import repeat
from gateway.ledger import LedgerUnavailable
from gateway.stripe_sync.errors import NeedsMendingError, NotSetUpError, StripeTroubleError
from gateway.stripe_sync.products import sync_catalogue

if TYPE_CHECKING:
    from gateway.stripe_sync.sync import Billing

INTERVAL_S = 600.0

log = logging.getLogger("tollkeeper.jobs")


class StripeCatalogue:
    """Takes over what is sold at Stripe, platform by platform."""

    def __init__(self, billing: Billing) -> None:
        self._billing = billing

    async def run(self) -> NoReturn:
        """Look until cancelled."""
        await repeat("Stripe's catalogue", self.look, INTERVAL_S)

    async def look(self) -> int:
        """One round; answers how many platforms were looked at. One's trouble is its own.

        Raises: LedgerUnavailable when it is not known which there are.
        """
        done = 0
        for stored in await self._billing.ledger.all_stripe_settings():
            try:
                await sync_catalogue(await self._billing.sync(stored.platform_id))
            except NotSetUpError:
                continue  # its settings were taken away at this moment
            except (StripeTroubleError, NeedsMendingError, LedgerUnavailable) as error:
                log.warning("the catalogue of %s can't be looked at: %s", stored.slug, error)
            except Exception:
                log.exception("looking at the catalogue of %s failed", stored.slug)
            else:
                done += 1
        return done

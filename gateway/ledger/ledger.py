"""The ledger: Postgres as the gateway sees it, one object with typed methods.

What can be asked stands in directory.py (a call's way), seeds.py (what Redis is loaded with),
catalog.py (config), offerings.py (what people sell), accounts.py and keys.py (people),
delegations.py (agents), lots.py and periods.py (what is given), changes.py (what else moves
credits), clawbacks.py and debts.py (what is taken back), overage.py (what is billed beyond it),
events.py (what accounts are told of), inquiries.py (single calls and grants), desk.py (commands),
answers.py (idempotency keys), books.py (calls and audit), searching.py, usage.py, revenue.py and
audit_log.py (long lists and sums), inbox.py, stripe_settings.py and stripe_products.py (Stripe),
subscriptions.py (who pays), packs.py (what is sold once), reconciling.py (against Redis), late.py
and shards.py (recovery); recorder.py writes settlements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.ledger.access import Access
from gateway.ledger.accounts import Accounts
from gateway.ledger.answers import Answers
from gateway.ledger.audit_log import AuditLog
from gateway.ledger.books import Books
from gateway.ledger.catalog import Catalog
from gateway.ledger.changes import Changes
from gateway.ledger.clawbacks import Clawbacks
from gateway.ledger.control import Control
from gateway.ledger.database import COMMAND_TIMEOUT_S, CONNECTIONS_MAX, SESSION_SETTINGS
from gateway.ledger.debts import Debts
from gateway.ledger.delegations import Delegations
from gateway.ledger.desk import Desk
from gateway.ledger.directory import Directory
from gateway.ledger.events import Events
from gateway.ledger.inbox import Inbox
from gateway.ledger.inquiries import Inquiries
from gateway.ledger.issuers import Issuers
from gateway.ledger.keys import Keys
from gateway.ledger.late import LateSettlements
from gateway.ledger.lots import Lots
from gateway.ledger.offerings import Offerings
from gateway.ledger.overage import Overage
from gateway.ledger.packs import Packs
from gateway.ledger.parked import ParkedHolds
from gateway.ledger.periods import Periods
from gateway.ledger.reconciling import Reconciling
from gateway.ledger.recorder import Recorded, Recorder
from gateway.ledger.revenue import Revenue
from gateway.ledger.sealed import Sealed
from gateway.ledger.searching import Searching
from gateway.ledger.seeds import Seeds
from gateway.ledger.shards import Shards
from gateway.ledger.stripe_products import StripeProducts
from gateway.ledger.stripe_settings import StripeSettingsBooks
from gateway.ledger.subscriptions import Subscriptions
from gateway.ledger.untold import Untold
from gateway.ledger.usage import Usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.settlement import Settlement


class Ledger(
    Directory,
    Seeds,
    Catalog,
    Offerings,
    Accounts,
    Keys,
    Delegations,
    Lots,
    Periods,
    Changes,
    Clawbacks,
    Debts,
    Overage,
    Events,
    Inquiries,
    LateSettlements,
    Answers,
    ParkedHolds,
    Shards,
    Books,
    AuditLog,
    Revenue,
    Searching,
    Usage,
    Reconciling,
    Control,
    Untold,
    Access,
    Sealed,
    Issuers,
    Inbox,
    Desk,
    Packs,
    StripeSettingsBooks,
    StripeProducts,
    Subscriptions,
):
    """One Postgres. An async context manager; `migrate` must have run on the database.

    Raises, from any method: LedgerUnavailable when Postgres can't be asked, LedgerRejected when it
    refuses a value.
    """

    def __init__(
        self,
        url: str,
        *,
        connections_max: int = CONNECTIONS_MAX,
        command_timeout_s: float = COMMAND_TIMEOUT_S,
        settings: Mapping[str, str] = SESSION_SETTINGS,
    ) -> None:
        super().__init__(
            url,
            connections_max=connections_max,
            command_timeout_s=command_timeout_s,
            settings=settings,
        )
        self._recorder = Recorder(url, self._queries["settlement_record"])

    async def __aexit__(self, *_: object) -> None:
        await self._recorder.close()
        await super().__aexit__()

    async def record_settlements(self, settlements: Sequence[Settlement]) -> Recorded:
        """Write a batch, exactly once per call: settlements, entries, grants' sums, roll-ups.

        Raises: LedgerUnavailable; part of the batch may be written. Send all of it again.
        """
        return await self._recorder.record(settlements)

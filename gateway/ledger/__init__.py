"""Postgres, the truth. See README.md."""

from gateway.ledger.catalog import (
    CATALOG_CHANNEL,
    CATALOG_SEEN_CHANNEL,
    CatalogReport,
    StoredRoute,
)
from gateway.ledger.changes import RecordedChanges, Refund, RefundRefused, SettledCall
from gateway.ledger.database import Scope
from gateway.ledger.errors import LedgerRejected, LedgerUnavailable, MigrationError
from gateway.ledger.events import EventRow
from gateway.ledger.late import TakenLate
from gateway.ledger.ledger import Ledger
from gateway.ledger.lots import EndedLot
from gateway.ledger.migrate import migrate
from gateway.ledger.periods import DueRenewal
from gateway.ledger.recorder import Recorded
from gateway.ledger.rows import (
    BY_API,
    BY_CONFIG,
    BY_STRIPE,
    AccountRow,
    GrantRow,
    KeyListRow,
    KeyRow,
    PlatformRoutes,
    PlatformRow,
    SettlementRow,
)
from gateway.ledger.seeds import SessionSpend
from gateway.ledger.tenancy import Tenancy
from gateway.ledger.writer import SettlementWriter

__all__ = [
    "BY_API",
    "BY_CONFIG",
    "BY_STRIPE",
    "CATALOG_CHANNEL",
    "CATALOG_SEEN_CHANNEL",
    "AccountRow",
    "CatalogReport",
    "DueRenewal",
    "EndedLot",
    "EventRow",
    "GrantRow",
    "KeyListRow",
    "KeyRow",
    "Ledger",
    "LedgerRejected",
    "LedgerUnavailable",
    "MigrationError",
    "PlatformRoutes",
    "PlatformRow",
    "Recorded",
    "RecordedChanges",
    "Refund",
    "RefundRefused",
    "Scope",
    "SessionSpend",
    "SettledCall",
    "SettlementRow",
    "SettlementWriter",
    "StoredRoute",
    "TakenLate",
    "Tenancy",
    "migrate",
]

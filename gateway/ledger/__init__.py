"""Postgres, the truth. See README.md."""

from gateway.ledger.catalog import CATALOG_CHANNEL, CatalogReport, StoredRoute
from gateway.ledger.errors import LedgerRejected, LedgerUnavailable, MigrationError
from gateway.ledger.ledger import Ledger
from gateway.ledger.migrate import migrate
from gateway.ledger.recorder import Recorded
from gateway.ledger.rows import (
    AccountRow,
    GrantRow,
    KeyListRow,
    KeyRow,
    PlatformRoutes,
    PlatformRow,
    SettlementRow,
)
from gateway.ledger.writer import SettlementWriter

__all__ = [
    "CATALOG_CHANNEL",
    "AccountRow",
    "CatalogReport",
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
    "SettlementRow",
    "SettlementWriter",
    "StoredRoute",
    "migrate",
]

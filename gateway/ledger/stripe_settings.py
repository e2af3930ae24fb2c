"""Which Stripe a platform has: references to its keys, and how its billing is done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.stripe import StripeTable
from gateway.ledger.database import Database
from gateway.ledger.specs import billing_options_from_spec, billing_options_to_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncpg import Record

    from gateway.ledger.database import Session


class StoredStripe(NamedTuple):
    """A platform's settings. `livemode`: the mode of its key when that was last looked at."""

    platform_id: int
    slug: str
    livemode: bool
    table: StripeTable
    managed_by: str
    created_ms: int
    updated_ms: int


class StripeSettingsBooks(Database):
    """Settings of platforms that sell through Stripe."""

    async def stripe_settings(self, platform_id: int) -> StoredStripe | None:
        """The platform's; None: it has no Stripe."""
        record = await self._session.one("stripe_settings_get", platform_id)
        return _stored(record) if record else None

    async def all_stripe_settings(self) -> list[StoredStripe]:
        """Those of every platform that has some. Not for the API."""
        records = await self._session.all("stripe_settings_get", None)
        return [_stored(record) for record in records]

    async def save_stripe_settings(
        self, platform_id: int, table: StripeTable, *, livemode: bool, managed_by: str
    ) -> bool:
        """Make these the platform's settings; False where they were so already."""
        return await write_stripe_settings(
            self._session, platform_id, table, livemode=livemode, managed_by=managed_by
        )

    async def delete_stripe_settings(self, platform_id: int, managed_by: str) -> bool:
        """Take a platform's Stripe away; False without settings that are managed so."""
        done = await self._session.value("stripe_settings_delete", platform_id, managed_by)
        return done is not None

    async def note_stripe_mode(self, platform_id: int, *, livemode: bool) -> None:
        """The key is of this mode now."""
        await self._session.value("stripe_settings_mode", platform_id, livemode)

    async def platform_slug(self, platform_id: int) -> str | None:
        """What a platform is called; None without such a one."""
        slug = await self._session.value("platform_slug", platform_id)
        return None if slug is None else str(slug)

    async def sealed_secrets_of(self, platform_id: int, names: Sequence[str]) -> dict[str, bytes]:
        """Sealed secrets of a platform by name, as far as there are such. Not for the API."""
        records = await self._session.all("secret_sealed_some", platform_id, list(names))
        return {row["name"]: row["sealed"] for row in records}


async def write_stripe_settings(
    session: Session, platform_id: int, table: StripeTable, *, livemode: bool, managed_by: str
) -> bool:
    """As `StripeSettingsBooks.save_stripe_settings`, wherever the session is."""
    written = await session.value(
        "stripe_settings_set",
        platform_id,
        livemode,
        table.secret_key,
        list(table.webhook_secrets),
        table.account,
        json.dumps(billing_options_to_spec(table.options)),
        managed_by,
    )
    return written is not None


def _stored(record: Record) -> StoredStripe:
    options = billing_options_from_spec(json.loads(record["options"]))
    return StoredStripe(
        record["platform_id"],
        record["slug"],
        record["livemode"],
        StripeTable(
            record["secret_key"],
            tuple(record["webhook_secrets"]),
            record["stripe_account"],
            options,
        ),
        record["managed_by"],
        record["created_ms"],
        record["updated_ms"],
    )

"""Platforms' Stripe settings with their secrets, as the rest of this package works with them.

Settings name their keys: `env:` and `file:` in the config, `secret:` by the API. What these stand
for is looked up when it is needed, and again a moment later: a key that was rotated is used
without anybody being told.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.config import ConfigError, Problem
from gateway.config.references import resolve_secret, secret_name
from gateway.config.stripe import resolve_stripe
from gateway.identity.flight import OneFlight
from gateway.identity.seal import CannotOpenError, NotConfiguredError
from gateway.stripe_sync.errors import KeysMissingError
from policies.billing_options import BillingOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.config.stripe import StripeKeys, StripeTable
    from gateway.identity.seal import Sealer
    from gateway.ledger import Ledger

# How long settings are believed. A key that is set on another node is used here so much later.
KEPT_S = 1.0


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """One platform's Stripe, in one mode.

    `webhook_secrets` may be several, while they are rotated; none: no event is believed.
    Events that name an account ("acct_…") are believed only if it is `stripe_account`.
    """

    platform_id: int
    slug: str
    livemode: bool
    secret_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    stripe_account: str | None = None
    options: BillingOptions = field(default_factory=BillingOptions)


@dataclass(slots=True)
class _Kept:
    """A platform's settings, when they are to be looked up again, and whoever does that now."""

    settings: StripeSettings | None = None
    until_s: float = 0.0
    renewal: OneFlight = field(default_factory=OneFlight)


class StoredSettings:
    """The settings that Postgres has, with their keys: a `SettingsSource`."""

    def __init__(self, ledger: Ledger, sealer: Sealer) -> None:
        """Take books that are bound to no tenant."""
        self._ledger = ledger
        self._sealer = sealer
        self._kept: dict[int, _Kept] = {}

    async def settings(self, platform_id: int) -> StripeSettings | None:
        """The platform's, at most KEPT_S old; None: it has no Stripe.

        Raises: LedgerUnavailable; KeysMissingError when a key it refers to is not there.
        """
        kept = self._kept.setdefault(platform_id, _Kept())
        if kept.until_s <= asyncio.get_running_loop().time():
            await kept.renewal.join(lambda: self._renew(platform_id, kept))
        return kept.settings

    def forget(self, platform_id: int) -> None:
        """Look them up anew when they are asked for next: they were changed."""
        self._kept.pop(platform_id, None)

    async def _renew(self, platform_id: int, kept: _Kept) -> None:
        kept.settings = await self._read(platform_id)
        kept.until_s = asyncio.get_running_loop().time() + KEPT_S

    async def _read(self, platform_id: int) -> StripeSettings | None:
        stored = await self._ledger.stripe_settings(platform_id)
        if stored is None:
            return None
        table = stored.table
        try:
            keys = await keys_of(self._ledger, self._sealer, platform_id, table)
        except ConfigError as error:
            problems = "; ".join(map(str, error.problems))
            raise KeysMissingError(stored.slug, problems) from None
        if keys.livemode is not stored.livemode:
            await self._ledger.note_stripe_mode(platform_id, livemode=keys.livemode)
        return StripeSettings(
            platform_id,
            stored.slug,
            keys.livemode,
            keys.secret_key,
            keys.webhook_secrets,
            table.account,
            table.options,
        )


async def keys_of(
    ledger: Ledger, sealer: Sealer, platform_id: int, table: StripeTable
) -> StripeKeys:
    """What a platform's settings refer to. `ledger` is bound to no tenant.

    Raises: ConfigError with every reference that leads nowhere; LedgerUnavailable.
    """
    references = (table.secret_key, *table.webhook_secrets)
    names = [name for name in map(secret_name, references) if name is not None]
    sealed = await ledger.sealed_secrets_of(platform_id, names) if names else {}

    def resolve(reference: str) -> str:
        name = secret_name(reference)
        return resolve_secret(reference) if name is None else _opened(sealer, sealed, name)

    return resolve_stripe(table, resolve)


def _opened(sealer: Sealer, sealed: Mapping[str, bytes], name: str) -> str:
    """A platform's secret. Raises: ConfigError."""
    if name not in sealed:
        problem = 'there is no such secret: keep it with "tollkeeper secrets set"'
    else:
        try:
            return sealer.open(sealed[name]).decode()
        except (CannotOpenError, NotConfiguredError) as error:
            problem = str(error)
    raise ConfigError([Problem(f"secret:{name}", problem)])

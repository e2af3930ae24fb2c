"""One platform's Stripe and our books, side by side: what every step of this package works with.

A step fetches an object as it is now and writes what follows from it, under the lock of the
customer whose it is, in one transaction. What happened between two events, and in which order they
came, then makes no difference.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol, Self

from gateway.ledger.subscriptions import Mode, lock_objects
from gateway.operations.errors import NotToldError
from gateway.operations.publish import publish_account
from gateway.operations.withdraw import never_ready
from gateway.stripe_sync.client import StripeApi, stripe_session
from gateway.stripe_sync.errors import NotSetUpError
from gateway.stripe_sync.turns import AllTurns

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.database import Session
    from gateway.operations.withdraw import Ready
    from gateway.stripe_sync.settings import StripeSettings
    from gateway.stripe_sync.turns import Turns
    from policies.billing_options import BillingOptions

# Whoever looks at the catalogue takes the lock of this name, where others have a customer's id.
CATALOGUE = "catalogue"


@dataclass(frozen=True, slots=True)
class Sync:
    """One platform's, in the mode of its key.

    `ledger` is bound to no tenant: every question names the platform, and what is found by an id of
    Stripe's is looked for in this platform and mode.
    """

    settings: StripeSettings
    api: StripeApi
    ledger: Ledger
    counters: Counters
    turns: AllTurns = field(default_factory=AllTurns)
    # Waits for a shard that is lost, or was never used, before credits are taken there.
    ready: Ready = never_ready

    @property
    def platform_id(self) -> int:
        """Whose Stripe it is."""
        return self.settings.platform_id

    @property
    def livemode(self) -> bool:
        """Whether money is real."""
        return self.settings.livemode

    @property
    def mode(self) -> Mode:
        """What ids of Stripe's are unique in."""
        return Mode(self.platform_id, self.livemode)

    @property
    def options(self) -> BillingOptions:
        """How the platform wants its billing done."""
        return self.settings.options

    def noting(self, missing: list[str]) -> Self:
        """The same; what Stripe says of objects that it has not is added to these."""
        return replace(self, api=self.api.noting(missing))

    @asynccontextmanager
    async def customer_locked(self, customer_id: str) -> AsyncIterator[Session]:
        """A transaction in which nobody else works on this customer's objects.

        Fetch them inside, and lock no other customer there. It waits for others at most as long as
        a query may take.

        Raises: LedgerUnavailable.
        """
        async with self._locked(self.turns.working, customer_id) as session:
            yield session

    @asynccontextmanager
    async def asking_locked(self, name: str) -> AsyncIterator[Session]:
        """The same for whoever changes something at Stripe, and may lock the customer meanwhile."""
        async with self._locked(self.turns.asking, name) as session:
            yield session

    @asynccontextmanager
    async def catalogue_locked(self) -> AsyncIterator[Session]:
        """A transaction in which nobody else takes over what is sold; also within the others."""
        async with self._locked(self.turns.taking_over, CATALOGUE) as session:
            yield session

    @asynccontextmanager
    async def _locked(self, turns: Turns, name: str) -> AsyncIterator[Session]:
        async with turns.turn(*self.mode, name), self.ledger.transaction_apart() as session:
            await lock_objects(session, self.mode, name)
            yield session

    async def tell(self, account_id: int) -> None:
        """Make the account's next call follow what was committed.

        Transactions that give or take something note it (`note_untold`), so that the telling job
        does it should Redis not answer now.
        """
        try:
            await publish_account(self.ledger, self.counters, account_id, f"account {account_id}")
        except NotToldError:
            return


class SettingsSource(Protocol):
    """Where platforms' settings are, with their secrets."""

    async def settings(self, platform_id: int) -> StripeSettings | None:
        """The platform's; None: it has no Stripe.

        Raises: LedgerUnavailable; KeysMissingError when a key it refers to is not there.
        """

    def forget(self, platform_id: int) -> None:
        """Its settings were changed: look them up anew."""


class Billing:
    """Every platform's Stripe. An async context manager; clients are kept while settings last."""

    def __init__(
        self,
        ledger: Ledger,
        counters: Counters,
        source: SettingsSource,
        *,
        ready: Ready = never_ready,
    ) -> None:
        self.ledger = ledger
        self.counters = counters
        self.source = source
        self._session: aiohttp.ClientSession | None = None
        self._apis: dict[StripeSettings, StripeApi] = {}
        self._turns = AllTurns()
        self._ready = ready

    async def __aenter__(self) -> Self:
        self._session = stripe_session()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def sync(self, platform_id: int) -> Sync:
        """The platform's Stripe.

        Raises: NotSetUpError, with the slug in its text; as `SettingsSource.settings`.
        """
        settings = await self.source.settings(platform_id)
        if settings is None:
            raise NotSetUpError(await self.ledger.platform_slug(platform_id) or "")
        api = self._api(settings)
        return Sync(settings, api, self.ledger, self.counters, self._turns, self._ready)

    def _api(self, settings: StripeSettings) -> StripeApi:
        api = self._apis.get(settings)
        if api is None:
            if self._session is None:
                raise RuntimeError("Billing is used outside of its context")
            for old in [one for one in self._apis if one.platform_id == settings.platform_id]:
                del self._apis[old]
            api = self._apis[settings] = StripeApi(settings, self._session)
        return api

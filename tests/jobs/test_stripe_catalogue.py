"""What Stripe sells is looked at without events, and one platform's trouble is its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config.stripe import StripeTable
from gateway.identity.seal import Sealer
from gateway.jobs.stripe_catalogue import StripeCatalogue
from gateway.ledger import LedgerUnavailable
from gateway.ledger.rows import BY_CONFIG
from gateway.stripe_sync.products import Synced, sync_catalogue
from gateway.stripe_sync.settings import StoredSettings
from gateway.stripe_sync.sync import Billing
from policies.billing_options import BillingOptions
from policies.catalog import Platform
from tests.support.stripe_stand import PRO, running_stand

if TYPE_CHECKING:
    from gateway.stripe_sync.sync import Sync


async def test_a_round_takes_over_what_every_platform_sells(
    postgres_url: str, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stand(postgres_url, clean_redis_url) as stand:
        ledger = stand.ledger
        other = (await ledger.apply_catalog(Platform("other"), (), ())).platform_id
        options = BillingOptions(api_base=stand.fake.url)
        monkeypatch.setenv("E_KEY", stand.fake.api_key)
        for platform_id, name in ((other, "E_MISSING"), (stand.platform_id, "E_KEY")):
            table = StripeTable(f"env:{name}", options=options)
            await ledger.save_stripe_settings(
                platform_id, table, livemode=False, managed_by=BY_CONFIG
            )
        await stand.sold(PRO)
        source = StoredSettings(ledger, Sealer.of(None))
        async with Billing(ledger, stand.deployment.counters, source) as billing:
            job = StripeCatalogue(billing)
            assert await job.look() == 1
            assert await stand.plan() is not None
            await ledger.delete_stripe_settings(stand.platform_id, BY_CONFIG)
            source.forget(stand.platform_id)
            assert await job.look() == 0


@pytest.mark.parametrize(
    "failure", [LedgerUnavailable("too much at once"), KeyError("recurring")], ids=repr
)
async def test_a_platform_that_can_not_be_looked_at_keeps_no_other_from_it(
    postgres_url: str, clean_redis_url: str, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Whoever looks at a long catalogue again and again holds only its own lock."""
    async with running_stand(postgres_url, clean_redis_url) as stand:
        ledger = stand.ledger
        later = (await ledger.apply_catalog(Platform("other"), (), ())).platform_id
        monkeypatch.setenv("E_KEY", stand.fake.api_key)
        table = StripeTable("env:E_KEY", options=BillingOptions(api_base=stand.fake.url))
        for platform_id in (stand.platform_id, later):
            await ledger.save_stripe_settings(
                platform_id, table, livemode=False, managed_by=BY_CONFIG
            )
        looked = []

        async def look(sync: Sync) -> Synced:
            if sync.platform_id == stand.platform_id:
                raise failure
            looked.append(sync.platform_id)
            return await sync_catalogue(sync)

        monkeypatch.setattr("gateway.jobs.stripe_catalogue.sync_catalogue", look)
        source = StoredSettings(ledger, Sealer.of(None))
        async with Billing(ledger, stand.deployment.counters, source) as billing:
            assert await StripeCatalogue(billing).look() == 1
        assert looked == [later]

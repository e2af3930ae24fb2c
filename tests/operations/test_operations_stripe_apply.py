"""The config's packs and Stripe settings in the database: exactly what it says, by reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from gateway.config import Config, load_config
from gateway.config.stripe import StripeTable
from gateway.ledger.rows import BY_API, BY_CONFIG
from gateway.operations.catalog import apply_config, preview_config
from gateway.operations.errors import UsageError
from policies.billing_options import BillingOptions, DunningRules, UpgradeCredits
from policies.catalog import Pack

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.deployment import Deployment

PLATFORM = '[platform]\nslug = "demo"\n'
STRIPE = '[stripe]\nsecret_key = "env:E_STRIPE_KEY"\nwebhook_secrets = ["env:E_STRIPE_HOOK"]\n'
PACKS = '[[packs]]\nslug = "big"\ncredits = "5"\n'


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Config]:
    monkeypatch.setenv("E_STRIPE_KEY", "sk_test_123")
    monkeypatch.setenv("E_STRIPE_HOOK", "whsec_123")

    def load(text: str) -> Config:
        file = tmp_path / "config.toml"
        file.write_text(PLATFORM + text)
        return load_config(file)

    return load


async def test_settings_are_kept_by_reference_with_the_mode_of_their_key(
    deployment: Deployment, config: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, counters = deployment.ledger, deployment.counters
    options = 'upgrade_credits = "prorated"\n[stripe.dunning]\nsuspend_after_days = "never"\n'
    said = config(STRIPE + options)
    assert (await preview_config(ledger, said)).stripe_changed == ("test",)
    report = await apply_config(ledger, counters, said)
    assert report.stripe_changed == ("test",)
    stored = await ledger.stripe_settings(report.platform_id)
    assert stored is not None
    assert stored.table == StripeTable(
        "env:E_STRIPE_KEY",
        ("env:E_STRIPE_HOOK",),
        None,
        BillingOptions(
            upgrade_credits=UpgradeCredits.PRORATED, dunning=DunningRules(suspend_after_days=None)
        ),
    )
    assert (stored.slug, stored.livemode, stored.managed_by) == ("demo", False, BY_CONFIG)
    assert (await apply_config(ledger, counters, said)).stripe_changed == ()
    assert (await preview_config(ledger, said)).stripe_changed == ()

    monkeypatch.setenv("E_STRIPE_KEY", "rk_live_123")
    assert (await preview_config(ledger, said)).stripe_changed == ("live",)
    assert (await apply_config(ledger, counters, said)).stripe_changed == ("live",)
    stored = await ledger.stripe_settings(report.platform_id)
    assert stored is not None
    assert stored.livemode

    without = config("")
    assert (await preview_config(ledger, without)).stripe_changed == ("none",)
    assert (await apply_config(ledger, counters, without)).stripe_changed == ("none",)
    assert await ledger.stripe_settings(report.platform_id) is None


async def test_keys_that_are_not_there_are_all_named_and_nothing_is_changed(
    deployment: Deployment, config: Callable[[str], Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("E_STRIPE_KEY")
    monkeypatch.setenv("E_STRIPE_HOOK", "sk_test_secret")
    said = config(STRIPE + PACKS)
    for work in (
        apply_config(deployment.ledger, deployment.counters, said),
        preview_config(deployment.ledger, said),
    ):
        with pytest.raises(UsageError) as caught:
            await work
        assert "env:E_STRIPE_KEY: this environment variable is not set" in str(caught.value)
        assert 'env:E_STRIPE_HOOK: a webhook secret of Stripe begins with "whsec_"' in str(
            caught.value
        )
        assert "sk_test_secret" not in str(caught.value)
    assert await deployment.ledger.packs_page(deployment.platform_id) == []


async def test_what_owners_set_by_the_api_stays_unless_the_config_says_otherwise(
    deployment: Deployment, config: Callable[[str], Config]
) -> None:
    ledger, counters = deployment.ledger, deployment.counters
    platform_id = (await apply_config(ledger, counters, config(""))).platform_id
    own = StripeTable("secret:key")
    await ledger.save_stripe_settings(platform_id, own, livemode=True, managed_by=BY_API)
    await ledger.create_pack(platform_id, Pack("own", "Own", 5))
    report = await apply_config(ledger, counters, config(""))
    assert (report.stripe_changed, report.packs_retired) == ((), ())
    stored = await ledger.stripe_settings(platform_id)
    assert stored is not None
    assert (stored.table, stored.managed_by) == (own, BY_API)

    report = await apply_config(ledger, counters, config(STRIPE))
    assert report.stripe_changed == ("test",)
    stored = await ledger.stripe_settings(platform_id)
    assert stored is not None
    assert stored.managed_by == BY_CONFIG


async def test_a_pack_that_the_config_does_not_name_any_more_is_not_sold_and_stays_known(
    deployment: Deployment, config: Callable[[str], Config]
) -> None:
    ledger, counters = deployment.ledger, deployment.counters
    report = await apply_config(ledger, counters, config(PACKS))
    assert report.packs_created == ("big",)
    assert (await apply_config(ledger, counters, config(PACKS))).packs_changed == ()
    dearer = config(PACKS.replace('"5"', '"6"'))
    assert (await preview_config(ledger, dearer)).packs_changed == ("big",)
    assert (await apply_config(ledger, counters, dearer)).packs_changed == ("big",)
    assert (await preview_config(ledger, config(""))).packs_retired == ("big",)
    assert (await apply_config(ledger, counters, config(""))).packs_retired == ("big",)
    assert await ledger.packs_page(report.platform_id) == []
    gone = await ledger.pack(report.platform_id, "big")
    assert gone is not None
    assert (gone.active, gone.pack.credits_microcredits) == (False, 6_000_000)
    assert (await apply_config(ledger, counters, dearer)).packs_changed == ("big",)
    assert len(await ledger.packs_page(report.platform_id)) == 1

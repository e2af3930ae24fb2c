"""Keys are looked up where settings refer to, and followed when they change. No text shows one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from gateway.config.stripe import StripeTable
from gateway.counters import Counters
from gateway.identity.master_key import new_master_key
from gateway.identity.seal import Sealer
from gateway.ledger import BY_API, BY_CONFIG, Ledger
from gateway.stripe_sync.errors import KeysMissingError, NotSetUpError
from gateway.stripe_sync.settings import StoredSettings
from gateway.stripe_sync.sync import Billing
from policies.billing_options import BillingOptions
from policies.catalog import Platform

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.settings import StripeSettings


class Scene:
    """A platform whose settings are asked for as they are now."""

    def __init__(self, ledger: Ledger, platform_id: int) -> None:
        self.ledger = ledger
        self.platform_id = platform_id
        self.sealer = Sealer.of(new_master_key())
        self.source = StoredSettings(ledger, self.sealer)

    async def keep(self, name: str, value: str) -> None:
        await self.ledger.set_secret(self.platform_id, name, self.sealer.seal(value.encode()))

    async def set(self, table: StripeTable, managed_by: str = BY_API) -> None:
        await self.ledger.save_stripe_settings(
            self.platform_id, table, livemode=False, managed_by=managed_by
        )

    async def now(self) -> StripeSettings | None:
        self.source.forget(self.platform_id)
        return await self.source.settings(self.platform_id)


@pytest_asyncio.fixture
async def scene(postgres_url: str) -> AsyncIterator[Scene]:
    async with Ledger(postgres_url) as ledger:
        report = await ledger.apply_catalog(Platform("demo"), (), ())
        yield Scene(ledger, report.platform_id)


async def test_sealed_keys_are_opened_and_never_shown(scene: Scene) -> None:
    await scene.keep("key", "sk_test_canary")
    await scene.keep("hook", "whsec_canary")
    options = BillingOptions(automatic_tax=True)
    await scene.set(StripeTable("secret:key", ("secret:hook",), "acct_1", options))
    settings = await scene.now()
    assert settings is not None
    assert (settings.slug, settings.livemode, settings.secret_key) == (
        "demo",
        False,
        "sk_test_canary",
    )
    assert settings.webhook_secrets == ("whsec_canary",)
    assert (settings.stripe_account, settings.options) == ("acct_1", options)
    assert "canary" not in repr(settings)


async def test_the_configs_keys_are_found_in_the_environment(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("E_KEY", "rk_test_1")
    await scene.set(StripeTable("env:E_KEY"), BY_CONFIG)
    settings = await scene.now()
    assert settings is not None
    assert settings.secret_key == "rk_test_1"


async def test_a_key_of_the_other_mode_takes_the_platform_to_that_mode(scene: Scene) -> None:
    await scene.keep("key", "sk_test_1")
    await scene.set(StripeTable("secret:key"))
    settings = await scene.now()
    assert settings is not None
    assert not settings.livemode
    await scene.keep("key", "sk_live_1")
    settings = await scene.now()
    assert settings is not None
    assert settings.livemode
    stored = await scene.ledger.stripe_settings(scene.platform_id)
    assert stored is not None
    assert stored.livemode


async def test_settings_are_kept_for_a_moment_and_then_looked_up_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    await scene.keep("key", "sk_test_1")
    await scene.set(StripeTable("secret:key"))
    first = await scene.source.settings(scene.platform_id)
    await scene.keep("key", "sk_test_2")
    assert await scene.source.settings(scene.platform_id) is first
    monkeypatch.setattr("gateway.stripe_sync.settings.KEPT_S", 0.0)
    scene.source.forget(scene.platform_id)
    for key in ("sk_test_2", "sk_test_3"):
        await scene.keep("key", key)
        settings = await scene.source.settings(scene.platform_id)
        assert settings is not None
        assert settings.secret_key == key


async def test_a_key_that_is_not_there_is_named_and_used_as_soon_as_it_is(scene: Scene) -> None:
    await scene.keep("hook", "sk_test_canary")
    await scene.set(StripeTable("secret:key", ("secret:hook",)))
    with pytest.raises(KeysMissingError) as caught:
        await scene.now()
    text = str(caught.value)
    assert '"demo"' in text
    assert 'secret:key: there is no such secret: keep it with "tollkeeper secrets set"' in text
    assert 'secret:hook: a webhook secret of Stripe begins with "whsec_"' in text
    assert "canary" not in text
    await scene.keep("key", "sk_test_1")
    await scene.keep("hook", "whsec_1")
    assert await scene.source.settings(scene.platform_id) is not None


async def test_without_settings_the_platform_is_told_what_to_set(
    scene: Scene, clean_redis_url: str
) -> None:
    async with (
        Counters(clean_redis_url, shards=1) as counters,
        Billing(scene.ledger, counters, scene.source) as billing,
    ):
        with pytest.raises(NotSetUpError, match=r'"demo" has no Stripe.*tollkeeper stripe set'):
            await billing.sync(scene.platform_id)
        await scene.keep("key", "sk_test_1")
        await scene.set(StripeTable("secret:key"))
        scene.source.forget(scene.platform_id)
        sync = await billing.sync(scene.platform_id)
        assert (sync.platform_id, sync.livemode) == (scene.platform_id, False)

"""The [stripe] table: keys by reference only, choices with defaults, all mistakes at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from gateway.config import ConfigError, load_config
from gateway.config.stripe import (
    StripeTable,
    is_live,
    read_stripe_document,
    resolve_stripe,
    stripe_document,
)
from gateway.ledger.specs import billing_options_from_spec, billing_options_to_spec
from policies.billing_options import (
    BillingOptions,
    DunningRules,
    OlderSubscription,
    OverageBy,
    UpgradeCredits,
)

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT: dict[str, Any] = {
    "secret_key": "secret:stripe",
    "webhook_secrets": ["secret:hook", "secret:older"],
    "account": "acct_1Ab",
    "automatic_tax": True,
    "promotion_codes": False,
    "success_url": "https://shop.example/thanks",
    "cancel_url": "https://shop.example/",
    "portal_return_url": "https://shop.example/me",
    "upgrade_credits": "prorated",
    "older_subscription": "cancel",
    "bridge_minutes": 30,
    "overage_by": "meter_events",
    "meter_event_name": "credits",
    "dunning": {
        "notify_after_failures": 1,
        "downgrade_after_failures": "never",
        "grace_days": 5,
        "suspend_after_days": 30,
    },
}
OPTIONS = BillingOptions(
    automatic_tax=True,
    promotion_codes=False,
    success_url="https://shop.example/thanks",
    cancel_url="https://shop.example/",
    portal_return_url="https://shop.example/me",
    upgrade_credits=UpgradeCredits.PRORATED,
    older_subscription=OlderSubscription.CANCEL,
    bridge_ms=1_800_000,
    overage_by=OverageBy.METER_EVENTS,
    meter_event_name="credits",
    dunning=DunningRules(1, None, 5, 30),
)


def test_every_choice_is_read_exactly_and_survives_each_form() -> None:
    table, problems = read_stripe_document(DOCUMENT)
    assert problems == []
    secrets = ("secret:hook", "secret:older")
    assert table == StripeTable("secret:stripe", secrets, "acct_1Ab", OPTIONS)
    assert stripe_document(table) == {**DOCUMENT, "api_base": None}
    options = replace(OPTIONS, api_base="http://127.0.0.1:12111")
    assert billing_options_from_spec(billing_options_to_spec(options)) == options


def test_what_is_not_said_has_the_defaults() -> None:
    table, problems = read_stripe_document({"secret_key": "secret:stripe"})
    assert (table, problems) == (StripeTable("secret:stripe"), [])
    assert read_stripe_document(stripe_document(table)) == (table, [])
    assert billing_options_from_spec({}) == BillingOptions()


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"secret_key": None}, "secret_key"),
        ({"secret_key": "sk_test_canary"}, "secret_key"),
        ({"secret_key": "env:KEY"}, "secret_key"),
        ({"secret_key": "secret:No"}, "secret_key"),
        ({"webhook_secrets": ["whsec_canary"]}, "webhook_secrets"),
        ({"webhook_secrets": ["secret:a"] * 6}, "webhook_secrets"),
        ({"account": "canary"}, "account"),
        ({"success_url": "shop.example"}, "success_url"),
        ({"bridge_minutes": -1}, "bridge_minutes"),
        ({"api_base": "http://169.254.169.254"}, "api_base"),
        ({"upgrade_credits": "all"}, "upgrade_credits"),
        ({"meter_event_name": None}, "meter_event_name"),
        ({"overage_by": None}, "meter_event_name"),
        ({"automatic_taxes": True}, "automatic_taxes"),
        ({"dunning": {"grace_days": "often"}}, "dunning.grace_days"),
        ({"dunning": {"grace_days": 0}}, "dunning.grace_days"),
        ({"dunning": {"grace_days": 9, "suspend_after_days": 8}}, "dunning.suspend_after_days"),
        ({"dunning": {"grace": 9}}, "dunning.grace"),
    ],
)
def test_what_can_not_be_meant_is_refused(change: dict[str, Any], where: str) -> None:
    _, problems = read_stripe_document({**DOCUMENT, **change})
    assert [problem.where for problem in problems] == [where]
    assert "canary" not in str(problems)


def test_the_config_takes_no_key_and_no_owners_secret_and_says_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        '[stripe]\nsecret_key = "sk_live_canary"\nwebhook_secrets = ["secret:a", "file:hook"]\n'
        "bridge = 3\n"
    )
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    found = [problem.where for problem in caught.value.problems]
    assert found == ["stripe.webhook_secrets", "stripe.secret_key", "stripe.bridge"]
    assert "canary" not in str(caught.value)


def test_keys_are_found_where_they_are_referred_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hook").write_text("whsec_1\n")
    monkeypatch.setenv("E_KEY", "rk_live_1")
    file = tmp_path / "config.toml"
    file.write_text('[stripe]\nsecret_key = "env:E_KEY"\nwebhook_secrets = ["file:hook"]\n')
    table = load_config(file).stripe
    assert table is not None
    keys = resolve_stripe(table)
    assert (keys.livemode, keys.secret_key, keys.webhook_secrets) == (
        *(True, "rk_live_1"),
        ("whsec_1",),
    )
    assert "rk_live_1" not in repr(keys)
    assert "whsec_1" not in repr(keys)


@pytest.mark.parametrize(("key", "live"), [("sk_live_a", True), ("rk_test_a", False)])
def test_the_mode_is_the_keys(key: str, live: bool) -> None:
    assert is_live(key) is live


@pytest.mark.parametrize("key", ["pk_live_canary", "whsec_canary", ""])
def test_what_is_no_secret_key_has_no_mode(key: str) -> None:
    with pytest.raises(ValueError, match="secret key") as caught:
        is_live(key)
    assert "canary" not in str(caught.value)

"""The [stripe] table: which Stripe a platform has, and how its billing is done.

Keys are references, never the keys themselves. The API takes the same table as a document, in which
they refer to secrets that were given to it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gateway.config.problems import ConfigError, Problem
from gateway.config.references import (
    SECRET_PREFIX,
    is_reference,
    parse_reference,
    resolve_secret,
    secret_name,
)
from gateway.config.section import Section
from gateway.config.selling import parse_slug, parse_url
from policies.billing_options import (
    BillingOptions,
    DunningRules,
    OlderSubscription,
    OverageBy,
    UpgradeCredits,
)
from policies.spans import MINUTE_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

WEBHOOK_SECRETS_MAX = 5
BRIDGE_MINUTES_MAX = 5_760  # Stripe holds an invoice back for at most three days
FAILURES_MAX = 20
DUNNING_DAYS_MAX = 365
METER_NAME_CHARACTERS_MAX = 100
NEVER = "never"
LIVE_PREFIXES = ("sk_live_", "rk_live_")
TEST_PREFIXES = ("sk_test_", "rk_test_")
WEBHOOK_PREFIX = "whsec_"
_ACCOUNT_PREFIX = "acct_"
_OPTIONS, _RULES = BillingOptions(), DunningRules()


@dataclass(frozen=True, slots=True)
class StripeTable:
    """A platform's Stripe, as it is written: keys by reference.

    Without `webhook_secrets` no event is believed. `account` ("acct_…") is the
    connected account whose events are believed, too; those of the key's own name none.
    """

    secret_key: str
    webhook_secrets: tuple[str, ...] = ()
    account: str | None = None
    options: BillingOptions = field(default_factory=BillingOptions)


@dataclass(frozen=True, slots=True)
class StripeKeys:
    """What the references of a table stand for."""

    livemode: bool
    secret_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(repr=False)


def read_stripe(section: Section, folder: Path | None) -> StripeTable:
    """One [stripe] table; `folder` is where paths begin, None where only owners' secrets are."""

    def reference(text: str) -> str:
        return _secret_reference(text) if folder is None else _config_reference(text, folder)

    secrets = _references(section, reference)
    table = StripeTable(
        secret_key=section.parsed("secret_key", reference, ""),
        webhook_secrets=secrets,
        account=section.parsed("account", _account, None) if "account" in section else None,
        options=_options(section),
    )
    if folder is None and "api_base" in section:
        # Whoever may say where the gateway asks could have it ask what only it can reach.
        section.complain("api_base", "is for the config file")
    section.close()
    return table


def read_stripe_document(document: Mapping[str, Any]) -> tuple[StripeTable, list[Problem]]:
    """The settings that an owner gives by the API, and all that is wrong with them."""
    problems: list[Problem] = []
    said = {key: value for key, value in document.items() if value is not None}
    if isinstance(said.get("dunning"), dict):
        said["dunning"] = {key: one for key, one in said["dunning"].items() if one is not None}
    return read_stripe(Section(said, "", problems, numbered=True), None), problems


def stripe_document(table: StripeTable) -> dict[str, Any]:
    """Settings as a [stripe] table, all options said; what is None has no default."""
    options, rules = table.options, table.options.dunning
    return {
        "secret_key": table.secret_key,
        "webhook_secrets": list(table.webhook_secrets),
        "account": table.account,
        "automatic_tax": options.automatic_tax,
        "promotion_codes": options.promotion_codes,
        "success_url": options.success_url,
        "cancel_url": options.cancel_url,
        "portal_return_url": options.portal_return_url,
        "upgrade_credits": options.upgrade_credits.value,
        "older_subscription": options.older_subscription.value,
        "bridge_minutes": options.bridge_ms // MINUTE_MS,
        "overage_by": options.overage_by.value,
        "meter_event_name": options.meter_event_name,
        "api_base": options.api_base,
        "dunning": {
            "notify_after_failures": _or_never(rules.notify_after_failures),
            "downgrade_after_failures": _or_never(rules.downgrade_after_failures),
            "grace_days": _or_never(rules.grace_days),
            "suspend_after_days": _or_never(rules.suspend_after_days),
        },
    }


def resolve_stripe(
    table: StripeTable, resolve: Callable[[str], str] = resolve_secret
) -> StripeKeys:
    """The keys themselves.

    Raises: ConfigError with every reference that leads nowhere, or to something that is no key.
    `resolve` answers what a reference stands for, or raises ConfigError.
    """
    problems: list[Problem] = []

    def key_of(where: str, text: str, check: Callable[[str], object]) -> str:
        try:
            value = resolve(text)
            check(value)
        except ConfigError as error:
            problems.extend(Problem(f"stripe.{where}", str(one)) for one in error.problems)
        except ValueError as error:
            problems.append(Problem(f"stripe.{where}", f"{text}: {error}"))
        else:
            return value
        return ""

    secret_key = key_of("secret_key", table.secret_key, is_live)
    webhook_secrets = tuple(
        key_of("webhook_secrets", text, _check_webhook_secret) for text in table.webhook_secrets
    )
    if problems:
        raise ConfigError(problems)
    return StripeKeys(is_live(secret_key), secret_key, webhook_secrets)


def is_live(secret_key: str) -> bool:
    """The mode of a key.

    Raises: ValueError for what is no secret or restricted key of Stripe's; without repeating it.
    """
    if secret_key.startswith(LIVE_PREFIXES):
        return True
    if secret_key.startswith(TEST_PREFIXES):
        return False
    raise ValueError(
        'a secret key of Stripe begins with "sk_test_", "sk_live_", "rk_test_" or "rk_live_"'
    )


def _check_webhook_secret(secret: str) -> None:
    if not secret.startswith(WEBHOOK_PREFIX):
        raise ValueError(f'a webhook secret of Stripe begins with "{WEBHOOK_PREFIX}"')


def _references(section: Section, reference: Callable[[str], str]) -> tuple[str, ...]:
    texts = section.texts("webhook_secrets")
    if len(texts) > WEBHOOK_SECRETS_MAX:
        section.complain("webhook_secrets", f"are at most {WEBHOOK_SECRETS_MAX}")
    found = []
    for text in texts:
        try:
            found.append(reference(text))
        except ValueError as error:
            section.complain("webhook_secrets", str(error))
    return tuple(found)


def _config_reference(text: str, folder: Path) -> str:
    if text.startswith(SECRET_PREFIX):
        raise ValueError('"secret:" is for what the API was given: write "env:NAME" or "file:PATH"')
    if not is_reference(text):
        raise ValueError('is a secret: refer to it as "env:NAME" or "file:PATH"')
    return parse_reference(text, folder)


def _secret_reference(text: str) -> str:
    name = secret_name(text)
    if name is None:
        raise ValueError('is a secret: keep it by /v1/secrets, and refer to it as "secret:NAME"')
    parse_slug(name)
    return text


def _account(text: str) -> str:
    if not text.startswith(_ACCOUNT_PREFIX) or not text.isascii() or not text.isprintable():
        raise ValueError('is no account of Stripe, such as "acct_1Ab2"')
    return text


def _options(section: Section) -> BillingOptions:
    overage_by = section.choice("overage_by", OverageBy, _OPTIONS.overage_by)
    meter = None
    if "meter_event_name" in section:
        meter = section.parsed("meter_event_name", _meter_name, None)
    if overage_by is OverageBy.METER_EVENTS and "meter_event_name" not in section:
        section.complain("meter_event_name", f'is missing: overage_by = "{overage_by}" needs it')
    if overage_by is not OverageBy.METER_EVENTS and "meter_event_name" in section:
        section.complain("meter_event_name", 'is of no use without overage_by = "meter_events"')
    minutes = section.integer(
        "bridge_minutes", _OPTIONS.bridge_ms // MINUTE_MS, least=0, most=BRIDGE_MINUTES_MAX
    )
    return BillingOptions(
        automatic_tax="automatic_tax" in section and section.flag("automatic_tax"),
        promotion_codes="promotion_codes" not in section or section.flag("promotion_codes"),
        success_url=_url(section, "success_url"),
        cancel_url=_url(section, "cancel_url"),
        portal_return_url=_url(section, "portal_return_url"),
        upgrade_credits=section.choice("upgrade_credits", UpgradeCredits, _OPTIONS.upgrade_credits),
        older_subscription=section.choice(
            "older_subscription", OlderSubscription, _OPTIONS.older_subscription
        ),
        bridge_ms=minutes * MINUTE_MS,
        overage_by=overage_by,
        meter_event_name=meter,
        dunning=_dunning(section.table("dunning")),
        api_base=_url(section, "api_base"),
    )


def _dunning(section: Section) -> DunningRules:
    rules = DunningRules(
        _count(section, "notify_after_failures", _RULES.notify_after_failures, FAILURES_MAX),
        _count(section, "downgrade_after_failures", _RULES.downgrade_after_failures, FAILURES_MAX),
        _count(section, "grace_days", _RULES.grace_days, DUNNING_DAYS_MAX),
        _count(section, "suspend_after_days", _RULES.suspend_after_days, DUNNING_DAYS_MAX),
    )
    section.close()
    grace, suspend = rules.grace_days, rules.suspend_after_days
    if suspend is not None and grace is not None and suspend < grace:
        section.complain("suspend_after_days", "is before grace_days end")
    return rules


def _count(section: Section, key: str, default: int | None, most: int) -> int | None:
    """A whole number, or None where it says "never"."""
    if key not in section:
        return default
    if section.value(key) == NEVER:
        return None
    if isinstance(section.value(key), str):
        section.complain(key, f'must be a whole number, or "{NEVER}"')
        return default
    return section.integer(key, least=1, most=most)


def _or_never(number: int | None) -> int | str:
    return NEVER if number is None else number


def _url(section: Section, key: str) -> str | None:
    return section.parsed(key, parse_url, None) if key in section else None


def _meter_name(text: str) -> str:
    if not 0 < len(text) <= METER_NAME_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"must be 1 to {METER_NAME_CHARACTERS_MAX} printable characters")
    return text

"""A platform's Stripe settings with their secrets, as the rest of this package works with them."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.billing_options import BillingOptions

LIVE_PREFIXES = ("sk_live_", "rk_live_")
TEST_PREFIXES = ("sk_test_", "rk_test_")


@dataclass(frozen=True, slots=True)
class StripeSettings:
    """One platform's Stripe, in one mode.

    `webhook_secrets` may be several, while they are rotated. `stripe_account` ("acct_…") is whose
    events are believed; None: not known yet.
    """

    platform_id: int
    slug: str
    livemode: bool
    secret_key: str = field(repr=False)
    webhook_secrets: tuple[str, ...] = field(default=(), repr=False)
    stripe_account: str | None = None
    options: BillingOptions = field(default_factory=BillingOptions)


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

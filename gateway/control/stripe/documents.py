"""Stripe's settings and catalogue as documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, cast

from gateway.config.references import secret_name
from gateway.config.stripe import stripe_document
from gateway.control.api.money import mode_word
from gateway.control.stripe.models import (
    LeftOut,
    Parked,
    Product,
    ProductPrice,
    PushReport,
    PushStep,
    StripeSettings,
    SyncReport,
)
from gateway.ledger.rows import BY_STRIPE
from gateway.stripe_sync.metadata import difference
from policies.money import format_minor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.ledger.stripe_products import StripePrice, StripeProduct
    from gateway.ledger.stripe_settings import StoredStripe
    from gateway.stripe_sync.products import Synced
    from gateway.stripe_sync.push import Pushed
    from gateway.stripe_sync.shelf import Described


def settings_document(stored: StoredStripe, problem: str | None) -> StripeSettings:
    """A platform's settings. References of the config say where on this machine keys are."""
    document = stripe_document(stored.table)
    if secret_name(stored.table.secret_key) is None:
        document["secret_key"] = document["webhook_secrets"] = None
    return StripeSettings.model_validate(
        {
            **document,
            "mode": mode_word(stored.livemode),
            "webhook_path": f"/webhooks/stripe/{stored.slug}",
            "problem": problem,
            "managed_by": stored.managed_by,
            "created_at": stored.created_ms,
            "updated_at": stored.updated_ms,
        }
    )


def product_document(row: StripeProduct, described: Mapping[tuple[str, str], Described]) -> Product:
    """A product, held against the plan or pack that somebody else describes."""
    known = described.get((row.kind, row.slug))
    linked = known is not None and known.managed_by != BY_STRIPE
    return Product(
        id=row.product_id,
        kind=cast("Literal['plan', 'pack', 'unknown']", row.kind),
        slug=row.slug,
        name=row.name,
        active=row.active,
        problem=row.problem,
        differs=difference(row.metadata, known.what) if known is not None and linked else None,
        prices=[_price(price) for price in row.prices],
        synced_at=row.synced_ms,
    )


def _price(row: StripePrice) -> ProductPrice:
    amount = row.unit_amount
    return ProductPrice(
        id=row.price_id,
        active=row.active,
        amount=None if amount is None else format_minor(amount, row.currency),
        currency=row.currency,
        months=row.months,
        problem=row.problem,
    )


def sync_document(synced: Synced) -> SyncReport:
    """What a look found."""
    return SyncReport(
        mode=mode_word(synced.livemode),
        products=synced.products,
        plans_changed=list(synced.plans_changed),
        packs_changed=list(synced.packs_changed),
        parked=[Parked(product=one, problem=why) for one, why in sorted(synced.parked.items())],
    )


def push_document(pushed: Pushed, *, dry_run: bool) -> PushReport:
    """What was done, or would be."""
    return PushReport(
        mode=mode_word(pushed.livemode),
        dry_run=dry_run,
        steps=[
            PushStep.model_validate(
                {
                    "action": step.action,
                    "object": step.object,
                    "kind": step.kind,
                    "slug": step.slug,
                    "id": step.object_id,
                    "changes": dict(step.changes),
                }
            )
            for step in pushed.steps
        ],
        left_out=[LeftOut(plan=one, problem=why) for one, why in sorted(pushed.left.items())],
    )

"""What can be done with a platform's Stripe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.cursors import read_text_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import PageQuery
from gateway.control.api.roles import EDITORS, OWNERS, VIEWERS
from gateway.control.stripe.documents import (
    product_document,
    push_document,
    settings_document,
    sync_document,
)
from gateway.control.stripe.models import (
    Products,
    PushQuestion,
    PushReport,
    StripeDocument,
    StripeSettings,
    SyncReport,
)
from gateway.stripe_sync import setting_up
from gateway.stripe_sync.products import described_by_platform, sync_catalogue
from gateway.stripe_sync.push import push

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask

PATH = "/v1/stripe"


async def write(ask: Ask, body: StripeDocument) -> StripeSettings:
    """Let the platform have this Stripe from now on."""
    await setting_up.set_stripe(
        ask.ledger, ask.services.billing, ask.services.sealer, ask.platform_id, body.written
    )
    return await read(ask)


async def read(ask: Ask) -> StripeSettings:
    """Which Stripe the platform has, and whether it can be used."""
    found = await setting_up.find_stripe(ask.ledger, ask.services.billing, ask.platform_id)
    return settings_document(found.stored, found.problem)


async def delete(ask: Ask) -> None:
    """Take it away."""
    await setting_up.unset_stripe(ask.ledger, ask.services.billing, ask.platform_id)


async def read_products(ask: Ask, query: PageQuery) -> Products:
    """All products, by id."""
    sync = await ask.services.billing.sync(ask.platform_id)
    known = await ask.ledger.stripe_products(ask.platform_id, sync.livemode)
    after = read_text_cursor(query.cursor) or ""
    # There are few: what a platform sells.
    found = sorted((row for row in known if row.product_id > after), key=lambda row: row.product_id)
    page = found[: query.limit]
    described = await described_by_platform(ask.ledger, ask.platform_id)
    return Products(
        data=[product_document(row, described) for row in page],
        next_cursor=write_cursor(page[-1].product_id) if len(page) < len(found) else None,
    )


async def look(ask: Ask) -> SyncReport:
    """Look at all of the catalogue now."""
    return sync_document(await sync_catalogue(await ask.services.billing.sync(ask.platform_id)))


async def push_plans(ask: Ask, body: PushQuestion) -> PushReport:
    """Make Stripe sell what the platform does, and take over what is there then."""
    sync = await ask.services.billing.sync(ask.platform_id)
    pushed = await push(sync, dry_run=body.dry_run)
    if not body.dry_run:
        await sync_catalogue(sync)
    return push_document(pushed, dry_run=body.dry_run)


ENDPOINTS = (
    Endpoint(
        "GET", PATH, "Read which Stripe the platform has", VIEWERS, read, answers=StripeSettings,
    ),
    Endpoint(
        "PUT", PATH, "Set which Stripe the platform has", OWNERS, write,
        body=StripeDocument, answers=StripeSettings,
        description="Keep its keys by `/v1/secrets` before. The mode is the key's: a key of the "
        "other mode begins with nothing, and finds all again when it is changed back.",
    ),
    Endpoint(
        "DELETE", PATH, "Take the platform's Stripe away", OWNERS, delete, reads=read,
        description="What was bought stays; nothing more is asked of Stripe, or believed.",
    ),
    Endpoint(
        "GET", f"{PATH}/products", "List products at Stripe", VIEWERS, read_products,
        query=PageQuery, answers=Products,
    ),
    Endpoint(
        "POST", f"{PATH}/sync", "Look at Stripe's catalogue now", EDITORS, look, answers=SyncReport,
        description="It is looked at every ten minutes anyway, and whenever an event tells of it.",
    ),
    Endpoint(
        "POST", f"{PATH}/plan-push", "Make Stripe sell what the platform sells", EDITORS,
        push_plans, body=PushQuestion, answers=PushReport,
        description="Products and prices of the plans and packs that the config or the API "
        "describes are made and updated. Prices can't change: another is made, and the old one "
        "archived. What is not tagged as the platform's is never touched.",
    ),
)  # fmt: skip

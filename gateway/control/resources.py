"""Every resource of the API; one line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control import (
    accounts,
    audit_log,
    delegations,
    grants,
    issuers,
    keys,
    logins,
    me,
    offers,
    packs,
    plans,
    platforms,
    receipts,
    revenue,
    routes,
    secrets,
    settlements,
    statements,
    stripe,
    stripe_events,
    subscription,
    tokens,
    traffic,
    transactions,
    usage,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.control.api.endpoint import Endpoint

ENDPOINTS: Sequence[Endpoint] = (
    *accounts.ENDPOINTS,
    *keys.ENDPOINTS,
    *routes.ENDPOINTS,
    *plans.ENDPOINTS,
    *packs.ENDPOINTS,
    *offers.ENDPOINTS,
    *platforms.ENDPOINTS,
    *secrets.ENDPOINTS,
    *stripe.ENDPOINTS,
    *issuers.ENDPOINTS,
    *grants.ENDPOINTS,
    *delegations.ENDPOINTS,
    *tokens.ENDPOINTS,
    *logins.ENDPOINTS,
    *me.ENDPOINTS,
    *settlements.ENDPOINTS,
    *receipts.ENDPOINTS,
    *usage.ENDPOINTS,
    *subscription.ENDPOINTS,
    *transactions.ENDPOINTS,
    *revenue.ENDPOINTS,
    *statements.ENDPOINTS,
    *stripe_events.ENDPOINTS,
    *traffic.ENDPOINTS,
    *audit_log.ENDPOINTS,
)

"""Stripe's customer portal: cards, invoices, and what else its owner lets customers do there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.operations.errors import ConflictError
from gateway.stripe_sync.checkout import check_url

if TYPE_CHECKING:
    from gateway.ledger.rows import AccountRow
    from gateway.stripe_sync.sync import Sync


async def open_portal(sync: Sync, account: AccountRow, return_url: str | None) -> str:
    """A link into the portal that is good for a short time.

    Raises: ConflictError when the account has bought nothing yet; DocumentError for a wrong URL;
    StripeTroubleError.
    """
    if return_url is not None:
        check_url("return_url", return_url)
    customer_id = await sync.ledger.customer_of_account(sync.mode, account.account_id)
    if customer_id is None:
        raise ConflictError("nothing_bought", "the account is no customer yet: let it buy first")
    params: dict[str, Any] = {"customer": customer_id}
    if url := return_url or sync.options.portal_return_url:
        params["return_url"] = url
    session = await sync.api.ask(
        lambda v1: v1.billing_portal.sessions.create_async(params)  # type: ignore[arg-type] # above
    )
    return str(session["url"])

"""Asks Stripe: its own client, with answers as plain values and errors by what to do about them."""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import aiohttp
import stripe

from gateway.stripe_sync.errors import (
    StripeKeyError,
    StripeMissingError,
    StripeRefusedError,
    StripeUnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from stripe._v1_services import V1Services

    from gateway.stripe_sync.settings import StripeSettings

    Document = dict[str, Any]

# Of one request, all in; the client repeats it RETRIES_MAX times with the same idempotency key.
REQUEST_TIMEOUT_S = 10.0
CONNECT_TIMEOUT_S = 5.0
RETRIES_MAX = 2
CONNECTIONS_MAX = 32
PAGE_MAX = 100
# Of one list: more than any account's lines or a month's events of a large platform.
LISTED_MAX = 1_000_000
CONFLICT, SERVER_ERRORS = 409, 500
# An idempotency key was used with other parameters before; Stripe forgets it after a day.
KEY_REUSED = "idempotency_key_reused"


def stripe_session() -> aiohttp.ClientSession:
    """The connections that all platforms' clients share. Keeps no cookies: tenants differ."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


class StripeApi:
    """One platform's Stripe.

    Raises, from any method: StripeUnavailableError, StripeRefusedError, StripeMissingError,
    StripeKeyError.
    """

    def __init__(self, settings: StripeSettings, session: aiohttp.ClientSession) -> None:
        self.missing: list[str] | None = None
        # Telemetry would write a file in the home folder, and there is no option of the client's.
        stripe.enable_telemetry = False
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, connect=CONNECT_TIMEOUT_S)
        base = settings.options.api_base
        self._client = stripe.StripeClient(
            settings.secret_key,
            base_addresses={"api": base, "meter_events": base} if base else None,
            http_client=stripe.AIOHTTPClient(timeout=timeout, session=session),
            max_network_retries=RETRIES_MAX,
        )

    async def ask(
        self, request: Callable[[V1Services], Awaitable[stripe.StripeObject]]
    ) -> Document:
        """What Stripe answers to one request, as `lambda v1: v1.invoices.retrieve_async(id)`."""
        try:
            return (await _translated(request(self._client.v1))).to_dict(for_json=True)
        except StripeMissingError as error:
            if self.missing is not None:
                self.missing.append(str(error))
            raise

    def noting(self, missing: list[str]) -> StripeApi:
        """The same Stripe; whatever it says that it has not is added to these."""
        noting = copy(self)
        noting.missing = missing
        return noting

    async def pages(
        self,
        request: Callable[[V1Services, Any], Awaitable[stripe.StripeObject]],
        *,
        limit: int = LISTED_MAX,
        **params: object,
    ) -> AsyncIterator[Document]:
        """Every object of a list, in Stripe's order: newest first.

        As `lambda v1, params: v1.events.list_async(params)`.
        """
        seen = 0
        while seen < limit:
            page = await self.ask(
                lambda v1: request(v1, {**params, "limit": min(PAGE_MAX, limit - seen)})  # noqa: B023 - awaited at once
            )
            for item in page["data"]:
                yield item
            seen += len(page["data"])
            if not page["has_more"] or not page["data"]:
                return
            params["starting_after"] = page["data"][-1]["id"]


async def _translated(request: Awaitable[stripe.StripeObject]) -> stripe.StripeObject:
    try:
        return await request
    except (stripe.APIConnectionError, stripe.RateLimitError) as error:
        raise StripeUnavailableError(
            f"Stripe can't be asked: {error.user_message or error}"
        ) from error
    except stripe.StripeError as error:
        raise _by_cure(error) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        # The library lets some through as they are (a disconnect within the answer's body).
        raise StripeUnavailableError(f"Stripe can't be asked: {error!r}") from error


def _by_cure(error: stripe.StripeError) -> Exception:
    status = error.http_status or 0
    message = error.user_message or str(error)
    if status >= SERVER_ERRORS or status == CONFLICT:
        return StripeUnavailableError(f"Stripe has trouble: {message}")
    if isinstance(error, stripe.AuthenticationError):
        return StripeKeyError(message)
    if error.code == "resource_missing":
        return StripeMissingError(message, "resource_missing")
    if isinstance(error, stripe.IdempotencyError):
        return StripeRefusedError(message, KEY_REUSED)
    return StripeRefusedError(message, error.code or "")

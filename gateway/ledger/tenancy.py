"""The API's way into Postgres: as a role that row-level security binds, each time for one tenant.

A `Ledger` from here has every method of the one that serves calls. Whatever it asks, Postgres shows
it the rows of its scope and nothing else; without a scope there are none at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from gateway.ledger.database import COMMAND_TIMEOUT_S, SESSION_SETTINGS, Scope
from gateway.ledger.ledger import Ledger

if TYPE_CHECKING:
    from types import TracebackType

# Tenants differ: along which index a list is read is decided for each one, not once for all. A plan
# made for one that has nearly all calls would look for those of another among them.
API_SETTINGS = {"role": "tollkeeper_api", "plan_cache_mode": "force_custom_plan"}
API_CONNECTIONS_MAX = 8


class Tenancy:
    """Connections as the API's role. An async context manager."""

    def __init__(self, url: str, *, connections_max: int = API_CONNECTIONS_MAX) -> None:
        self._ledger = Ledger(
            url,
            connections_max=connections_max,
            command_timeout_s=COMMAND_TIMEOUT_S,
            settings=SESSION_SETTINGS | API_SETTINGS,
        )

    async def __aenter__(self) -> Self:
        await self._ledger.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._ledger.__aexit__(kind, error, traceback)

    def ledger(self, scope: Scope) -> Ledger:
        """The books as this scope may see and change them."""
        return self._ledger.scoped(scope)

"""Every resource of the API; one line for each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control import accounts, grants, keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.control.api.endpoint import Endpoint

ENDPOINTS: Sequence[Endpoint] = (
    *accounts.ENDPOINTS,
    *keys.ENDPOINTS,
    *grants.ENDPOINTS,
)

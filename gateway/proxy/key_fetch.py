"""Fetches the keys of platforms' issuers, over https and only from where owners may lead us."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.identity.jwks import JWKS_DEADLINE_S, KeysAwayError
from gateway.identity.key_set import JWKS_BYTES_MAX
from gateway.upstream import UpstreamError
from gateway.upstream.fetch import fetch
from gateway.upstream.tls import client_context

if TYPE_CHECKING:
    import ssl

    from gateway.upstream import UpstreamClient
    from gateway.upstream.networks import Networks

# At once, of all issuers: each may take JWKS_BYTES_MAX.
FETCHES_MAX = 64


class KeyFetch:
    """Answers what is at a URL."""

    def __init__(self, client: UpstreamClient, networks: Networks) -> None:
        self._client = client
        self._networks = networks
        self._free = asyncio.Semaphore(FETCHES_MAX)
        self._tls: ssl.SSLContext | None = None  # made when it is needed: it costs milliseconds

    async def __call__(self, url: str) -> bytes:
        """The body there. Raises: KeysAwayError."""
        if self._tls is None and url.startswith("https:"):
            self._tls = client_context(None)
        try:
            async with self._free:
                return await fetch(
                    self._client,
                    url,
                    self._networks,
                    bytes_max=JWKS_BYTES_MAX,
                    timeout_s=JWKS_DEADLINE_S,
                    tls=self._tls,
                )
        except (UpstreamError, ValueError) as error:
            raise KeysAwayError(str(error)) from error

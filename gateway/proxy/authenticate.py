"""Who is calling: from an API key to a `Principal`, without I/O once the key is known.

Signed tokens are looked up by `Tokens` (tokens.py), each time: unlike a key they expire.

The cache is safe to keep for ever: which account a key belongs to never changes, and whether key
and account may still call is read by the admit script on every call. Unknown keys are remembered
for a short while, so that a client with a wrong key can't make Postgres work for each of its
calls.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

from gateway.proxy.guards import guard_of
from gateway.proxy.heads import TOKEN_PREFIX
from policies.apikeys import digest, well_formed

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.counters.keys import AccountKeys
    from gateway.ledger import KeyRow

T = TypeVar("T")

KNOWN_KEYS_MAX = 50_000
UNKNOWN_KEYS_MAX = 10_000
UNKNOWN_KEY_TTL_S = 10.0
LOOKUPS_IN_FLIGHT_MAX = 64
FOR_EVER_MS = 2**63


class KeyDirectory(Protocol):
    """Where keys are looked up."""

    async def find_key(self, digest: bytes) -> KeyRow | None:
        """The key of this digest, revoked and expired ones included, or None."""


class Principal:
    """The key, account and platform behind a call, with the packed names that Redis needs.

    `usable_until_ms` is for when Redis can't be asked whether it may call: the key's expiry as it
    was when this was looked up, and 0 if key or account had been refused then, or ever since.
    `discount` is in ten-thousandths; admit tells when it is another by now. `used` is what Redis
    last told of the account's use of tiered units, by route and unit: a first guess for the next.
    `guard` is what the key may be used for (guards.py), and `guard_version` the version of it that
    admit is told; `claimed_routes` are those to which a token narrows its key. `closed` is set once
    Postgres has closed the key, so that neither it nor Redis knows of it any more.
    """

    __slots__ = (
        "account_id",
        "claimed_routes",
        "closed",
        "contexts",
        "digest",
        "discount",
        "guard",
        "guard_version",
        "key_id",
        "key_number",
        "keys",
        "platform_id",
        "usable_until_ms",
        "used",
    )

    def __init__(
        self, row: KeyRow, keys: AccountKeys, claimed_routes: frozenset[str] | None = None
    ) -> None:
        self.platform_id = row.platform_id
        self.account_id = row.account_id
        self.key_id = b"%d" % row.key_id
        self.key_number = row.key_id
        self.keys = keys
        self.contexts = b"%d,%d,%d" % (row.platform_id, row.account_id, row.key_id)
        active = row.key_status == row.account_status == "active"
        self.usable_until_ms = (row.expires_ms or FOR_EVER_MS) if active else 0
        self.discount = row.discount
        self.digest = row.digest
        self.claimed_routes = claimed_routes
        self.guard = guard_of(row, claimed_routes)
        self.guard_version = row.guard_version
        self.used: dict[tuple[int, str], int] = {}
        self.closed = False


class TokenSource(Protocol):
    """Where signed tokens are looked up: `Tokens`."""

    async def look_up(self, token: bytes) -> Principal | None:
        """The principal behind a token; None for one that is not good."""


class TooManyLookupsError(Exception):
    """More unknown keys are being looked up than the bound allows."""


class Authenticator:
    """Turns credentials into principals; bounded in memory and in look-ups under way."""

    def __init__(
        self,
        directory: KeyDirectory,
        pepper: bytes,
        account_keys: Callable[[int], AccountKeys],
        clock: Callable[[], float],
        tokens: TokenSource,
    ) -> None:
        self._tokens = tokens
        self._directory = directory
        self._pepper = pepper
        self._account_keys = account_keys
        self._clock = clock
        self._known: dict[bytes, Principal] = {}
        self._unknown: dict[bytes, float] = {}
        self._lookups: dict[bytes, asyncio.Task[Principal | None]] = {}

    def known(self, credential: bytes) -> Principal | None:
        """The principal if it is in the cache; no I/O."""
        return self._known.get(credential)

    async def look_up(self, credential: bytes) -> Principal | None:
        """The principal from the cache or the directory; None for what is no key.

        Raises: TooManyLookupsError at the bound; the directory's own errors when it can't be asked;
        for a token also IssuerAwayError.
        """
        if credential.startswith(TOKEN_PREFIX):
            return await self._tokens.look_up(credential)
        text = credential.decode("ascii", "replace")
        if not well_formed(text):
            return None
        hashed = digest(text, self._pepper)
        expires = self._unknown.get(hashed)
        if expires is not None:
            if self._clock() < expires:
                return None
            del self._unknown[hashed]
        task = self._lookups.get(hashed)
        if task is None:
            if len(self._lookups) >= LOOKUPS_IN_FLIGHT_MAX:
                raise TooManyLookupsError
            task = asyncio.create_task(self._fetch(credential, hashed))
            self._lookups[hashed] = task
            task.add_done_callback(lambda _: self._lookups.pop(hashed, None))
        return await asyncio.shield(task)

    async def _fetch(self, credential: bytes, hashed: bytes) -> Principal | None:
        row = await self._directory.find_key(hashed)
        if row is None:
            bounded_set(self._unknown, hashed, self._clock() + UNKNOWN_KEY_TTL_S, UNKNOWN_KEYS_MAX)
            return None
        principal = Principal(row, self._account_keys(row.account_id))
        bounded_set(self._known, credential, principal, KNOWN_KEYS_MAX)
        return principal


def bounded_set(cache: dict[bytes, T], key: bytes, value: T, size_max: int) -> None:
    """Insert; the oldest entry makes room."""
    if len(cache) >= size_max:
        del cache[next(iter(cache))]
    cache[key] = value

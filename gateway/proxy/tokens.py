"""Who shows a signed token: from a JWT to a `Principal`.

A delegated token is ours: believed by our public keys, then looked up like a key, by the digest of
its id. Any other may be of an issuer that a platform trusts, and names one of its accounts.

A token that was believed is known until it expires, but not for longer than BELIEVED_MS: by then
its issuer may have taken back the key it was signed with. One that was refused is known for a short
while, so that a client with a bad token costs little. Whether the API key behind a token may call
is for Redis to say, on every call. Callers hear one refusal for all; the log has the reasons.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

from gateway.clock import now_ms
from gateway.identity.claims import CLOCK_LEEWAY_S, Refused, read_envelope
from gateway.identity.jwks import ISSUED_TOKEN_BYTES_MAX, IssuedToken, IssuerAway
from gateway.identity.tokens import DelegatedToken, UnknownKey
from gateway.proxy.authenticate import (
    LOOKUPS_IN_FLIGHT_MAX,
    Principal,
    TooManyLookupsError,
    bounded_set,
)
from policies.apikeys import digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gateway.counters.keys import AccountKeys
    from gateway.identity.claims import Envelope
    from gateway.identity.jwks import IssuerKeys, TrustedIssuer
    from gateway.identity.tokens import PublicKey, Verifier
    from gateway.ledger import KeyRow

BELIEVED_MAX = 10_000
BELIEVED_MS = 300_000
REFUSED_MAX = 10_000
REFUSED_MS = 10_000
# Of one issuer's tokens, how many wait for its keys: its being slow must not fill the memory.
WAITING_PER_ISSUER_MAX = 64

log = logging.getLogger("tollkeeper.proxy")


class IssuerAwayError(Exception):
    """Nobody can say whether a token is good: its issuer does not show its keys."""


class TokenDirectory(Protocol):
    """Where what tokens stand for is looked up: `Ledger`."""

    async def find_key(self, digest: bytes) -> KeyRow | None:
        """The key of this digest, or None."""

    async def issuer_key(
        self, platform_id: int, issuer_id: int, account_name: str
    ) -> KeyRow | None:
        """The key that stands for an account which an issuer names."""

    async def signing_keys(self) -> Sequence[PublicKey]:
        """Our public keys."""


class _Believed(NamedTuple):
    principal: Principal
    until_ms: int


class Tokens:
    """Turns signed tokens into principals; bounded in memory and in what is under way."""

    def __init__(  # noqa: PLR0917 - whom it asks
        self,
        directory: TokenDirectory,
        pepper: bytes,
        account_keys: Callable[[int], AccountKeys],
        verifier: Verifier,
        issuers: IssuerKeys,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self._directory = directory
        self._pepper = pepper
        self._account_keys = account_keys
        self._verifier = verifier
        self._issuers = issuers
        self._clock_ms = clock_ms
        self._identity: tuple[object, ...] = ()  # whom is trusted; another object: others
        self._believed: dict[bytes, _Believed] = {}
        self._refused: dict[bytes, int] = {}  # until when
        self._under_way: dict[bytes, asyncio.Task[Principal | None]] = {}
        self._waiting: Counter[tuple[str, tuple[str, ...]]] = Counter()
        self._looking = 0

    def replace_identity(
        self, public_keys: Iterable[PublicKey], issuers: Iterable[TrustedIssuer]
    ) -> None:
        """Trust these and no others, from the very next call."""
        keys, trusted = tuple(public_keys), tuple(issuers)
        if (keys, trusted) != self._identity:
            self._identity = (keys, trusted)
            self._verifier.replace_keys(keys)
            self._issuers.replace_issuers(trusted)
            self._believed.clear()
            self._refused.clear()

    async def look_up(self, token: bytes) -> Principal | None:
        """The principal behind a token; None for one that is not good.

        Raises: TooManyLookupsError at a bound; IssuerAwayError; the directory's own errors when it
        can't be asked.
        """
        believed = self._believed.get(token)
        if believed is not None:
            if self._clock_ms() < believed.until_ms and not believed.principal.closed:
                return believed.principal
            del self._believed[token]
        name = hashlib.sha256(token).digest()
        until_ms = self._refused.get(name)
        if until_ms is not None:
            if self._clock_ms() < until_ms:
                return None
            del self._refused[name]
        task = self._under_way.get(name)
        if task is None:
            task = asyncio.create_task(self._find(token, name))
            self._under_way[name] = task
            task.add_done_callback(lambda _: self._under_way.pop(name, None))
        return await asyncio.shield(task)

    async def _find(self, token: bytes, name: bytes) -> Principal | None:
        identity = self._identity
        said = await self._verified(token.decode("latin-1"))
        if isinstance(said, UnknownKey):
            return None
        if isinstance(said, Refused):
            self._refuse(name, identity, said.why)
            return None
        row = await self._row_of(said)
        if row is None:
            if isinstance(said, DelegatedToken):  # whose key was there before it
                self._refuse(name, identity, "its key is closed, or of another account")
            else:
                log.info("a token was refused: what it stands for is not here")
            return None
        routes = said.routes if isinstance(said, DelegatedToken) else None
        principal = Principal(
            row, self._account_keys(row.account_id), None if routes is None else frozenset(routes)
        )
        expires_ms = said.expires_ms + CLOCK_LEEWAY_S * 1000
        principal.usable_until_ms = min(principal.usable_until_ms, expires_ms)
        if identity is self._identity:
            until_ms = min(expires_ms, self._clock_ms() + BELIEVED_MS)
            bounded_set(self._believed, token, _Believed(principal, until_ms), BELIEVED_MAX)
        return principal

    def _refuse(self, name: bytes, identity: tuple[object, ...], why: str) -> None:
        """Remember for a while that a token is no good, unless others are trusted by now."""
        log.info("a token was refused: %s", why)
        if identity is self._identity:
            bounded_set(self._refused, name, self._clock_ms() + REFUSED_MS, REFUSED_MAX)

    async def _verified(self, text: str) -> DelegatedToken | IssuedToken | UnknownKey | Refused:
        """Whom a token names. UnknownKey: our keys were loaded too short a while ago to ask."""
        envelope = read_envelope(text, ISSUED_TOKEN_BYTES_MAX)
        if isinstance(envelope, Refused):
            return envelope
        if envelope.issuer != self._verifier.issuer:
            return await self._issued(text, envelope)
        said = self._verifier.delegated(text)
        if isinstance(said, UnknownKey):
            anew = await self._verifier.reload(self._directory.signing_keys)
            said = self._verifier.delegated(text)
            if anew and isinstance(said, UnknownKey):
                return Refused("a key that is not ours")
        return said

    async def _issued(self, text: str, envelope: Envelope) -> IssuedToken | Refused:
        sender = (envelope.issuer, envelope.audiences)
        if self._waiting[sender] >= WAITING_PER_ISSUER_MAX:
            raise TooManyLookupsError
        self._waiting[sender] += 1
        try:
            said = await self._issuers.verify(text)
        finally:
            self._waiting[sender] -= 1
            if not self._waiting[sender]:
                del self._waiting[sender]
        if isinstance(said, IssuerAway):
            raise IssuerAwayError
        return said

    async def _row_of(self, said: DelegatedToken | IssuedToken) -> KeyRow | None:
        """The key that a good token stands for."""
        if self._looking >= LOOKUPS_IN_FLIGHT_MAX:
            raise TooManyLookupsError
        self._looking += 1
        try:
            if isinstance(said, IssuedToken):
                return await self._directory.issuer_key(
                    said.platform_id, said.issuer_id, said.account_name
                )
            row = await self._directory.find_key(digest(said.jti, self._pepper))
        finally:
            self._looking -= 1
        named = (said.account_id, said.key_id, "delegated")
        fits = row is not None and (row.account_id, row.key_id, row.kind) == named
        return row if fits else None

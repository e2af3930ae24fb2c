"""Who gets into the API: its tokens and logins; and requests sent with a key of their own.

What these rows say is believed as it is at the moment of each request: a token that is revoked ends
every login that was begun with it. Digests come from outside; a secret is never here.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from gateway.ledger.database import Database, rows

if TYPE_CHECKING:
    from asyncpg import Record

# What a token of the deployment's admin token has for a prefix; others begin with "tt_".
ADMIN_PREFIX = "admin"


class TokenRow(NamedTuple):
    """A token of the API: an operator's (no platform), a platform's, or an account's."""

    token_id: int
    platform_id: int | None
    platform_slug: str | None
    account_id: int | None
    account_name: str | None
    role: str
    name: str
    prefix: str
    last4: str
    expires_ms: int
    created_ms: int
    revoked_ms: int


class RefreshedSession(NamedTuple):
    """A login that goes on, with its next refresh token."""

    token_id: int
    expires_ms: int


class ReusedRefresh(NamedTuple):
    """An old refresh token of a login that went on: two have it, so the login was ended."""

    token_id: int


class RequestClaim(NamedTuple):
    """The request that came first with a key; without `status` it was not answered yet."""

    request_id: str
    fingerprint: bytes
    age_ms: int  # since it was claimed, or its holder said that it lives
    status: int | None
    answer: bytes | None


class Access(Database):
    """Tokens, logins, claims of requests."""

    async def create_token(
        self,
        platform_id: int | None,
        account_id: int | None,
        *,
        role: str,
        name: str,
        prefix: str,
        last4: str,
        digest: bytes,
        expires_ms: int = 0,
    ) -> int | None:
        """A new token's id; None when the account is not one of the platform's.

        Raises: LedgerRejected for a role that does not go with these, or a digest that is there.
        """
        token_id = await self._session.value(
            "token_insert",
            platform_id,
            account_id,
            role,
            name,
            prefix,
            last4,
            digest,
            expires_ms or None,
        )
        return None if token_id is None else int(token_id)

    async def find_token(self, digest: bytes) -> TokenRow | None:
        """The token of this digest, revoked and expired ones too."""
        return _token(await self._session.one("token_find", digest))

    async def tokens(
        self, platform_id: int | None, account_id: int | None, *, after: int = 0, limit: int
    ) -> list[TokenRow]:
        """Tokens behind an id: a platform's, those of one of its accounts, or operators' (None)."""
        page = await self._session.all("token_page", platform_id, account_id, after, None, limit)
        return rows(TokenRow, page)

    async def token(
        self, platform_id: int | None, account_id: int | None, token_id: int
    ) -> TokenRow | None:
        """One of those that `tokens` lists."""
        return _token(
            await self._session.one("token_page", platform_id, account_id, 0, token_id, 1)
        )

    async def revoke_token(
        self, platform_id: int | None, account_id: int | None, token_id: int
    ) -> bool:
        """End one of those that `tokens` lists, and its logins, for ever. Idempotent."""
        done = await self._session.value("token_revoke", platform_id, account_id, token_id)
        return done is not None

    async def admin_token(self, digest: bytes, name: str) -> int:
        """The id of what stands for the admin token of this digest; made when it is first asked."""
        return int(await self._session.value("token_admin", digest, name, ADMIN_PREFIX))

    async def end_other_admin_tokens(self, digest: bytes) -> int:
        """End what stands for other admin tokens, and their logins; answers how many."""
        return len(await self._session.all("token_admin_end", ADMIN_PREFIX, digest))

    async def begin_session(
        self, session_id: str, token_id: int, refresh_digest: bytes, expires_ms: int
    ) -> None:
        """A login with a token; its id is 32 hex digits."""
        await self._session.value(
            "login_session_insert", UUID(session_id), token_id, refresh_digest, expires_ms
        )

    async def live_session(self, session_id: str) -> TokenRow | None:
        """The token behind a login; None when either is revoked, expired or unknown."""
        return _token(await self._session.one("login_session_find", UUID(session_id)))

    async def refresh_session(
        self, session_id: str, shown_digest: bytes, next_digest: bytes
    ) -> RefreshedSession | ReusedRefresh | None:
        """Let a login go on with another refresh token, once; None when it is over or unknown.

        Whoever knows a session's id had a refresh token of it: if that is not the present one, it
        was used before.
        """
        async with self.transaction() as session:
            row = await session.one("login_session_lock", UUID(session_id))
            if row is None or not row["alive"]:
                return None
            if not hmac.compare_digest(row["refresh_digest"], shown_digest):
                await session.value("login_session_revoke", UUID(session_id))
                return ReusedRefresh(row["token_id"])
            await session.value("login_session_rotate", UUID(session_id), next_digest)
            return RefreshedSession(row["token_id"], row["expires_ms"])

    async def end_session(self, session_id: str) -> None:
        """End a login. Idempotent."""
        await self._session.value("login_session_revoke", UUID(session_id))

    async def delete_sessions(self, limit: int) -> int:
        """Delete logins that have expired; answers how many."""
        return int(await self._session.value("login_session_delete", limit))

    async def claim_request(
        self, actor: str, digest: bytes, fingerprint: bytes, request_id: str
    ) -> RequestClaim | None:
        """Be the first of an actor with this key, of 32 bytes, as None says; or see who was."""
        while True:
            if await self._session.value(
                "api_request_claim", actor, digest, fingerprint, request_id
            ):
                return None
            first = await self._session.one("api_request_find", actor, digest)
            if first is not None:  # else it was released between the two
                return RequestClaim(**first)

    async def take_over_request(
        self, actor: str, digest: bytes, from_request_id: str, request_id: str
    ) -> bool:
        """Have the claim of a request that died; False when somebody was faster."""
        taken = await self._session.value(
            "api_request_take", actor, digest, from_request_id, request_id
        )
        return taken is not None

    async def keep_request(self, actor: str, digest: bytes, request_id: str) -> bool:
        """Begin the lease of a claim anew; False as for `answer_request`."""
        kept = await self._session.value("api_request_keep", actor, digest, request_id)
        return kept is not None

    async def answer_request(
        self, actor: str, digest: bytes, request_id: str, status: int, answer: bytes
    ) -> bool:
        """Keep what a request was answered; False when it does not have the claim any more."""
        kept = await self._session.value(
            "api_request_answer", actor, digest, request_id, status, answer
        )
        return kept is not None

    async def release_request(self, actor: str, digest: bytes, request_id: str) -> bool:
        """Take back the claim of a request that did nothing; False as for `answer_request`."""
        released = await self._session.value("api_request_release", actor, digest, request_id)
        return released is not None

    async def delete_requests(self, older_than_ms: int, limit: int) -> int:
        """Delete claims and answers so old; answers how many."""
        return int(await self._session.value("api_request_delete", older_than_ms, limit))


def _token(record: Record | None) -> TokenRow | None:
    return TokenRow(**record) if record else None

"""Creating requests with an Idempotency-Key: who repeats one gets what the first was answered.

    state       row in api_requests                     a repetition is
    absent      none                                    done
    running     claimed_at, request_id                  409; after CLAIM_LEASE_MS see below
    answered    status and the sealed answer            answered the same, nothing is done

Writes: claim → the resource's own transaction, with its audit entries → answer. Who dies before
the second leaves a claim without any entry of its request: the next one takes the claim over. Who
dies behind the second leaves entries: what was created is there, but its answer is lost, and the
next one is told so. Who lives keeps its claim for as long as it takes. An answer of 4xx changed
nothing and takes the claim back; so does a failure, if there is no entry of its request. A key
means one request of one actor on one platform. Answers are sealed under a key that only who shows
the Idempotency-Key again can derive, for they may hold a secret. Rows are kept for a day.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson
from aiohttp import web

from gateway.control.api.problems import Problem, conflict, invalid_field, problem_of
from gateway.identity.seal import AnswerSealer, CannotOpenError
from gateway.ledger.errors import LedgerUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.ledger import Ledger
    from gateway.ledger.access import RequestClaim

CLAIM_LEASE_MS: Final = 60_000
# How often who has a claim says that it lives: well within the lease, also if Postgres is slow.
CLAIM_BEAT_S = 15.0
KEY_CHARACTERS_MAX: Final = 255
REPLAYED = {"Idempotency-Replayed": "true"}


class Asker(NamedTuple):
    """Whose Idempotency-Keys they are. An operator's are others on each platform."""

    actor: str
    platform_id: int


def change_id_of(asker: Asker, key: str, request: bytes) -> str:
    """32 hex digits, the same for every repetition of a request with its Idempotency-Key.

    What moves credits does so under this id, once: also when whoever did it first died before it
    could say so.
    """
    parts = (
        asker.actor.encode(),
        b"%d" % asker.platform_id,
        key.encode(errors="replace"),
        request,
    )
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]


class Once:
    """Does a creating request once for each key of an actor."""

    def __init__(self, ledger: Ledger, pepper: bytes) -> None:
        """`ledger` is not a tenant's: claims are the deployment's own."""
        self._ledger = ledger
        self._sealer = AnswerSealer(pepper)

    async def answer(
        self,
        asker: Asker,
        key: str,
        request: bytes,
        request_id: str,
        work: Callable[[], Awaitable[web.Response]],
    ) -> web.Response:
        """What `work` answers, or did answer.

        Raises: Problem: 409 while the first still runs or when its answer is lost, 422 for a key of
        another request; and what `work` raises.
        """
        if not 0 < len(key) <= KEY_CHARACTERS_MAX or not key.isascii() or not key.isprintable():
            raise invalid_field(
                "Idempotency-Key", f"Send 1 to {KEY_CHARACTERS_MAX} printable characters."
            )
        actor = asker.actor
        name = hashlib.sha256(b"%d %b" % (asker.platform_id, key.encode())).digest()
        fingerprint = hashlib.sha256(request).digest()
        kept = await self._ledger.claim_request(actor, name, fingerprint, request_id)
        if kept is not None:
            replay = await self._replay(kept, actor, name, fingerprint, (key, request_id))
            if replay is not None:
                return replay
        return await self._do(actor, name, (key, request_id), work)

    async def _do(
        self,
        actor: str,
        name: bytes,
        asked: tuple[str, str],
        work: Callable[[], Awaitable[web.Response]],
    ) -> web.Response:
        _, request_id = asked
        try:
            async with self._kept(actor, name, request_id):
                answer = await work()
        except Exception as failure:
            await self._failed(failure, actor, name, asked)
            raise
        await self._keep(actor, name, asked, answer)
        return answer

    @asynccontextmanager
    async def _kept(self, actor: str, name: bytes, request_id: str) -> AsyncIterator[None]:
        """Has the claim for as long as it takes: nobody takes it over from who is alive."""

        async def beat() -> None:
            while True:
                await asyncio.sleep(CLAIM_BEAT_S)
                with contextlib.suppress(LedgerUnavailable):
                    await self._ledger.keep_request(actor, name, request_id)

        beating = asyncio.create_task(beat())
        try:
            yield
        finally:
            beating.cancel()

    async def _failed(
        self, failure: Exception, actor: str, name: bytes, asked: tuple[str, str]
    ) -> None:
        """Say at once what a repetition is to be told, so that it need not wait for the lease.

        What Postgres did when it could not be asked is not known: then the lease decides.
        """
        if isinstance(failure, LedgerUnavailable):
            return
        _, request_id = asked
        problem = problem_of(failure)
        with contextlib.suppress(LedgerUnavailable):
            refused = problem is not None and problem.status < 500
            if refused or not await self._ledger.request_changed(request_id):
                await self._ledger.release_request(actor, name, request_id)
            else:
                await self._keep(actor, name, asked, _lost(request_id).response(request_id))

    async def _keep(
        self, actor: str, name: bytes, asked: tuple[str, str], answer: web.Response
    ) -> None:
        key, request_id = asked
        kept = {
            "body": bytes(answer.body or b"").decode(),  # type: ignore[arg-type] # JSON's bytes
            "type": answer.content_type,
        }
        sealed = self._sealer.seal(key, orjson.dumps(kept))
        await self._ledger.answer_request(actor, name, request_id, answer.status, sealed)

    async def _replay(
        self,
        kept: RequestClaim,
        actor: str,
        name: bytes,
        fingerprint: bytes,
        asked: tuple[str, str],
    ) -> web.Response | None:
        """The answer of the first; None when it is this one's turn after all."""
        key, request_id = asked
        if kept.fingerprint != fingerprint:
            raise Problem(
                422, "idempotency_mismatch", "This Idempotency-Key was used for another request."
            )
        if kept.answer is not None:
            try:
                document = orjson.loads(self._sealer.open(key, kept.answer))
            except CannotOpenError:
                raise _lost(kept.request_id) from None
            return web.Response(
                text=document["body"],
                content_type=document["type"],
                status=kept.status or 200,
                headers=REPLAYED,
            )
        if kept.age_ms < CLAIM_LEASE_MS:
            raise Problem(
                409,
                "idempotency_in_progress",
                "The first request with this Idempotency-Key still runs.",
                headers={"Retry-After": "1"},
            )
        if await self._ledger.request_changed(kept.request_id):
            raise _lost(kept.request_id)
        if not await self._ledger.take_over_request(actor, name, kept.request_id, request_id):
            raise Problem(409, "idempotency_in_progress", "Another request took this over.")
        return None


def _lost(request_id: str) -> Problem:
    return conflict(
        "answer_lost",
        f"The first request did its work, but its answer is lost: look for what request "
        f"{request_id} made in the audit log, and use another Idempotency-Key for a new one.",
    )

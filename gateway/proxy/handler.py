"""A call's way, step by step.

Every step is a file of this folder; this one is their table of contents.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, cast

from gateway import errors
from gateway.counters import CommandRefused, CountersUnavailable
from gateway.errors import NO_IDS, Refusal, refusal_of
from gateway.proxy.admission import Quest, quest_terms
from gateway.proxy.answers import connection_line, refuse
from gateway.proxy.authenticate import TooManyLookupsError
from gateway.proxy.exchange import Exchange
from gateway.proxy.forward import (
    CONTINUE,
    REQUEST_READ_MAX_BYTES,
    SMALL_BODY_MAX_BYTES,
    BodyError,
    BodyReader,
    body_refusal,
    small_body,
)
from gateway.proxy.heads import read_head
from gateway.proxy.hold import Hold
from gateway.proxy.jsonrpc import ids_of, listens, mistake_in_head
from gateway.proxy.listening import Listeners, Listening
from gateway.proxy.live import RENEWED
from gateway.proxy.quote import QUOTE_PATH, Quotes
from gateway.proxy.replays import Replay
from gateway.proxy.roles import Tools
from gateway.proxy.styles import refuse_stranger
from gateway.proxy.tokens import IssuerAwayError
from gateway.proxy.trust import no_mark
from gateway.proxy.usage import ensure_usage
from gateway.proxy.websocket import WebSocketCall, mistake_in_protocol
from policies.catalog import ErrorStyle
from policies.decision import AccountSuspended, Admitted, KeyRefused
from policies.terms import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from gateway.clock import CallIds
    from gateway.errors import RpcIds
    from gateway.proxy.admission import Admission
    from gateway.proxy.allowance import Raises
    from gateway.proxy.authenticate import Authenticator, Principal
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.idempotency import Idempotency
    from gateway.proxy.keyed import KeyedCall
    from gateway.proxy.live import LiveCall, LiveCalls
    from gateway.proxy.offers import Offer, PlatformOffers
    from gateway.proxy.server import Call
    from gateway.proxy.settle import Settler
    from gateway.proxy.tasks import TaskCall, Tasks
    from gateway.proxy.trust import Trust
    from gateway.upstream import UpstreamClient
    from policies.decision import Admission as Decision
    from policies.meters.facts import RequestFacts

OWN_PREFIX = "/-/"

log = logging.getLogger("tollkeeper.proxy")


class Proxy:
    """Handles calls: authenticate, match, admit; then an `Exchange` carries on."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        admission: Admission,
        settler: Settler,
        raises: Raises,
        live: LiveCalls,
        trust: Trust,
        tasks: Tasks,
        idempotency: Idempotency,
        client: UpstreamClient,
        call_ids: CallIds,
        body_timeout_s: float,
        unready: Callable[[], str | None],
    ) -> None:
        """Take the steps to call.

        `raises` is where holds are raised; `unready` tells why no new call can be taken now.
        """
        self.offers: Mapping[int, PlatformOffers] = {}
        self._authenticator = authenticator
        self._admission = admission
        self._calls: MutableMapping[str, LiveCall] = live.calls
        self._trust = trust
        self._tasks = tasks
        self._idempotency = idempotency
        self._tools = Tools(client, settler, live.mark, body_timeout_s, raises)
        self._tools_on_trust = Tools(client, trust, no_mark, body_timeout_s, None)
        self._call_ids = call_ids
        self._body_timeout_s = body_timeout_s
        self._reader = BodyReader()
        self._quotes = Quotes(admission, self._reader, body_timeout_s)
        self._listeners = Listeners()
        self._unready = unready

    async def handle(self, call: Call) -> None:
        """Serve one request; the client gets an answer or sees its connection cut."""
        call_id = self._call_ids.new()
        head = read_head(call.message)
        if isinstance(head, Refusal):
            refuse_stranger(call, head, call_id)
            return
        if head.path.startswith(OWN_PREFIX) and head.path != QUOTE_PATH:
            self._answer_own(call, head.path, call_id)
            return
        if head.credential is None:
            refuse_stranger(call, errors.UNAUTHENTICATED, call_id)
            return
        principal = self._authenticator.known(head.credential)
        if principal is None:
            found = await self._look_up(head.credential)
            if isinstance(found, Refusal):
                refuse_stranger(call, found, call_id)
                return
            principal = found
        platform = self.offers.get(principal.platform_id)
        if head.path == QUOTE_PATH and platform is not None:
            await self._quotes.answer(call, head, call_id, principal, platform)
            return
        offer = platform.find(head.method, head.path) if platform is not None else None
        if platform is None or offer is None:
            refuse_stranger(call, errors.NO_ROUTE, call_id)
            return
        refusal = self._too_early(head, offer)
        quest = Quest(call_id, principal, platform, offer, head.session, head.credits_max, call)
        if refusal is None and principal.guard is not None:
            refusal = await self._admission.barred(quest)
        if refusal is None:
            await self._serve(call, head, quest)
        else:
            _deny(call, refusal, offer, call_id)

    def _too_early(self, head: RequestHead, offer: Offer) -> Refusal | None:
        """What can be refused before the body is read or credits are looked at."""
        limit = offer.route.body_max_bytes
        if head.content_length is not None and head.content_length > limit:
            return errors.too_large(limit)
        why_not = self._unready()
        if why_not is not None:
            return errors.unavailable(why_not)
        if offer.plain and not head.websocket:
            return None
        mistake = mistake_in_protocol(head, offer.route)
        if mistake is None and offer.rpc is not None:
            mistake = mistake_in_head(head)
        return mistake

    async def _serve(self, call: Call, head: RequestHead, quest: Quest) -> None:
        """Admit and forward, or refuse."""
        offer = quest.offer
        if call.payload.is_eof() and _is_small(head):
            body: bytes | None = call.payload.read_nowait()
            start = b""
        else:
            try:
                body, start = await self._body(call, head, quest)
            except BodyError as failure:
                _deny(call, body_refusal(failure), offer, quest.call_id)
                return
        facts = offer.facts_of(head, body) if offer.needs_request else None
        sell = self._sell_once if head.idempotency_key else self._sell
        refusal = await sell(call, head, quest, facts, (body, start))
        if refusal is not None:
            ids = ids_of(offer.route.errors, facts)
            _deny(call, refusal, offer, quest.call_id, rpc_ids=ids)

    async def _sell_once(
        self,
        call: Call,
        head: RequestHead,
        quest: Quest,
        facts: RequestFacts | None,
        body: tuple[bytes | None, bytes],
    ) -> Refusal | None:
        """The same with an idempotency key: who comes again gets what the first one got."""
        whole, _ = body
        if whole is None:
            return errors.too_large_for_key(REQUEST_READ_MAX_BYTES)
        keyed = await self._idempotency.begin(head, quest, whole)
        if isinstance(keyed, Refusal):
            return keyed
        if isinstance(keyed, Replay):
            keyed.write(call)
            return None
        try:
            refusal = await self._sell(call, head, quest, facts, body, keyed=keyed)
            if refusal is not None:
                await keyed.forget()
        finally:
            await keyed.close()
        return refusal

    async def _sell(  # noqa: PLR0911 - one for each way to be refused
        self,
        call: Call,
        head: RequestHead,
        quest: Quest,
        facts: RequestFacts | None,
        body: tuple[bytes | None, bytes],
        *,
        keyed: KeyedCall | None = None,
    ) -> Refusal | None:
        """Admit and forward, or say why not."""
        task = None
        if quest.offer.has_tasks and facts is not None:
            found = await self._tasks.begin(quest, head, facts)
            if isinstance(found, Refusal):
                return found
            if found is not None:
                task, quest = found, quest._replace(free=not found.pays)
        call_id, principal, _, offer, session, _, _, _ = quest
        terms = quest_terms(quest, facts)
        if type(terms) is not Terms:
            return cast("Refusal", terms)
        try:
            decision = await self._admission.admit(quest, terms)
        except CountersUnavailable as failure:
            # Without a hold nobody could tell whether it runs, or what its task has paid.
            if keyed is not None or task is not None:
                return errors.NOT_RESERVED
            return await self._serve_on_trust(call, head, quest, (terms, facts, *body), failure)
        rounds = 0
        if type(decision) is not Admitted:
            again = await self._admit_again(quest, facts, terms, decision)
            if isinstance(again, Refusal):
                return again
            terms, decision = again
            rounds = RENEWED  # its hold may be of an attempt before, and its lease of a rebuild
        hold = Hold(call_id, principal, offer, decision, session.decode() if session else "", terms)
        exchange = self._calls[call_id] = self._exchange(call, head, hold, facts)
        exchange.rounds = rounds
        if offer.plain and keyed is None:
            await exchange.run(*body)
            return None
        return await self._run(exchange, body, keyed, task)

    async def _run(
        self,
        exchange: Exchange,
        body: tuple[bytes | None, bytes],
        keyed: KeyedCall | None,
        task: TaskCall | None,
    ) -> Refusal | None:
        """Let an admitted call be watched by who has to, and run it."""
        if keyed is not None:
            if not keyed.watch(exchange):
                await self._tools.settler.void(exchange.hold)
                return errors.NOT_RESERVED
            exchange.rounds = RENEWED  # so that its mark is confirmed before it is sent on
        try:
            if task is not None:
                task.watch(exchange)
            if exchange.hold.offer.route.ensure_usage:
                body = ensure_usage(exchange, body)
        except Exception:
            # A mistake of ours: without it here the hold would be renewed for ever.
            await self._tools.settler.void(exchange.hold)
            raise
        await exchange.run(*body)
        return None

    def _exchange(
        self, call: Call, head: RequestHead, hold: Hold, facts: RequestFacts | None
    ) -> Exchange:
        if head.websocket:
            return WebSocketCall(call, head, hold, self._tools, facts)
        if facts is not None and listens(hold.offer.route, hold.terms, facts):
            return Listening(call, head, hold, self._tools, facts, self._listeners)
        return Exchange(call, head, hold, self._tools, facts)

    async def _admit_again(
        self, quest: Quest, facts: RequestFacts | None, terms: Terms, decision: Decision
    ) -> tuple[Terms, Admitted] | Refusal:
        again = await self._admission.again(self._admission.admit, quest, facts, terms, decision)
        if isinstance(again, Refusal):
            return again
        terms, decision = again
        if isinstance(decision, Admitted):
            return terms, decision
        if isinstance(decision, KeyRefused | AccountSuspended):
            quest.principal.usable_until_ms = 0
        return refusal_of(decision, quest.platform.upgrade_url)

    async def _body(
        self, call: Call, head: RequestHead, quest: Quest
    ) -> tuple[bytes | None, bytes]:
        """The whole body; or None and its start, when the rest is to be streamed to the agent.

        Bodies that decide about the price are read before it is known, up to a bound.

        Raises: BodyError.
        """
        if _is_small(head):
            return await small_body(call, self._body_timeout_s), b""
        offer = quest.offer
        wanted = offer.reads_body or head.idempotency_key
        if not wanted or (head.content_length or 0) > REQUEST_READ_MAX_BYTES:
            return None, b""
        if head.expects_continue:
            call.write(CONTINUE)
        start, ended = await self._reader.read(
            call, quest.principal.account_id, self._body_timeout_s, offer.route.body_max_bytes
        )
        return (start, b"") if ended else (None, start)

    async def _serve_on_trust(
        self,
        call: Call,
        head: RequestHead,
        quest: Quest,
        sold: tuple[Terms, RequestFacts | None, bytes | None, bytes],
        failure: CountersUnavailable,
    ) -> Refusal | None:
        """Forward without a hold, where the route allows it and Redis is away."""
        call_id, principal, _, offer, session, _, _, _ = quest
        terms, facts, body, start = sold
        hold = None
        # A Redis that refuses, at maxmemory for instance, is not away. A WebSocket has no end in
        # sight that could be trusted.
        trusted = offer.route.trust_microcredits and not head.websocket
        if trusted and not isinstance(failure, CommandRefused):
            hold = self._trust.admit(principal, offer, terms, call_id, session.decode())
        if hold is None:
            return errors.NOT_RESERVED
        exchange = Exchange(call, head, hold, self._tools_on_trust, facts)
        to_send = body, start
        if offer.route.ensure_usage:
            to_send = ensure_usage(exchange, to_send)
        await exchange.run(*to_send)
        return None

    async def _look_up(self, credential: bytes) -> Principal | Refusal:
        try:
            return await self._authenticator.look_up(credential) or errors.UNAUTHENTICATED
        except TooManyLookupsError:
            return errors.unavailable("Too many new keys at once.")
        except IssuerAwayError:
            return errors.unavailable("Tokens of this issuer can't be verified at the moment.")
        except Exception:
            log.exception("a key could not be looked up")
            return errors.unavailable("Keys can't be looked up at the moment.")

    def _answer_own(self, call: Call, path: str, call_id: str) -> None:
        """The gateway's own paths: liveness and readiness."""
        if path == "/-/healthz":
            why_not = None
        elif path == "/-/readyz":
            why_not = self._unready()
        else:
            refuse(call, errors.NO_ROUTE, ErrorStyle.PROBLEM, call_id)
            return
        if why_not is not None:
            refuse(call, errors.unavailable(why_not), ErrorStyle.PROBLEM, call_id)
            return
        if not call.payload.is_eof():
            call.keep_alive = False
        call.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n%b\r\n%b"
            % (connection_line(call), b"" if call.message.method == "HEAD" else b"ok\n")
        )


def _deny(
    call: Call, refusal: Refusal, offer: Offer, call_id: str, rpc_ids: RpcIds = NO_IDS
) -> None:
    """Refuse a call whose route is known, in that route's words."""
    offer.traffic.denials += 1
    refuse(call, refusal, offer.route.errors, call_id, rpc_ids=rpc_ids)


def _is_small(head: RequestHead) -> bool:
    """Whether the body is read before credits are held; a client that waits for 100 sends later."""
    if head.chunked or head.expects_continue:
        return False
    return head.content_length is None or head.content_length <= SMALL_BODY_MAX_BYTES

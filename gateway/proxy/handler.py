"""A call's way, step by step.

Every step is a file of this folder; this one is their table of contents.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from gateway import errors
from gateway.counters import CommandRefused, CountersUnavailable
from gateway.errors import Refusal, refusal_of
from gateway.proxy.answers import connection_line, refuse
from gateway.proxy.authenticate import TooManyLookupsError
from gateway.proxy.exchange import Exchange, Tools
from gateway.proxy.forward import (
    SMALL_BODY_MAX_BYTES,
    BodyTimeoutError,
    ClientGoneError,
    small_body,
)
from gateway.proxy.heads import read_head
from gateway.proxy.hold import Hold
from gateway.proxy.live import RENEWED
from gateway.proxy.trust import no_mark
from policies.catalog import ErrorStyle
from policies.decision import AccountSuspended, Admitted, KeyRefused, NotLoaded, ShardLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping

    from gateway.clock import CallIds
    from gateway.proxy.admission import Admission
    from gateway.proxy.authenticate import Authenticator, Principal
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.live import LiveCall, LiveCalls
    from gateway.proxy.offers import Offer, PlatformOffers
    from gateway.proxy.server import Call
    from gateway.proxy.settle import Settler
    from gateway.proxy.trust import Trust
    from gateway.upstream import UpstreamClient
    from policies.decision import Admission as Decision

OWN_PREFIX = "/-/"

log = logging.getLogger("tollkeeper.proxy")


class Quest(NamedTuple):
    """A request that may become a call: who asks for what."""

    call_id: str
    principal: Principal
    platform: PlatformOffers
    offer: Offer


class Proxy:
    """Handles calls: authenticate, match, admit; then an `Exchange` carries on."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        admission: Admission,
        settler: Settler,
        live: LiveCalls,
        trust: Trust,
        client: UpstreamClient,
        call_ids: CallIds,
        body_timeout_s: float,
        unready: Callable[[], str | None],
    ) -> None:
        """Take the steps to call. `unready` tells why no new call can be taken now, or None."""
        self.offers: Mapping[int, PlatformOffers] = {}
        self._authenticator = authenticator
        self._admission = admission
        self._calls: MutableMapping[str, LiveCall] = live.calls
        self._trust = trust
        self._tools = Tools(client, settler, live.mark, body_timeout_s)
        self._tools_on_trust = Tools(client, trust, no_mark, body_timeout_s)
        self._call_ids = call_ids
        self._body_timeout_s = body_timeout_s
        self._unready = unready

    async def handle(self, call: Call) -> None:
        """Serve one request; the client gets an answer or sees its connection cut."""
        call_id = self._call_ids.new()
        head = read_head(call.message)
        if isinstance(head, Refusal):
            refuse(call, head, ErrorStyle.PROBLEM, call_id)
            return
        if head.path.startswith(OWN_PREFIX):
            self._answer_own(call, head.path, call_id)
            return
        if head.credential is None:
            refuse(call, errors.UNAUTHENTICATED, ErrorStyle.PROBLEM, call_id)
            return
        principal = self._authenticator.known(head.credential)
        if principal is None:
            found = await self._look_up(head.credential)
            if isinstance(found, Refusal):
                refuse(call, found, ErrorStyle.PROBLEM, call_id)
                return
            principal = found
        platform = self.offers.get(principal.platform_id)
        offer = platform.find(head.method, head.path) if platform is not None else None
        if platform is None or offer is None:
            refuse(call, errors.NO_ROUTE, ErrorStyle.PROBLEM, call_id)
            return
        refusal = self._too_early(head, offer)
        if refusal is None:
            refusal = await self._serve(call, head, Quest(call_id, principal, platform, offer))
        if refusal is not None:
            refuse(call, refusal, offer.route.errors, call_id)

    def _too_early(self, head: RequestHead, offer: Offer) -> Refusal | None:
        """What can be refused before the body is read or credits are looked at."""
        limit = offer.route.body_max_bytes
        if head.content_length is not None and head.content_length > limit:
            return errors.too_large(limit)
        why_not = self._unready()
        return errors.unavailable(why_not) if why_not is not None else None

    async def _serve(self, call: Call, head: RequestHead, quest: Quest) -> Refusal | None:
        """Admit and forward, or say why not."""
        body: bytes | None = None
        if _is_small(head):
            try:
                body = (
                    call.payload.read_nowait()
                    if call.payload.is_eof()
                    else await small_body(call, self._body_timeout_s)
                )
            except BodyTimeoutError:
                return errors.BODY_TIMEOUT
            except ClientGoneError:
                return errors.bad_request("The body ended early.")
        call_id, principal, platform, offer = quest
        try:
            decision = await self._admission.admit(principal, offer, call_id, head.session)
        except CountersUnavailable as failure:
            return await self._serve_on_trust(call, head, quest, body, failure)
        rounds = 0
        if type(decision) is not Admitted:
            latest = await self._admit_again(quest, head.session, decision)
            if isinstance(latest, Refusal):
                return latest
            if not isinstance(latest, Admitted):
                if isinstance(latest, KeyRefused | AccountSuspended):
                    principal.usable_until_ms = 0
                return refusal_of(latest, platform.upgrade_url)
            decision = latest
            rounds = RENEWED  # its hold may be of an attempt before, and its lease of a rebuild
        session = head.session.decode() if head.session else ""
        hold = Hold(call_id, principal, offer, decision, session)
        exchange = self._calls[call_id] = Exchange(call, head, hold, self._tools)
        exchange.rounds = rounds
        await exchange.run(body)
        return None

    async def _serve_on_trust(
        self,
        call: Call,
        head: RequestHead,
        quest: Quest,
        body: bytes | None,
        failure: CountersUnavailable,
    ) -> Refusal | None:
        """Forward without a hold, where the route allows it and Redis is away."""
        call_id, principal, _, offer = quest
        hold = None
        # A Redis that refuses, at maxmemory for instance, is not away.
        if offer.route.trust_microcredits and not isinstance(failure, CommandRefused):
            hold = self._trust.admit(principal, offer, call_id, head.session.decode())
        if hold is None:
            return errors.unavailable("Credits can't be reserved at the moment.")
        await Exchange(call, head, hold, self._tools_on_trust).run(body)
        return None

    async def _look_up(self, credential: bytes) -> Principal | Refusal:
        try:
            return await self._authenticator.look_up(credential) or errors.UNAUTHENTICATED
        except TooManyLookupsError:
            return errors.unavailable("Too many new keys at once.")
        except Exception:
            log.exception("a key could not be looked up")
            return errors.unavailable("Keys can't be looked up at the moment.")

    async def _admit_again(
        self, quest: Quest, session: bytes, decision: Decision
    ) -> Decision | Refusal:
        call_id, principal, _, offer = quest
        try:
            decision = await self._admission.admit_again(
                principal, offer, call_id, session, decision
            )
        except CountersUnavailable:
            return errors.unavailable("Credits can't be reserved at the moment.")
        except Exception:
            log.exception("call %s: its account could not be loaded", call_id)
            return errors.unavailable("The account can't be loaded at the moment.")
        if isinstance(decision, ShardLost):
            log.warning("call %s: not admitted, %r", call_id, decision)
            return errors.unavailable("Credits are being restored after a loss of data.")
        if isinstance(decision, NotLoaded):
            log.error("call %s: not admitted, %r", call_id, decision)
            return errors.unavailable("The account can't be loaded at the moment.")
        return decision

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


def _is_small(head: RequestHead) -> bool:
    """Whether the body is read before credits are held; a client that waits for 100 sends later."""
    if head.chunked or head.expects_continue:
        return False
    return head.content_length is None or head.content_length <= SMALL_BODY_MAX_BYTES

"""A call's way, step by step. Every step is a file of this folder; this one is their table of contents."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from gateway import errors
from gateway.counters import CountersUnavailable
from gateway.errors import Refusal, refusal_of
from gateway.proxy.answers import refuse
from gateway.proxy.authenticate import TooManyLookupsError
from gateway.proxy.exchange import Exchange
from gateway.proxy.forward import (
    SMALL_BODY_MAX_BYTES,
    BodyTimeoutError,
    ClientGoneError,
    small_body,
)
from gateway.proxy.heads import read_head
from gateway.proxy.settle import Hold
from policies.catalog import ErrorStyle
from policies.decision import Admitted, NotLoaded, ShardLost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.clock import CallIds
    from gateway.proxy.admission import Admission
    from gateway.proxy.authenticate import Authenticator, Principal
    from gateway.proxy.heads import RequestHead
    from gateway.proxy.offers import Offer, PlatformOffers
    from gateway.proxy.server import Call
    from gateway.proxy.settle import Settler
    from gateway.upstream import UpstreamClient
    from policies.decision import Admission as Decision

OWN_PREFIX = "/-/"

log = logging.getLogger("tollkeeper.proxy")


class Proxy:
    """Handles calls: authenticate, match, admit, then an `Exchange` forwards, meters and settles."""

    def __init__(
        self,
        *,
        authenticator: Authenticator,
        admission: Admission,
        settler: Settler,
        client: UpstreamClient,
        call_ids: CallIds,
        body_timeout_s: float,
        unready: Callable[[], str | None],
    ) -> None:
        """`unready` tells why new calls can't be taken now, or None."""
        self.offers: Mapping[int, PlatformOffers] = {}
        self._authenticator = authenticator
        self._admission = admission
        self._settler = settler
        self._client = client
        self._call_ids = call_ids
        self._body_timeout_s = body_timeout_s
        self._unready = unready

    async def handle(self, call: Call) -> Call:
        """Serve one request; whatever happens, the client gets an answer or sees its connection cut."""
        call_id = self._call_ids.new()
        head = read_head(call.message)
        if isinstance(head, Refusal):
            refuse(call, head, ErrorStyle.PROBLEM, call_id)
            return call
        if head.path.startswith(OWN_PREFIX):
            self._answer_own(call, head.path, call_id)
            return call
        principal = await self._authenticate(head)
        if isinstance(principal, Refusal):
            refuse(call, principal, ErrorStyle.PROBLEM, call_id)
            return call
        platform = self.offers.get(principal.platform_id)
        offer = platform.find(head.method, head.path) if platform is not None else None
        if platform is None or offer is None:
            refuse(call, errors.NO_ROUTE, ErrorStyle.PROBLEM, call_id)
            return call
        refusal = await self._serve(
            call, head, principal, offer, call_id, platform.platform.upgrade_url
        )
        if refusal is not None:
            refuse(call, refusal, offer.route.errors, call_id)
        return call

    async def _serve(
        self,
        call: Call,
        head: RequestHead,
        principal: Principal,
        offer: Offer,
        call_id: str,
        upgrade_url: str | None,
    ) -> Refusal | None:
        """Admit and forward, or say why not."""
        length = head.content_length
        if length is not None and length > offer.route.body_max_bytes:
            return errors.too_large(offer.route.body_max_bytes)
        if self._unready() is not None:
            return errors.unavailable(f"{self._unready()} Try again shortly.")
        body: bytes | None = None
        if (length is None and not head.chunked) or (
            length is not None and length <= SMALL_BODY_MAX_BYTES and not head.expects_continue
        ):
            try:
                body = await small_body(call, self._body_timeout_s)
            except BodyTimeoutError:
                return errors.BODY_TIMEOUT
            except ClientGoneError:
                return errors.bad_request("The body ended early.")
        decision = await self._admit(principal, offer, call_id)
        if type(decision) is not Admitted:
            if isinstance(decision, Refusal):
                return decision
            return refusal_of(decision, upgrade_url)
        exchange = Exchange(
            call,
            head,
            Hold(call_id, principal, offer, decision),
            client=self._client,
            settler=self._settler,
            body_timeout_s=self._body_timeout_s,
        )
        await exchange.run(body)
        return None

    async def _authenticate(self, head: RequestHead) -> Principal | Refusal:
        credential = head.credential
        if credential is None:
            return errors.UNAUTHENTICATED
        principal = self._authenticator.known(credential)
        if principal is not None:
            return principal
        try:
            return await self._authenticator.look_up(credential) or errors.UNAUTHENTICATED
        except TooManyLookupsError:
            return errors.unavailable("Too many new keys at once.")
        except Exception:
            log.exception("a key could not be looked up")
            return errors.unavailable("Keys can't be looked up at the moment.")

    async def _admit(self, principal: Principal, offer: Offer, call_id: str) -> Decision | Refusal:
        try:
            decision = await self._admission.admit(principal, offer, call_id)
        except CountersUnavailable:
            return errors.unavailable("Credits can't be reserved at the moment.")
        except Exception:
            log.exception("call %s: its account could not be loaded", call_id)
            return errors.unavailable("The account can't be loaded at the moment.")
        if isinstance(decision, NotLoaded | ShardLost):
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
        close = b"" if call.keep_alive else b"Connection: close\r\n"
        call.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n%b\r\n%b"
            % (close, b"" if call.message.method == "HEAD" else b"ok\n")
        )

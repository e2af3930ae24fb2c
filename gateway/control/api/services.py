"""What the API works with, put together by the composition root (gateway/node.py)."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.clock import now_ms
from gateway.control.api.exports import Exports
from gateway.control.api.limiter import Limiter
from gateway.identity.seal import Sealer
from gateway.identity.signing import Signer
from gateway.identity.tokens import Verifier
from gateway.ledger import Tenancy
from gateway.ledger.queue import EventQueue
from gateway.operations.keys import KeyMaker
from gateway.operations.spread import Spread
from gateway.peers import Peers
from gateway.stripe_sync.settings import StoredSettings
from gateway.stripe_sync.sync import Billing

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from gateway.control.credentials import Credentials
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.operations.dry_run import PriceSample
    from gateway.recovery.shards import Shards
    from gateway.upstream.networks import Networks

# Of one address, per minute: attempts to get in that failed, and requests to log in or for tokens.
FAILURES_PER_MINUTE = 30
LOGINS_PER_MINUTE = 20
# Of one caller, be it a key whose agents fan out: each is a row, and a script of Redis.
DELEGATIONS_PER_MINUTE = 600
# Of one caller: each is a session at Stripe, whose own bounds all callers share.
CHECKOUTS_PER_MINUTE = 30


@dataclass(frozen=True, slots=True)
class Services:
    """Everything handlers can ask of the deployment.

    `ledger` is not bound to a tenant: it is for who asks (tokens, sessions), and for operators.
    """

    platform: str  # the slug of the config's platform, an operator's default
    admin_token: str | None
    ledger: Ledger
    tenancy: Tenancy
    counters: Counters
    spread: Spread
    keys: KeyMaker
    sealer: Sealer
    signer: Signer
    verifier: Verifier
    networks: Networks
    shards: Shards
    price_sample: PriceSample  # the proxy's own, which the control plane does not know
    billing: Billing
    events: EventQueue
    operator: str = "operator"  # what the audit log calls who has the admin token
    peers: Peers = field(default_factory=Peers)  # tells clients from the proxies before the API
    exports: Exports = field(default_factory=Exports)
    failures: Limiter = field(default_factory=lambda: Limiter(FAILURES_PER_MINUTE, now_ms))
    logins: Limiter = field(default_factory=lambda: Limiter(LOGINS_PER_MINUTE, now_ms))
    delegating: Limiter = field(default_factory=lambda: Limiter(DELEGATIONS_PER_MINUTE, now_ms))
    checkouts: Limiter = field(default_factory=lambda: Limiter(CHECKOUTS_PER_MINUTE, now_ms))


@asynccontextmanager
async def open_services(
    ledger: Ledger,
    counters: Counters,
    credentials: Credentials,
    *,
    postgres_url: str,
    platform: str,
    deployment: str,
    networks: Networks,
    shards: Shards,
    price_sample: PriceSample,
    operator: str = "operator",
    trusted_proxies: Iterable[str] = (),
) -> AsyncIterator[Services]:
    """The services of a deployment whose schema is there; `deployment` is its id.

    Raises: CannotOpenError when the master key is not the one that sealed what is there;
    LedgerUnavailable.
    """
    sealer = Sealer.of(credentials.master_key)
    signer = Signer(ledger, sealer, deployment)
    if sealer.configured:
        await signer.start()
    verifier = Verifier(deployment)
    verifier.replace_keys(await ledger.signing_keys())
    source = StoredSettings(ledger, sealer)
    async with (
        Tenancy(postgres_url) as tenancy,
        Spread(ledger) as spread,
        Billing(ledger, counters, source, ready=shards.ready) as billing,
        EventQueue(postgres_url) as events,
    ):
        yield Services(
            platform=platform,
            admin_token=credentials.admin_token,
            ledger=ledger,
            tenancy=tenancy,
            counters=counters,
            spread=spread,
            keys=KeyMaker(credentials.env, credentials.pepper),
            sealer=sealer,
            signer=signer,
            verifier=verifier,
            networks=networks,
            shards=shards,
            price_sample=price_sample,
            billing=billing,
            events=events,
            operator=operator,
            peers=Peers(trusted_proxies),
        )

"""Books that hear of a history as the network wants: twice, thin, late, in any order, never."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from gateway.jobs.dunning import look_at_platform
from gateway.ledger.inbox import EventKey
from gateway.ledger.queue import EventQueue
from gateway.operations.accounts import create_account
from gateway.operations.keys import create_key
from gateway.stripe_sync.errors import NeedsMendingError
from gateway.stripe_sync.events import HANDLERS, Hint
from gateway.stripe_sync.processing import TROUBLES, Patience, Processor
from gateway.stripe_sync.reconcile import Reconciler
from gateway.stripe_sync.settings import StripeSettings
from gateway.stripe_sync.sync import Billing, Sync
from gateway.stripe_sync.webhooks import read_event
from policies.billing_options import BillingOptions
from tests.support.billing_rows import BillingRows
from tests.support.deployment import CREDIT, Caller, running_deployment
from tests.support.fake_stripe.events import thin
from tests.support.histories import GAP_DAYS_MAX, IDLE, PLATFORM
from tests.support.stripe_intake import Source

if TYPE_CHECKING:
    import random
    from collections.abc import AsyncIterator

    from gateway.stripe_sync.reconcile import Report
    from tests.support.deployment import Deployment
    from tests.support.fake_stripe.store import Object
    from tests.support.histories import History

ROUNDS_MAX = 12
PATIENT = Patience(tries=1_000, first_ms=1, longest_ms=1)
LOST_SHARE, TWICE_SHARE, THIN_SHARE = 0.12, 0.2, 0.3
RECONCILED_S = (30 - 1 - GAP_DAYS_MAX) * 86_400
# Ids and moments of writing differ; what is said of a payment that failed, for its charge says more
# than an invoice that was given up; and whether something was taken of a lot and given again. So do
# lots that nobody could use: of overage for a period that is over, for who never heard of it while
# it lasted has none for it; and of later months, which a change took back before they began.
SAME = {
    "grants": (
        "SELECT to_jsonb(grants) - '{id,account_id,platform_id,created_at,revoked_at,closed,"
        "credited_microcredits,revoked_microcredits}'::text[]"
        " || jsonb_build_object('gone', revoked_microcredits - credited_microcredits)"
        " FROM grants WHERE business_key IS NOT NULL"
        " AND (source <> 'overage' OR expires_at > now())"
        " AND (expires_at IS NULL OR expires_at > effective_at + interval '1 ms')"
    ),
    "accounts": (
        "SELECT jsonb_build_object('plan', plans.slug, 'renewed_by', renewed_by, 'status',"
        " accounts.status, 'suspended', payment_suspended, 'period', CASE WHEN renewed_by ="
        " 'subscription' THEN jsonb_build_array(period_start_at, period_end_at) END)"
        " FROM accounts LEFT JOIN plans ON plans.id = accounts.plan_id"
    ),
    "subscriptions": (
        "SELECT to_jsonb(subscriptions) - '{id,account_id,platform_id,synced_at}'::text[]"
        " FROM subscriptions"
    ),
    "transactions": (
        "SELECT to_jsonb(billing_transactions)"
        " - '{id,account_id,platform_id,updated_at,failure}'::text[]"
        " || jsonb_build_object('has failed', failure IS NOT NULL) FROM billing_transactions"
    ),
    "lines": (
        "SELECT to_jsonb(billing_lines) - '{transaction_id,account_id,platform_id}'::text[]"
        " || jsonb_build_object('of', business_key)"
        " FROM billing_lines JOIN billing_transactions ON id = transaction_id"
    ),
    "money moved": (
        "SELECT to_jsonb(billing_returns) - '{transaction_id,account_id,platform_id}'::text[]"
        " || jsonb_build_object('of', business_key)"
        " FROM billing_returns JOIN billing_transactions ON id = transaction_id"
    ),
    "paid lots": (
        "SELECT jsonb_build_object('lot', grants.business_key, 'of', made.business_key, 'gave',"
        " microcredits) FROM paid_lots JOIN grants ON grants.id = grant_id"
        " JOIN billing_transactions AS made ON made.id = transaction_id"
    ),
    "taken back": (
        "SELECT jsonb_build_object('of', business_key, 'amount', sum(amount_microcredits))"
        " FROM clawbacks JOIN billing_transactions AS made ON made.id = transaction_id"
        " GROUP BY business_key HAVING sum(amount_microcredits) <> 0"
    ),
    "debts": "SELECT jsonb_build_object('owed', owed_microcredits) FROM account_debts"
    " WHERE owed_microcredits > 0",
}


class Books:
    """One platform's, in a deployment of its own. `chance`: what the network does to events."""

    def __init__(
        self,
        deployment: Deployment,
        caller: Caller,
        billing: Billing,
        sync: Sync,
        queue: EventQueue,
        chance: random.Random | None,
        began_s: int,
    ) -> None:
        self.deployment = deployment
        self.findings = deployment.findings
        self.caller = caller
        self.sync = sync
        self._chance = chance
        self._queue = queue
        self._processor = Processor(billing, refusal=PATIENT, trouble=PATIENT)
        self._heard = 0
        self._held: list[Object] = []
        self._reconciled_s = began_s

    async def hear(self, history: History) -> None:
        """What happened since last time; some of it comes, and some of what was on its way."""
        events, now_s = history.fake.events(), history.fake.clock.now_s
        fresh = [one for one in events[self._heard :] if one["type"] in HANDLERS]
        self._heard = len(events)
        if self._chance is None:
            await self._come(fresh)
            return
        self._held += [one for one in fresh if self._chance.random() > LOST_SHARE]
        self._chance.shuffle(self._held)
        share = self._chance.choice((0.0, 0.0, 0.3, 0.7, 1.0))
        coming, late = _split(self._held, int(len(self._held) * share))
        again = [one for one in coming if self._chance.random() < TWICE_SHARE]
        self._held = late + again
        await self._come(coming)
        # Stripe lists events for 30 days, so nobody may wait for longer than that.
        if now_s - self._reconciled_s > RECONCILED_S:
            self._reconciled_s = now_s
            await self.reconcile()

    async def _come(self, events: list[Object]) -> None:
        """These come, several at a time now and then, and are worked on at once."""
        while events:
            size = 1 if self._chance is None else self._chance.choice((1, 1, 2, 3))
            at_once, events = _split(events, size)
            arrived = [self._body(event) for event in at_once]
            await asyncio.gather(*map(self._receive, arrived))

    def _body(self, event: Object) -> bytes:
        if self._chance is not None and self._chance.random() < THIN_SHARE:
            return json.dumps(thin(event)).encode()
        return json.dumps({k: v for k, v in event.items() if not k.startswith("_")}).encode()

    async def _receive(self, body: bytes) -> None:
        """What the endpoint keeps, and a node works on; one that is known is worked on once more.

        Nobody may count on that being left out: it may have been under way when the node died.
        """
        event = read_event(body).event
        key = EventKey(self.sync.platform_id, livemode=False, event_id=event.event_id)
        if await self._queue.receive(key.platform_id, key.livemode, [event]):
            await self._processor.work(key.text, 0)
            return
        try:
            await HANDLERS[event.type](self.sync, Hint(event.type, event.object_id or "", 0))
        except (*TROUBLES, NeedsMendingError):
            return  # the event itself waits

    async def reconcile(self) -> Report:
        """Find what never came, and work on it until nothing waits."""
        report = await Reconciler(self.sync, self._queue).reconcile()
        await self._work_on_waiting()
        return report

    async def _work_on_waiting(self) -> None:
        for _ in range(ROUNDS_MAX):
            waiting = await self._rows(
                "SELECT event_id FROM stripe_events WHERE status = 'waiting'"
                " ORDER BY created_at, event_id"
            )
            if not waiting:
                return
            if self._chance is not None:
                self._chance.shuffle(waiting)
            for event_id in waiting:
                key = EventKey(self.sync.platform_id, livemode=False, event_id=event_id)
                await self._processor.work(key.text, 0)
        raise AssertionError(f"these can't be worked on: {waiting}")

    async def end(self) -> None:
        """All that is on its way comes, what was lost is found, and time has its part."""
        coming, self._held = self._held, []
        await self._come(coming)
        await self._work_on_waiting()
        await self.reconcile()
        await look_at_platform(self.sync)

    async def spend(self, share: float) -> None:
        """A call takes so much of what there is, if the account may call."""
        await self.deployment.carry()
        if await self._rows("SELECT id FROM accounts WHERE payment_suspended"):
            return
        amount = int(await self.available() * share)
        if amount:
            await self.deployment.call(self.caller, amount)
        await self.deployment.carry()

    async def available(self) -> int:
        """What calls can take now, in Redis, without overage."""
        fields = (await self.deployment.counters.inspect(self.caller.keys)).fields
        now_ms = (await self._rows("SELECT to_ms(now())"))[0]
        return sum(
            int(fields[f"a:{token}"])
            for token in fields["lots"].split()
            if not token.endswith("o")
            and int(fields[f"f:{token}"]) <= now_ms
            and not 0 < int(fields[f"e:{token}"]) <= now_ms
        )

    async def ledger(self) -> dict[str, list[str]]:
        """All that every books of this history must agree on."""
        return {table: sorted(map(str, await self._rows(query))) for table, query in SAME.items()}

    async def worth(self) -> tuple[int, list[str], list[str], list[str]]:
        """The same once something was spent.

        Of lots that end at the same time calls take either, and what of one was spent is owed when
        its payment goes back. What is there less what is owed is the same.
        """
        await self.deployment.carry()
        owed = await self.deployment.ledger.owed(self.caller.account.account_id)
        said = await self.ledger()
        left = await self.available() - owed
        return left, said["taken back"], said["transactions"], said["money moved"]

    async def _rows(self, query: str) -> list[Any]:
        connection = await asyncpg.connect(self.deployment.postgres_url)
        try:
            return [row[0] for row in await connection.fetch(query)]
        finally:
            await connection.close()


@asynccontextmanager
async def opened_books(
    redis_url: str, postgres_url: str, history: History, chance: random.Random | None = None
) -> AsyncIterator[Books]:
    """Empty books of the history's customer. Without a `chance` they hear all at once, in order."""
    async with AsyncExitStack() as stack:
        deployment = await stack.enter_async_context(running_deployment(redis_url, postgres_url))
        await deployment.ledger.apply_catalog(PLATFORM, [IDLE], [])
        caller = await _caller(deployment)
        await deployment.call(caller, CREDIT)  # loads it, with nothing left
        rows = BillingRows(postgres_url, deployment.platform_id, livemode=False)
        account_id = caller.account.account_id
        customer_id = history.customer_id
        await rows.insert(
            "stripe_customers", account_id=account_id, customer_id=customer_id, livemode=False
        )
        settings = StripeSettings(
            deployment.platform_id,
            PLATFORM.slug,
            livemode=False,
            secret_key=history.fake.api_key,
            options=BillingOptions(api_base=history.fake.url),
        )
        source = Source({deployment.platform_id: settings})
        billing = await stack.enter_async_context(
            Billing(deployment.ledger, deployment.counters, source)
        )
        queue = await stack.enter_async_context(EventQueue(postgres_url))
        sync = await billing.sync(deployment.platform_id)
        began_s = history.fake.clock.now_s
        yield Books(deployment, caller, billing, sync, queue, chance, began_s)


async def _caller(deployment: Deployment) -> Caller:
    """Somebody on the signup plan, as people who sign up are."""
    ledger, counters = deployment.ledger, deployment.counters
    made = await create_account(
        ledger, deployment.platform_id, "alice", plan=IDLE.slug, microcredits=CREDIT
    )
    key = await create_key(ledger, counters, made.account, deployment.maker)
    return Caller(made.account, key.key_id, counters.keys(made.account.account_id))


def _split(events: list[Object], at: int) -> tuple[list[Object], list[Object]]:
    return events[:at], events[at:]

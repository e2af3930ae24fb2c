"""A gateway that sells, its servers and the fake Stripe, on one clock that tests move by months.

Real processes: Redis, Postgres, the sample agent, and `tollkeeper serve` with its proxy, control
plane and jobs as they are. The fake Stripe is in this process; its events come by HTTP.
"""

from __future__ import annotations

import asyncio
import json
import signal
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import aiohttp
import asyncpg

from gateway.identity.master_key import new_master_key
from policies.units import format_credits
from tests.support import servers
from tests.support.dev import HELLO, TOLLKEEPER, Dev, launch, ready
from tests.support.fake_stripe.face import FakeStripe
from tests.support.moved_clock import DAY_MS, moved_clock, whole_environment
from tests.support.ports import free_port
from tests.support.stripe_shop import Shop, client_of
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from tests.support.fake_stripe.payment_methods import Behaviour
    from tests.support.moved_clock import MovedClock

ADMIN_TOKEN = "operator of the tests"
ROUTE = "/chat"
# Everything that happened is worked on; jobs that look now and then, at the latest every minute,
# have looked.
SETTLED_S_MAX = 60.0
JOBS_S_MAX = 90.0
COMMAND_S_MAX = 60.0
PAST_S = 3 * 3_600
CONFIG = """\
[gateway]
proxy_listen = "{proxy}"
control_listen = "{control}"
redis_url = "{redis}"
postgres_url = "{postgres}"
key_pepper = "env:TEST_PEPPER"
master_key = "env:TEST_MASTER_KEY"
shards = 4
private_upstreams = ["127.0.0.0/8"]
[platform]
slug = "demo"
signup_plan = "free"
trial_credits = "50"
trial_days = 3
[[plans]]
slug = "free"
credits = "10"
[[plans]]
slug = "pro"
credits = "1000"
trial_days = 5
trial_credits = "100"
price_per_month = "20 usd"
[[plans]]
slug = "max"
credits = "5000"
price_per_month = "90 usd"
[[packs]]
slug = "small"
credits = "300"
validity_days = 90
price = "15 usd"
[[routes]]
name = "chat"
match = "POST {route}"
upstream = "{agent}/v1/chat/completions"
price = {{ per_request = "1" }}
[stripe]
secret_key = "env:TEST_STRIPE_KEY"
webhook_secrets = ["env:TEST_STRIPE_WEBHOOK"]
success_url = "https://shop.example/paid"
api_base = "{stripe}"
"""


class Ran(NamedTuple):
    """A command that has ended."""

    code: int
    output: str
    errors: str


class Account:
    """Somebody who buys: an account, and its admin."""

    def __init__(self, account_id: int, key: str, token: str) -> None:
        self.account_id = account_id
        self.key = key
        self.token = token
        self.has_called = False  # until then Redis need not know of it


class Paying:
    """The deployment. `node` may be killed and started again."""

    def __init__(
        self,
        config: Path,
        environment: Mapping[str, str],
        postgres_url: str,
        clock: MovedClock,
        shop: Shop,
        session: aiohttp.ClientSession,
    ) -> None:
        self.clock = clock
        self.shop = shop
        self.fake = shop.fake
        self.postgres_url = postgres_url
        self.node = Dev(None)  # type: ignore[arg-type] # none is started yet
        self._config = config
        self._environment = environment
        self._session = session

    async def start(self) -> None:
        """Start the gateway."""
        command = [*TOLLKEEPER, "serve", "--json", "--config", str(self._config)]
        self.node = await ready(await launch(command, env=self._environment))

    async def stop(self) -> None:
        """Stop the gateway that runs now."""
        await self.node.stop()

    async def kill(self) -> None:
        """Kill the gateway as the kernel does when memory is short; its workers end by it."""
        self.node.process.send_signal(signal.SIGKILL)
        await self.node.process.wait()

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str = ADMIN_TOKEN
    ) -> Any:
        """What the API answers, which is no problem."""
        headers = {"Authorization": f"Bearer {token}"}
        url = self.node.ready["control_url"] + path
        async with self._session.request(method, url, json=body, headers=headers) as answer:
            document = await answer.json(content_type=None) if answer.status != 204 else None
            assert answer.status < 300, (method, path, document)
            return document

    async def sign_up(self, name: str = "pat") -> Account:
        """A new account on what new accounts get, with a key for calls, and its admin's token."""
        made = await self.ask("POST", "/v1/accounts", {"name": name})
        path = f"/v1/accounts/{made['id']}"
        key = await self.ask("POST", f"{path}/keys", {"name": "calls"})
        admin = {"name": "admin", "role": "admin", "account_id": made["id"]}
        token = await self.ask("POST", "/v1/tokens", admin)
        return Account(int(made["id"]), key["secret"], token["token"])

    async def own(self, account: Account, method: str, path: str, body: object = None) -> Any:
        """What the API answers to the account's admin."""
        return await self.ask(method, path, body, token=account.token)

    async def subscribe(
        self, account: Account, plan: str = "pro", card: Behaviour = "works", **order: Any
    ) -> Any:
        """Subscribe, and pay on the page."""
        wish = {"plan": plan, **order}
        page = await self.own(account, "POST", "/v1/subscribe", wish)
        session = self.fake.complete_checkout(page["session_id"], card)
        await self.settled()
        return session

    async def buy_pack(self, account: Account, quantity: int = 1, card: Behaviour = "works") -> Any:
        """Buy packs, and pay on the page."""
        wish = {"pack": "small", "quantity": quantity}
        page = await self.own(account, "POST", "/v1/me/packs", wish)
        session = self.fake.complete_checkout(page["session_id"], card)
        await self.settled()
        return session

    async def change(self, account: Account, plan: str) -> Any:
        """Another plan, as the account wants it."""
        changed = await self.own(account, "POST", "/v1/me/subscription/change", {"plan": plan})
        await self.settled()
        return changed

    async def subscription(self, account: Account) -> Any:
        """What the account is subscribed to, as it reads it itself."""
        return await self.own(account, "GET", "/v1/me/subscription")

    async def standing(self, account: Account) -> tuple[str | None, str, bool]:
        """The account's plan, who renews it, and whether it is suspended for want of payment."""
        said = await self.ask("GET", f"/v1/accounts/{account.account_id}")
        return said["plan"], said["renewed_by"], said["payment_suspended"]

    async def reaches(self, account: Account, stage: str) -> None:
        """Wait until its subscription is unpaid for so long that it is at this stage."""

        async def is_there() -> bool:
            problem = (await self.subscription(account))["payment_problem"]
            return problem is not None and problem["stage"] == stage

        await eventually(is_there, deadline_s=JOBS_S_MAX)
        await self.settled()

    async def owed(self, account: Account) -> str:
        """What was spent although its payment went back."""
        return str((await self.ask("GET", f"/v1/accounts/{account.account_id}"))["debt_credits"])

    async def paid(self, account: Account) -> list[int]:
        """Amounts of payments that succeeded, in minor units, as they fell due."""
        return list(
            await self.sql(
                "SELECT coalesce(array_agg(amount_minor ORDER BY created_at, id), '{}')"
                " FROM billing_transactions WHERE account_id = $1 AND status = 'succeeded'",
                account.account_id,
            )
        )

    async def told(self, account: Account) -> list[str]:
        """Kinds of what the account was told of, in their order."""
        return list(
            await self.sql(
                "SELECT coalesce(array_agg(kind ORDER BY id), '{}') FROM account_events"
                " WHERE account_id = $1 AND kind NOT IN ('threshold', 'low_credits')",
                account.account_id,
            )
        )

    async def call(self, account: Account, times: int = 1) -> set[int]:
        """Calls through the proxy, each of one credit; their statuses."""
        headers = {"Authorization": f"Bearer {account.key}"}
        url = self.node.ready["proxy_url"] + ROUTE

        async def one() -> int:
            async with self._session.post(url, json=HELLO, headers=headers) as answer:
                await answer.read()
                return answer.status

        statuses = set(await asyncio.gather(*(one() for _ in range(times))))
        account.has_called = True
        await self.settled()
        return statuses

    async def advance(self, *, days: int = 0, ms: int = 0) -> None:
        """Let time pass: from one thing that falls due at Stripe to the next, on both clocks.

        After each all that follows from it is done here, before time goes on.
        """
        to_ms = self.clock.now_ms + days * DAY_MS + ms
        while (due_s := self._next_due_s()) is not None and due_s * 1_000 <= to_ms:
            self.clock.advance_to(due_s * 1_000)
            await self.fake.advance_to(due_s)
            await self.settled()
        self.clock.advance_to(to_ms)
        await self.fake.advance_to(self.clock.now_ms // 1_000)
        await self.settled()

    async def advance_past(self, moment: str) -> None:
        """To some hours after a moment that the API said: drafts are paid, the bridge is over."""
        to_s = datetime.fromisoformat(moment).timestamp() + PAST_S
        await self.advance(ms=max(round(to_s * 1_000) - self.clock.now_ms, 0))

    async def advance_past_renewal(self, account: Account) -> None:
        """The same after its subscription is to be paid for again."""
        await self.advance_past((await self.subscription(account))["renews_at"])

    def _next_due_s(self) -> int | None:
        """When the next thing falls due at Stripe, after what its clock says."""
        rows = self.fake.agenda.dump()
        return min((max(row[0], self.fake.clock.now_s) for row in rows), default=None)

    async def deliver_all(self, seed: int) -> None:
        """Send every event that there was, at once, shuffled; some for the second time."""
        await self.fake.deliver([*self.fake.deliveries.all], order=seed)

    async def settled(self) -> None:
        """All events were delivered and worked on, and Postgres has what Redis has."""
        await self.fake.delivered()
        await eventually(self._is_settled, deadline_s=SETTLED_S_MAX)

    async def _is_settled(self) -> bool:
        waiting = (
            "SELECT (SELECT count(*) FROM stripe_events WHERE status = 'waiting')"
            " + (SELECT count(*) FROM untold_accounts)"
        )
        if await self.sql(waiting):
            return False
        return await self._outbox_is_empty()

    async def _outbox_is_empty(self) -> bool:
        url = self.node.ready["control_url"] + "/metrics"
        async with self._session.get(url) as answer:
            lines = (await answer.text()).splitlines()
        return "tollkeeper_outbox_entries 0.0" in lines

    async def has(self, account: Account, credits_: int | str) -> None:
        """Fail unless the account has exactly so much now, by Redis and by Postgres.

        Jobs give and withdraw what time alone moves a few seconds late.
        """
        said: tuple[Any, ...] = ()

        async def both_say_so() -> bool:
            nonlocal said
            said = await self.balances(account)
            return said == (str(credits_), str(credits_))

        try:
            await eventually(both_say_so, deadline_s=JOBS_S_MAX)
        except TimeoutError:
            raise AssertionError(f"{said} in Redis and Postgres, not {credits_}") from None

    async def balances(self, account: Account) -> tuple[str, str]:
        """What calls can take now, without overage: by Redis, through the API, and by Postgres."""
        said = await self.own(account, "GET", "/v1/me/balance")
        assert said["live"] or not account.has_called
        in_postgres = await self.sql(
            "SELECT coalesce(sum(amount_microcredits + credited_microcredits"
            " - settled_microcredits - expired_microcredits - revoked_microcredits), 0)::bigint"
            " FROM grants WHERE account_id = $1 AND source <> 'overage'"
            " AND effective_at <= now() AND (expires_at IS NULL OR expires_at > now())",
            account.account_id,
        )
        return said["available_credits"], format_credits(in_postgres)

    async def sql(self, statement: str, *arguments: object) -> Any:
        """The first value that a statement answers."""
        connection = await asyncpg.connect(self.postgres_url)
        try:
            return await connection.fetchval(statement, *arguments)
        finally:
            await connection.close()

    async def command(self, *words: str) -> Ran:
        """A command of the operator's, on the same clock."""
        process = await asyncio.create_subprocess_exec(
            *(*TOLLKEEPER, *words, "--json", "--config", str(self._config)),
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(COMMAND_S_MAX):
            output, errors = await process.communicate()
        return Ran(process.returncode or 0, output.decode(), errors.decode())

    async def audit(self) -> None:
        """Fail unless `audit` and `reconcile` find nothing."""
        for words in (("audit",), ("reconcile",)):
            ran = await self.command(*words)
            assert ran.code == 0, ran
            assert json.loads(ran.output)["findings"] == [], ran.output


@asynccontextmanager
async def opened_paying(folder: Path, agent_url: str) -> AsyncIterator[Paying]:
    """A deployment that sells two plans and a pack, with nobody in it.

    Every user may read `folder`: servers of a test that root runs are somebody else's.
    """
    async with AsyncExitStack() as stack:
        clock = stack.enter_context(moved_clock(folder))
        redis_url = await stack.enter_async_context(servers.redis_server(folder / "redis"))
        postgres_url = await stack.enter_async_context(servers.postgres_server(folder / "postgres"))
        fake = await stack.enter_async_context(
            FakeStripe.running(now_s=clock.now_ms // 1_000, signed_at=lambda: clock.now_ms / 1_000)
        )
        shop = Shop(fake, await stack.enter_async_context(client_of(fake)))
        proxy, control = (f"127.0.0.1:{free_port()}" for _ in range(2))
        config = folder / "config.toml"
        text = CONFIG.format(
            proxy=proxy,
            control=control,
            redis=redis_url,
            postgres=postgres_url,
            route=ROUTE,
            agent=agent_url,
            stripe=fake.url,
        )
        config.write_text(text)
        environment = whole_environment(clock) | {
            "TEST_PEPPER": "pepper of the tests",
            "TEST_MASTER_KEY": new_master_key(),
            "TEST_STRIPE_KEY": fake.api_key,
            "TEST_STRIPE_WEBHOOK": fake.webhook_secret,
            "TOLLKEEPER_ADMIN_TOKEN": ADMIN_TOKEN,
        }
        session = await stack.enter_async_context(aiohttp.ClientSession())
        paying = Paying(config, environment, postgres_url, clock, shop, session)
        await paying.start()
        stack.push_async_callback(paying.stop)
        await paying.ask("POST", "/v1/stripe/plan-push", {"dry_run": False})
        fake.add_endpoint(f"http://{control}/webhooks/stripe/demo", forms=("snapshot", "thin"))
        yield paying

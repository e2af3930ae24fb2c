"""The API of a deployment in the test's own process, with somebody of each role on two platforms.

`running_api` serves it on a free port, on real Redis and Postgres. Workers are the test's affair
(`tests/support/gateway.py`); without one, changes of the catalogue are waited for by nobody.
"""

from __future__ import annotations

import secrets
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg

from gateway.config import GatewayConfig
from gateway.control.api.roles import Role
from gateway.control.api.services import Services, open_services
from gateway.control.app import build_app, serving
from gateway.control.credentials import Credentials
from gateway.control.metrics import Metrics
from gateway.counters import Counters
from gateway.identity.master_key import new_master_key
from gateway.ledger import Ledger
from gateway.operations.accounts import create_account
from gateway.operations.keys import KeyMaker, create_key
from gateway.operations.lost_shards import seeing_to_shards
from gateway.ports import held_port, hold
from gateway.proxy.dry_run import price_sample
from gateway.upstream.networks import Networks
from policies.apikeys import ALPHABET, RANDOM_CHARACTERS, checksum, digest
from policies.catalog import Plan, Platform
from tests.support.gateway import PEPPER
from tests.support.nodes import SomeNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.ledger import AccountRow
    from gateway.operations.keys import NewKey

CREDIT = 1_000_000
ADMIN_TOKEN = "admin token of the tests"
PLANS = (Plan("free", 100 * CREDIT), Plan("pro", 1_000 * CREDIT, requests_per_minute=60))
SHARDS = 4
LOCAL_NETWORKS = ("127.0.0.0/8", "::1/128")


@dataclass
class Answer:
    """What the API answered; `body` is its JSON document, else its text."""

    status: int
    headers: Any
    body: Any

    @property
    def code(self) -> str:
        return str(self.body["code"])

    @property
    def wrong(self) -> dict[str, str]:
        """What is wrong, by field."""
        return {error["field"]: error["message"] for error in self.body.get("errors", [])}

    @property
    def etag(self) -> str:
        return str(self.headers["ETag"])


class Client:
    """Somebody who asks."""

    def __init__(self, session: aiohttp.ClientSession, url: str, credential: str | None) -> None:
        self._session = session
        self._url = url
        self.credential = credential

    async def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        headers: dict[str, str] | None = None,
        **query: object,
    ) -> Answer:
        """One request; what is None of the query is left out."""
        own = {"Authorization": f"Bearer {self.credential}"} if self.credential else {}
        async with self._session.request(
            method,
            self._url + path,
            json=body,
            headers={**own, **(headers or {})},
            params={name: str(value) for name, value in query.items() if value is not None},
        ) as answer:
            text = await answer.text()
            is_json = answer.content_type in {"application/json", "application/problem+json"}
            document = await answer.json(content_type=None) if is_json and text else text
            return Answer(answer.status, answer.headers, document)

    async def get(self, path: str, **query: Any) -> Answer:
        return await self.ask("GET", path, **query)

    async def post(self, path: str, body: object = None, **options: Any) -> Answer:
        return await self.ask("POST", path, body, **options)

    async def patch(self, path: str, body: object, **options: Any) -> Answer:
        return await self.ask("PATCH", path, body, **options)

    async def put(self, path: str, body: object, **options: Any) -> Answer:
        return await self.ask("PUT", path, body, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.ask("DELETE", path, **options)


@dataclass
class Tenant:
    """A platform with two plans, and an account `alice` with 100 credits and a key."""

    platform_id: int
    slug: str
    account: AccountRow
    key: NewKey
    tokens: dict[Role, str] = field(default_factory=dict)


class Api:
    """A running API. `demo` is the platform of its config, `other` a foreign one."""

    def __init__(
        self, session: aiohttp.ClientSession, url: str, services: Services, postgres_url: str
    ) -> None:
        self.url = url
        self.services = services
        self.ledger = services.ledger
        self.counters = services.counters
        self.postgres_url = postgres_url
        self.demo: Tenant
        self.other: Tenant
        self.credentials: Credentials
        self._session = session

    def client(self, credential: str | None) -> Client:
        """Whoever shows this."""
        return Client(self._session, self.url, credential)

    def as_(self, role: Role | str, tenant: Tenant | None = None) -> Client:
        """Somebody of this role, on `demo` unless it is said otherwise."""
        if Role(role) is Role.OPERATOR:
            return self.client(ADMIN_TOKEN)
        return self.client((tenant or self.demo).tokens[Role(role)])

    def as_key(self, tenant: Tenant | None = None) -> Client:
        """The account's API key."""
        return self.client((tenant or self.demo).key.text)

    @property
    def stranger(self) -> Client:
        return self.client(None)


@asynccontextmanager
async def running_api(postgres_url: str, redis_url: str) -> AsyncIterator[Api]:
    """An API on a migrated database, and on a Redis that is its own."""
    async with AsyncExitStack() as stack:
        ledger = await stack.enter_async_context(Ledger(postgres_url))
        counters = await stack.enter_async_context(
            Counters(redis_url, shards=SHARDS, deadline_ms=2_000)
        )
        credentials = Credentials(PEPPER, ADMIN_TOKEN, new_master_key(), "dev")
        shards = await stack.enter_async_context(
            seeing_to_shards(ledger, counters, lease_s=GatewayConfig().lease_s)
        )
        services = await stack.enter_async_context(
            open_services(
                ledger,
                counters,
                credentials,
                postgres_url=postgres_url,
                platform="demo",
                deployment=await ledger.fix_setting("deployment", "0" * 32),
                networks=Networks.of(LOCAL_NETWORKS),
                shards=shards,
                price_sample=price_sample,
            )
        )
        demo = await _tenant(ledger, counters, postgres_url, "demo")
        other = await _tenant(ledger, counters, postgres_url, "other")
        app = build_app(SomeNode(), ADMIN_TOKEN, Metrics(), services, host="127.0.0.1")
        bound = stack.enter_context(hold("127.0.0.1"))
        await stack.enter_async_context(serving(app, bound))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        api = Api(session, f"http://127.0.0.1:{held_port(bound)}", services, postgres_url)
        api.demo, api.other, api.credentials = demo, other, credentials
        yield api


async def _tenant(ledger: Ledger, counters: Counters, postgres_url: str, slug: str) -> Tenant:
    report = await ledger.apply_catalog(Platform(slug, slug.title(), None), PLANS, [])
    platform_id = report.platform_id
    made = await create_account(ledger, platform_id, "alice", microcredits=100 * CREDIT)
    key = await create_key(ledger, counters, made.account, KeyMaker("dev", PEPPER))
    tenant = Tenant(platform_id, slug, made.account, key)
    connection = await asyncpg.connect(postgres_url)
    try:
        for role in (Role.OWNER, Role.EDITOR, Role.VIEWER, Role.ADMIN, Role.MEMBER):
            own = made.account.account_id if role in (Role.ADMIN, Role.MEMBER) else None
            tenant.tokens[role] = await _token(connection, platform_id, own, role)
    finally:
        await connection.close()
    return tenant


async def _token(
    connection: asyncpg.Connection[asyncpg.Record],
    platform_id: int,
    account_id: int | None,
    role: Role,
) -> str:
    """An API token as `gateway/operations/tokens.py` makes them, without its questions."""
    body = "tt_dev_" + "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
    text = body + checksum(body)
    await connection.execute(
        "INSERT INTO api_tokens (platform_id, account_id, role, name, prefix, last4, digest)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        platform_id,
        account_id,
        role.value,
        f"of the {role}",
        text[:11],
        text[-4:],
        digest(text, PEPPER),
    )
    return text

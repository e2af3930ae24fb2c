"""Every way in: keys, delegated tokens, tokens of a platform's own issuer; and who stays out."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from gateway.identity.master_key import new_master_key
from gateway.identity.seal import Sealer
from gateway.identity.signing import Signer
from gateway.jobs.delegations import Delegations
from gateway.ledger import Ledger
from gateway.operations.delegations import delegate
from gateway.operations.issuers import Trust, register_issuer, remove_issuer
from gateway.operations.keys import KeyChanges, change_key, revoke_key
from gateway.operations.publish import publisher
from gateway.proxy.heads import TOKEN_BYTES_MAX
from gateway.upstream import Networks
from policies.catalog import Platform
from tests.support.billing_calendar import LostShards
from tests.support.faulty_redis import OwnRedis
from tests.support.gateway import (
    CREDIT,
    PEPPER,
    Gateway,
    chat_route,
    open_route,
    running_gateway,
)
from tests.support.identity import ISSUER, Clock, Provider
from tests.support.keys import key_of
from tests.support.nasty_upstream import answering, nasty_upstream
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.operations.delegations import Delegated
    from tests.support.gateway import Reply
    from tests.support.nasty_upstream import Agent

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LOCAL = ("127.0.0.0/8",)
HOUR_MS = 3_600_000
OTHER_TOKEN = "eyJhbGciOiJub25lIn0.e30.c2ln"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Scene:
    """A gateway, its agent, who signs its tokens, and an issuer that its platform trusts."""

    def __init__(self, gateway: Gateway, agent: Agent, deployment: str) -> None:
        self.gateway = gateway
        self.agent = agent
        self.sealer = Sealer((new_master_key(),))
        self.deployment = deployment
        self.signer = Signer(gateway.ledger, self.sealer, deployment)
        self.provider = Provider(Clock())
        self.provider.clock.ms = now_ms()
        self.issuer_id = 0

    async def delegated(
        self, *, budget: int = 10, routes: tuple[str, ...] = (), parent: int = 0
    ) -> Delegated:
        """A key carved out of the account's, or another."""
        gateway = self.gateway
        platform_id = gateway.account.platform_id
        return await delegate(
            gateway.ledger,
            gateway.counters,
            gateway.account,
            await key_of(gateway.ledger, platform_id, parent or gateway.key.key_id),
            pepper=PEPPER,
            budget_microcredits=budget * CREDIT,
            routes=routes,
        )

    async def token(self, made: Delegated) -> str:
        """The token of a delegated key."""
        signed = await self.signer.delegated_token(
            made.account_id,
            made.key_id,
            made.jti,
            expires_ms=made.expires_ms,
            routes=made.routes or None,
        )
        return signed.text

    async def trust_issuer(self, jwks_url: str) -> None:
        """Register the issuer, and wait until the worker knows of it."""
        gateway = self.gateway
        platform_id, networks = gateway.account.platform_id, Networks.of(LOCAL)
        made = await register_issuer(gateway.ledger, platform_id, ISSUER, Trust(jwks_url), networks)
        self.issuer_id = made.issuer_id
        await gateway.worker.load_catalogue()

    async def call(self, credential: str, path: str = "/any/x", **headers: str) -> Reply:
        """A call with a token or another key, and without the account's own."""
        sent = {"Authorization": f"Bearer {credential}", **headers}
        return await self.gateway.call(path, headers=sent)


@asynccontextmanager
async def scene(redis_url: str, postgres_url: str, **config: object) -> AsyncIterator[Scene]:
    async with (
        nasty_upstream(answering(OK)) as agent,
        running_gateway(
            redis_url,
            postgres_url,
            [open_route(agent.url, trust_microcredits=9 * CREDIT), chat_route(agent.url)],
            **{"private_upstreams": LOCAL, **config},
        ) as gateway,
    ):
        # Opens the account's shard, so that something can be carved out of its key.
        assert (await gateway.call("/-/quote", data=b'{"path": "/chat"}')).status == 200
        yield Scene(gateway, agent, await gateway.ledger.fix_setting("deployment", "?"))


@asynccontextmanager
async def issuing(here: Scene) -> AsyncIterator[None]:
    """The issuer's keys are on the web, and it is trusted."""
    body = await here.provider.fetch("")
    shown = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
    async with nasty_upstream(answering(shown)) as web:
        await here.trust_issuer(f"{web.url}/jwks")
        yield


def refusal(reply: Reply) -> dict[str, Any]:
    """The body of a 401 but for the request's id."""
    assert reply.status == 401
    problem: dict[str, Any] = json.loads(reply.body)
    assert problem.pop("request_id") == reply.request_id
    return problem


async def test_a_delegated_token_calls_as_its_own_key_and_is_not_sent_on(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        made = await here.delegated()
        token = await here.token(made)
        for _ in range(2):
            assert (await here.call(token)).status == 200
        rows = await here.gateway.settlements(2)
        assert {row.key_id for row in rows} == {made.key_id}
        assert not any(token.encode() in request.head for request in here.agent.requests)
        assert (await here.call(token, **{"Idempotency-Key": "1"})).status == 200
        assert (await here.call(token, **{"Idempotency-Key": "1"})).status == 200
        assert len(here.agent.requests) == 3
        headers = {"X-API-Key": token, "Authorization": "Basic abc"}
        assert (await here.gateway.call("/any/x", headers=headers)).status == 200
        assert here.agent.requests[-1].header(b"Authorization") == b"Basic abc"
        assert here.agent.requests[-1].header(b"X-API-Key") is None


async def test_a_delegated_token_spends_its_budget_and_no_more(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        token = await here.token(await here.delegated(budget=2))
        statuses = [(await here.call(token)).status for _ in range(4)]
        assert statuses == [200, 200, 402, 402]


async def test_a_token_is_for_the_routes_that_it_and_its_key_name(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        made = await here.delegated()
        narrow = await here.token(made._replace(routes=("chat",)))
        wide = await here.token(made)
        assert (await here.call(narrow)).status == 403
        assert (await here.call(narrow, "/chat")).status == 200
        assert (await here.call(wide)).status == 200
        parent, platform_id = here.gateway.key.key_id, here.gateway.account.platform_id
        ledger, counters = here.gateway.ledger, here.gateway.counters
        await change_key(ledger, counters, platform_id, parent, KeyChanges(routes=["any"]))
        assert (await here.call(narrow)).status == 403
        assert (await here.call(narrow, "/chat")).status == 403
        assert (await here.call(wide)).status == 200
        assert (await here.call(wide, "/chat")).status == 403
        addressed = KeyChanges(routes=[], addresses=["10.0.0.0/8"])
        await change_key(ledger, counters, platform_id, parent, addressed)
        assert (await here.call(wide)).status == 403
        assert (await here.call(narrow, "/chat")).status == 403


async def test_with_its_parent_a_delegated_key_is_revoked(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        gateway = here.gateway
        child = await here.delegated(budget=10)
        grandchild = await here.delegated(budget=5, parent=child.key_id)
        tokens = [await here.token(made) for made in (child, grandchild)]
        for token in tokens:
            assert (await here.call(token, **{"Idempotency-Key": token[-9:]})).status == 200
        platform_id = gateway.account.platform_id
        parent = await key_of(gateway.ledger, platform_id, gateway.key.key_id)
        await revoke_key(gateway.ledger, gateway.counters, platform_id, parent)
        for token in tokens:
            assert (await here.call(token)).status == 401
            assert (await here.call(token, **{"Idempotency-Key": token[-9:]})).status == 401
        assert len(here.agent.requests) == 2


async def test_every_bad_credential_is_refused_alike(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here, issuing(here):
        made = await here.delegated()
        good = await here.token(made)
        before = Signer(
            here.gateway.ledger,
            here.sealer,
            here.deployment,
            clock_ms=lambda: now_ms() - 2 * HOUR_MS,
        )
        named = (made.account_id, made.key_id, made.jti)
        expired = await before.delegated_token(*named, expires_ms=now_ms() - HOUR_MS)
        access = await here.signer.access_token("5" * 32, 9, expires_ms_max=2**52)
        elsewhere = Signer(here.gateway.ledger, here.sealer, "e" * 32)
        foreign = await elsewhere.delegated_token(*named, expires_ms=made.expires_ms)
        head, claims, signature = good.split(".")
        issued = here.provider.token
        bad = [
            "tk_dev_unknown",
            f"{here.gateway.key.text[:-1]}!",
            expired.text,
            access.text,
            foreign.text,
            f"{head}.{claims}.{signature[:-4]}AAAA",
            OTHER_TOKEN,
            good + "x" * TOKEN_BYTES_MAX,
            issued(aud="tollkeeper:other"),
            issued(aud="tollkeeper"),
            issued(iss="https://other.example"),
            issued(exp=now_ms() // 1000 - 60, iat=now_ms() // 1000 - 120),
            issued(sub="nobody"),
            issued(sub=None),
            issued(kid="k1", key=b"s" * 32, algorithm="HS256"),
        ]
        bodies = [refusal(await here.call(token)) for token in bad]
        assert all(body == bodies[0] for body in bodies)
        assert here.agent.requests == []
        assert (await here.call(good)).status == 200


async def test_a_platforms_own_issuer_names_its_accounts(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here, issuing(here):
        gateway, token = here.gateway, here.provider.token(sub="demo")
        assert (await here.call(token)).status == 200
        assert (await here.call(here.provider.token(sub="demo", more=1))).status == 200
        assert not any(b"eyJ" in request.head for request in here.agent.requests)
        [key_id] = {row.key_id for row in await gateway.settlements(2)}
        platform_id = gateway.account.platform_id
        key = await key_of(gateway.ledger, platform_id, key_id)
        assert (key.kind, key.name, key.prefix, key.last4) == ("issuer", ISSUER, "jwt", "")
        await revoke_key(gateway.ledger, gateway.counters, platform_id, key)
        assert (await here.call(token)).status == 401
        assert len(here.agent.requests) == 2


async def test_an_issuer_that_was_removed_names_nobody_any_more(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here, issuing(here):
        gateway, token = here.gateway, here.provider.token(sub="demo")
        assert (await here.call(token)).status == 200
        platform_id = gateway.account.platform_id
        await remove_issuer(gateway.ledger, gateway.counters, platform_id, here.issuer_id)
        assert (await here.call(token)).status == 401


async def test_an_issuer_names_no_account_of_another_platform(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here, issuing(here):
        other = (await here.gateway.ledger.apply_catalog(Platform("other"), (), ())).platform_id
        await here.gateway.ledger.create_account(other, "theirs")
        await here.gateway.worker.load_catalogue()
        for audience in ("tollkeeper:demo", "tollkeeper:other"):
            token = here.provider.token(sub="theirs", aud=audience)
            assert (await here.call(token)).status == 401


async def test_while_an_issuer_does_not_show_its_keys_a_retry_is_asked_for(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        gone = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        async with nasty_upstream(answering(gone)) as web:
            await here.trust_issuer(f"{web.url}/jwks")
            reply = await here.call(here.provider.token(sub="demo"))
        assert reply.status == 503
        assert int(reply.headers["Retry-After"]) > 0


async def test_keys_of_an_issuer_are_not_asked_for_where_owners_may_not_lead(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with (
        scene(clean_redis_url, postgres_url, private_upstreams=()) as here,
        nasty_upstream(answering(OK)) as web,
    ):
        await here.trust_issuer(f"{web.url}/jwks")
        assert (await here.call(here.provider.token(sub="demo"))).status == 503
        assert (web.connections, web.requests) == (0, [])


async def test_a_worker_hears_of_keys_and_issuers_that_are_new(
    clean_redis_url: str, postgres_url: str
) -> None:
    """By the catalogue's notification; of a key at the latest when a token names it."""
    async with scene(clean_redis_url, postgres_url) as here:
        token = await here.token(await here.delegated())
        assert (await here.call(token)).status == 200
        await here.signer.rotate()
        anew = await here.token(await here.delegated())

        async def heard() -> bool:
            return (await here.call(anew)).status == 200

        # Keys are loaded again once a second at most; the notification may be slower on a busy day.
        await eventually(heard)
        assert (await here.call(token)).status == 200, "until it expires"
        body = await here.provider.fetch("")
        shown = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        async with nasty_upstream(answering(shown)) as web:
            platform_id = here.gateway.account.platform_id
            trust = Trust(f"{web.url}/jwks")
            networks = Networks.of(LOCAL)
            await register_issuer(here.gateway.ledger, platform_id, ISSUER, trust, networks)

            async def known() -> bool:
                return (await here.call(here.provider.token(sub="demo"))).status == 200

            await eventually(known)


@pytest.mark.parametrize(
    "lines",
    [
        ("X-API-Key: {key}", "Authorization: Bearer {token}"),
        ("Authorization: Bearer {token}", "X-API-Key: {key}"),
    ],
)
async def test_beside_a_key_a_token_is_for_the_agent(
    clean_redis_url: str, postgres_url: str, lines: tuple[str, ...]
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        key, token = here.gateway.key.text, await here.token(await here.delegated())
        own = [line.format(key=key, token=token) for line in lines]
        reader, writer = await here.gateway.connect()
        writer.write("\r\n".join(["GET /any/x HTTP/1.1", "Host: a", *own, "", ""]).encode())
        assert b" 200 " in await reader.readline()
        writer.close()
        [request] = here.agent.requests
        assert request.header(b"Authorization") == f"Bearer {token}".encode()
        assert key.encode() not in request.head
        assert (await here.gateway.settlement()).key_id == here.gateway.key.key_id


async def test_a_token_that_was_taken_is_sent_on_in_no_header(
    clean_redis_url: str, postgres_url: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        token = await here.token(await here.delegated())
        reader, writer = await here.gateway.connect()
        lines = [
            "GET /any/x HTTP/1.1",
            "Host: a",
            f"Authorization: bearer {token}",
            f"Authorization: Bearer {token}",
            f"X-Api-Key: {OTHER_TOKEN}",
            f"X-Access: {token}",
        ]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        assert b" 200 " in await reader.readline()
        writer.close()
        [request] = here.agent.requests
        assert token.encode() not in request.head
        assert request.header(b"X-Api-Key") == OTHER_TOKEN.encode()


async def test_while_redis_is_away_a_known_token_is_trusted_for_what_it_is_for(
    postgres_url: str,
) -> None:
    async with OwnRedis() as redis, scene(redis.url, postgres_url) as here:
        made = await here.delegated()
        wide, narrow = await here.token(made), await here.token(made._replace(routes=("chat",)))
        assert (await here.call(wide)).status == 200
        assert (await here.call(narrow, "/chat")).status == 200
        redis.kill()
        assert (await here.call(wide)).status == 200
        assert (await here.call(narrow)).status == 403


@pytest.mark.parametrize("keyed", [{}, {"Idempotency-Key": '"one"'}])
@pytest.mark.parametrize("path", ["/any/x", "/-/quote"])
async def test_a_token_whose_key_is_closed_is_refused_and_makes_postgres_work_once(
    clean_redis_url: str, postgres_url: str, keyed: dict[str, str], path: str
) -> None:
    async with scene(clean_redis_url, postgres_url) as here:
        gateway = here.gateway
        made = await here.delegated()
        token = await here.token(made)
        await gateway.worker.load_catalogue()
        assert (await here.call(token)).status == 200
        key = await key_of(gateway.ledger, gateway.account.platform_id, made.key_id)
        await revoke_key(gateway.ledger, gateway.counters, gateway.account.platform_id, key)
        publish = publisher(gateway.ledger, gateway.counters)
        assert await Delegations(gateway.counters, gateway.ledger, LostShards(), publish).end() == 1

        states, looks = 0, 0
        state_of, look_up = Ledger.account_state, Ledger.find_key

        async def counted(self: Ledger, account_id: int) -> Any:
            nonlocal states
            states += 1
            return await state_of(self, account_id)

        async def looked_up(self: Ledger, digest: bytes) -> Any:
            nonlocal looks
            looks += 1
            return await look_up(self, digest)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ledger, "account_state", counted)
            patch.setattr(Ledger, "find_key", looked_up)
            for _ in range(5):
                refused = await gateway.call(
                    path,
                    headers={"Authorization": f"Bearer {token}", **keyed},
                    data=b'{"path": "/any/x"}',
                )
                assert refused.status == 401, refused.body
        assert states == 1
        assert looks == 2, "once for the account that lacks it, once for the token"

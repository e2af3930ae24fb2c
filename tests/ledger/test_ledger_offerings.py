"""Plans, routes and platforms one at a time: never the config's, and never two for one call."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncpg
import pytest_asyncio

from gateway.ledger import BY_API, BY_CONFIG, Ledger, Scope, Tenancy
from gateway.ledger.offerings import (
    RouteClash,
    RouteGone,
    RouteSaved,
    RouteTaken,
    SecretsMissing,
)
from gateway.ledger.periods import SignupTerms, Trial
from gateway.ledger.sealed import SecretInUse
from policies.catalog import Plan, Platform, Price, Route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

FREE, PRO = Plan("free", 100), Plan("pro", 200)
CHAT = Route("chat", ("POST",), "/chat", "http://a:1", Price(per_request_microcredits=5))
OWN = Route("own", ("POST",), "/own/{id}", "http://a:1", Price(per_request_microcredits=5))


@pytest_asyncio.fixture
async def books(postgres_url: str) -> AsyncIterator[tuple[Ledger, int]]:
    """What the API's role sees of a platform whose config has one plan and one route."""
    async with Ledger(postgres_url) as ledger:
        report = await ledger.apply_catalog(Platform("demo", "Demo"), [FREE], [CHAT])
    async with Tenancy(postgres_url) as tenancy:
        yield tenancy.ledger(Scope(report.platform_id, None, "token:1")), report.platform_id


async def saved(books: tuple[Ledger, int], route: Route, *, new: bool) -> RouteSaved:
    ledger, platform_id = books
    done = await ledger.save_route(platform_id, "demo", route, new=new)
    assert isinstance(done, RouteSaved), done
    return done


async def test_the_plans_of_the_config_are_not_the_apis(books: tuple[Ledger, int]) -> None:
    ledger, platform_id = books
    assert not await ledger.create_plan(platform_id, replace(FREE, concurrency=1))
    assert not await ledger.change_plan(platform_id, replace(FREE, concurrency=1))
    assert not await ledger.delete_plan(platform_id, "free")
    stored = await ledger.plan(platform_id, "free")
    assert stored is not None
    assert (stored.plan, stored.managed_by) == (FREE, BY_CONFIG)


async def test_a_plan_is_made_changed_and_deleted_unless_an_account_has_it(
    books: tuple[Ledger, int],
) -> None:
    ledger, platform_id = books
    assert await ledger.create_plan(platform_id, PRO)
    assert not await ledger.create_plan(platform_id, PRO)
    assert await ledger.change_plan(platform_id, replace(PRO, concurrency=3))
    stored = await ledger.plan(platform_id, "pro")
    assert stored is not None
    assert (stored.plan.concurrency, stored.managed_by) == (3, BY_API)
    await ledger.create_account(platform_id, "alice", "pro")
    assert not await ledger.delete_plan(platform_id, "pro")
    alice = await ledger.find_account(platform_id, "alice")
    assert alice is not None
    await ledger.create_plan(platform_id, Plan("other", 5))
    assert await ledger.delete_plan(platform_id, "other")
    assert await ledger.plan(platform_id, "other") is None


async def test_what_people_change_of_plans_is_in_the_audit_log(
    books: tuple[Ledger, int], postgres_url: str
) -> None:
    ledger, platform_id = books
    await ledger.create_plan(platform_id, PRO)
    await ledger.change_plan(platform_id, replace(PRO, concurrency=3))
    await ledger.delete_plan(platform_id, "pro")
    connection = await asyncpg.connect(postgres_url)
    rows = await connection.fetch("SELECT action, resource, platform_id FROM audit_log ORDER BY id")
    await connection.close()
    assert [tuple(row) for row in rows] == [
        (action, "plan", platform_id) for action in ("create", "change", "delete")
    ]


async def test_plans_and_routes_come_in_pages_by_name(books: tuple[Ledger, int]) -> None:
    ledger, platform_id = books
    for name in ("b", "a", "c"):
        await ledger.create_plan(platform_id, Plan(name, 1))
        await saved(books, replace(OWN, name=name, pattern=f"/{name}"), new=True)
    plans = await ledger.plans_page(platform_id, after="a", limit=2)
    assert [stored.plan.slug for stored in plans] == ["b", "c"]
    routes = await ledger.routes_page(platform_id, after="a", limit=2)
    assert [stored.route.name for stored in routes] == ["b", "c"]
    await ledger.retire_route(platform_id, "demo", "b")
    for active, names in ((True, ["a", "c", "chat"]), (False, ["b"])):
        found = await ledger.routes_page(platform_id, limit=9, active=active)
        assert [stored.route.name for stored in found] == names


async def test_a_route_gets_a_price_version_only_with_another_price(
    books: tuple[Ledger, int],
) -> None:
    ledger, platform_id = books
    first = await saved(books, OWN, new=True)
    assert (first.comes_in, first.priced) == (True, True)
    moved = replace(OWN, upstream="http://b:2")
    second = await saved(books, moved, new=False)
    assert (second.comes_in, second.priced) == (False, False)
    third = await saved(books, replace(moved, price=Price(per_request_microcredits=6)), new=False)
    assert third.priced
    assert first.version < second.version < third.version
    stored = await ledger.route(platform_id, "own")
    assert stored is not None
    assert stored.managed_by == BY_API
    assert stored.route.guarded
    assert stored.route.price is not None
    assert stored.route.price.per_request_microcredits == 6


async def test_the_routes_of_the_config_stay_its_own_also_out_of_service(
    books: tuple[Ledger, int], postgres_url: str
) -> None:
    ledger, platform_id = books
    for new in (True, False):
        assert await ledger.save_route(platform_id, "demo", CHAT, new=new) == RouteTaken(BY_CONFIG)
    assert await ledger.retire_route(platform_id, "demo", "chat") == RouteTaken(BY_CONFIG)
    async with Ledger(postgres_url) as apply:
        await apply.apply_catalog(Platform("demo", "Demo"), [FREE], [])
    assert await ledger.save_route(platform_id, "demo", CHAT, new=True) == RouteTaken(BY_CONFIG)


async def test_a_retired_route_comes_back_under_its_id(books: tuple[Ledger, int]) -> None:
    ledger, platform_id = books
    await saved(books, OWN, new=True)
    assert await ledger.save_route(platform_id, "demo", OWN, new=True) == RouteTaken(BY_API)
    before = await ledger.route(platform_id, "own")
    assert isinstance(await ledger.retire_route(platform_id, "demo", "own"), int)
    assert await ledger.retire_route(platform_id, "demo", "own") == RouteGone()
    assert await ledger.save_route(platform_id, "demo", OWN, new=False) == RouteGone()
    assert (await saved(books, OWN, new=True)).comes_in
    after = await ledger.route(platform_id, "own")
    assert before is not None
    assert after is not None
    assert after.route == before.route
    assert after.active


async def test_no_two_routes_in_service_are_for_the_same_calls(books: tuple[Ledger, int]) -> None:
    ledger, platform_id = books
    await saved(books, OWN, new=True)
    for methods, pattern, clash in (
        (("GET", "POST"), "/own/{name}", RouteClash("own")),
        (("POST",), "/chat", RouteClash("chat")),
    ):
        other = replace(OWN, name="other", methods=methods, pattern=pattern)
        assert await ledger.save_route(platform_id, "demo", other, new=True) == clash
    await saved(books, replace(OWN, name="get", methods=("GET",)), new=True)
    await ledger.retire_route(platform_id, "demo", "own")
    await saved(books, replace(OWN, name="heir"), new=True)


async def test_of_two_who_want_the_same_calls_at_once_one_gets_them(
    books: tuple[Ledger, int],
) -> None:
    ledger, platform_id = books
    names = [f"r{number}" for number in range(6)]
    done = await asyncio.gather(
        *(
            ledger.save_route(platform_id, "demo", replace(OWN, name=name), new=True)
            for name in names
        )
    )
    assert sum(isinstance(one, RouteSaved) for one in done) == 1
    assert sum(isinstance(one, RouteClash) for one in done) == len(names) - 1


async def test_routes_refer_to_secrets_that_are_there(books: tuple[Ledger, int]) -> None:
    ledger, platform_id = books
    route = replace(OWN, headers=(("Authorization", "secret:openai"), ("X-A", "b")))
    missing = SecretsMissing({"Authorization": "openai"})
    assert await ledger.save_route(platform_id, "demo", route, new=True) == missing
    await ledger.set_secret(platform_id, "openai", b"sealed")
    await saved(books, route, new=True)
    await ledger.set_secret(platform_id, "open", b"sealed")
    assert isinstance(await ledger.delete_secret(platform_id, "open"), int)
    assert await ledger.delete_secret(platform_id, "openai") == SecretInUse(("own",))
    await ledger.retire_route(platform_id, "demo", "own")
    assert isinstance(await ledger.delete_secret(platform_id, "openai"), int)


async def test_apply_and_the_api_take_turns(books: tuple[Ledger, int], postgres_url: str) -> None:
    await saved(books, OWN, new=True)

    async def change(number: int) -> None:
        await saved(books, replace(OWN, upstream=f"http://a:{number}"), new=False)

    async def apply(number: int) -> None:
        route = replace(CHAT, upstream=f"http://a:{number}")
        await config.apply_catalog(Platform("demo", "Demo"), [FREE], [route])

    async with Ledger(postgres_url) as config:
        changes = [work(number) for number in range(1, 11) for work in (change, apply)]
        await asyncio.gather(*changes)


async def test_operators_make_platforms_that_owners_may_rename(postgres_url: str) -> None:
    async with Ledger(postgres_url) as ledger, Tenancy(postgres_url) as tenancy:
        version = await ledger.create_platform(Platform("one", "One", None))
        assert version is not None
        assert await ledger.create_platform(Platform("one", "Uno", None)) is None
        await ledger.create_platform(Platform("two", "Two", None))
        one = await ledger.platform_details("one")
        assert one is not None
        owner = tenancy.ledger(Scope(one.platform_id, None, "token:1"))
        assert await owner.platform_details("two") is None
        later = await owner.change_platform(
            one.platform_id, Platform("one", "Eins", "https://one.example", "free", 5, 9)
        )
        assert later is not None
        assert later > version
        assert [row.name for row in await ledger.platforms_page(limit=9)] == ["Eins", "Two"]
        assert [row.slug for row in await owner.platforms_page(limit=9)] == ["one"]
        assert await owner.signup_terms(one.platform_id) == SignupTerms("free", Trial(5, 9))
        snapshot = await ledger.snapshot_catalogue()
        assert snapshot.platforms[0].platform.upgrade_url == "https://one.example"

"""What `apply` writes is what workers serve, priced by versions that never change."""

from __future__ import annotations

import asyncio
from dataclasses import fields, replace

import asyncpg
import pytest

from gateway.ledger import CATALOG_CHANNEL, Ledger
from gateway.ledger.catalog import CatalogReport
from gateway.ledger.specs import (
    key_from_spec,
    key_to_spec,
    pack_from_spec,
    pack_to_spec,
    plan_from_spec,
    plan_to_spec,
    price_from_spec,
    price_to_spec,
    route_from_spec,
    route_to_spec,
)
from policies.catalog import (
    DEFAULT_RULES,
    Caps,
    ChargePer,
    Ending,
    ErrorStyle,
    Limits,
    MeterSpec,
    OnMissing,
    Pack,
    Plan,
    PlanPrice,
    Platform,
    Price,
    Protocol,
    QuotaWindow,
    RefundExpired,
    Route,
    RpcPrices,
    Rule,
    Source,
    Table,
    TaskRule,
    Tier,
    Timeouts,
    WebSocketRule,
)
from policies.money import Money, OveragePrice
from tests.support.postgres_gate import postgres_gate

DEMO = Platform("demo", "Demo", "https://demo.example/upgrade")
METER = MeterSpec(
    "token",
    (Source("response.json", "/usage/total_tokens"), Source("response.sse", "/usage/é")),
    picocredits_per_unit=2**53 * 10**6,
    reserve_units=4_000,
)
TIERED = replace(
    METER,
    unit="image",
    tiers=(Tier(1_000, 2**53 * 10**6), Tier(None, 0)),
    included_units=3,
    reserve_from=(Source("request.json", "/max_tokens"), Source("request.bytes", "")),
    on_missing=OnMissing.ESTIMATE,
    estimate_from=Source("request.bytes", ""),
    estimate_per_unit=5,
)
CASE = Price(0, 7, 6, None, (METER, replace(TIERED, tiers=())))
PRICE = Price(
    *(0, 100_000, 5, 2**53 - 1, (METER, TIERED)),
    table=Table(Source("request.json", "/model"), {"größer": CASE, "": CASE}, listed_only=True),
    rpc=RpcPrices({"search": 2**53 - 1}, 8, {"resources/read": 9}, Rule.ACTUAL),
)
CHAT = Route(
    name="chat",
    methods=("POST", "PUT"),
    pattern="/v1/{x}/**",
    upstream="https://[::1]:9100/base",
    price=PRICE,
    timeouts=Timeouts(1, 2, 3, 4),
    errors=ErrorStyle.OPENAI,
    headers=(("Authorization", "env:KEY"), ("X-A", "b")),
    rules={**DEFAULT_RULES, Ending.UNKNOWN: Rule.NOTHING},
    body_max_bytes=77,
    connections_max=5,
    tls_ca_file="/ca.pem",
    limits=Limits(1, 2, 3, 4, 5),
    caps=Caps(1, 2, 2**53 - 1),
    trust_microcredits=6,
    protocol=Protocol.A2A,
    ensure_usage="openai",
    task=TaskRule(ChargePer.MESSAGE, 7),
    websocket=WebSocketRule(8, 9),
)
FREE = Route(name="free", methods=(), pattern="/free", upstream="http://a:1", price=None)
PRO = Plan(
    *("pro", 2**53 - 1, "year", 1, 2, 3, 4, 5),
    quota_window=QuotaWindow.BILLING,
    caps=Caps(1, 2, 3, 2**53 - 1),
    overage_cap_microcredits=6,
    rollover_microcredits_max=None,
    rollover_periods=7,
    low_credits_microcredits=8,
    refund_expired=RefundExpired.NOTHING,
    discount_basis_points=9,
    prices=(PlanPrice(12, "usd", 99_999_999), PlanPrice(1, "jpy", 0)),
    trial_days=10,
    trial_microcredits=2**53 - 1,
    overage_price=OveragePrice(2**60),
    features=("größer", "5 seats"),
)
BIG = Pack("big", "Größer", 2**53 - 1, 3_650, (Money("usd", 99_999_999), Money("jpy", 0)))


def of_version(price: Price, version: int) -> Price:
    table = price.table
    if table is not None:
        cases = {value: of_version(case, version) for value, case in table.cases.items()}
        table = replace(table, cases=cases)
    return replace(price, version=version, table=table)


def test_every_field_survives_postgres() -> None:
    plain = Route(name="", methods=(), pattern="", upstream="", price=Price())
    samples = (
        *((CHAT, plain), (PRICE, Price()), (PRO, Plan("", 0))),
        *((TIERED, MeterSpec("", (), 0, 0)), (PRICE.rpc, RpcPrices()), (CHAT.task, TaskRule())),
        *((CHAT.websocket, WebSocketRule()), (BIG, Pack("", "", 0))),
    )
    for value, bare in samples:
        same = {
            field.name
            for field in fields(value)
            if getattr(value, field.name) == getattr(bare, field.name)
        }
        assert same <= {"id", "version", "guarded"}, (
            "the sample must differ from the defaults everywhere"
        )

    price = price_to_spec(PRICE)
    stored = route_from_spec(route_to_spec(CHAT), 9, price=price, price_version=4, guarded=True)
    assert stored == replace(CHAT, id=9, price=of_version(PRICE, 4), guarded=True)
    assert "guarded" not in route_to_spec(stored)
    assert price_from_spec(price_to_spec(PRICE), 0) == PRICE
    assert plan_from_spec("pro", plan_to_spec(PRO)) == PRO
    assert pack_from_spec("big", pack_to_spec(BIG)) == BIG


def test_what_an_earlier_version_stored_has_the_defaults() -> None:
    old_plan = dict(list(plan_to_spec(Plan("pro", 5)).items())[:2])
    for name in ("requests_per_minute", "requests_per_month", "concurrency"):
        old_plan[name] = 7
    assert plan_from_spec("pro", old_plan) == Plan("pro", 5, "month", 7, 7, 7)
    route = route_to_spec(FREE)
    for name in ("limits", "caps", "trust_microcredits"):
        del route[name]
    for name in ("protocol", "ensure_usage", "task", "websocket"):
        del route[name]
    assert route_from_spec(route, 0, price=None, price_version=0, guarded=False) == FREE
    price = price_to_spec(Price(0, 1, 2, 3, (METER,)))
    del price["table"], price["rpc"]
    for name in ("tiers", "included_units", "reserve_from", "on_missing"):
        del price["meters"][0][name]
    for name in ("estimate_from", "estimate_per_unit"):
        del price["meters"][0][name]
    assert price_from_spec(price, 0) == Price(0, 1, 2, 3, (METER,))
    assert key_from_spec({}) == (Limits(), Caps())
    mine = Limits(1, 2, 3, 4, 5), Caps(6, 7, 8, 9)
    assert key_from_spec(key_to_spec(*mine)) == mine


async def test_what_was_applied_is_what_the_proxy_gets(ledger: Ledger) -> None:
    report = await ledger.apply_catalog(DEMO, (PRO,), (CHAT, FREE))
    await ledger.apply_catalog(Platform("bare"), (), ())

    bare, (platform, routes, _) = (await ledger.snapshot_catalogue()).platforms

    assert (bare.platform.slug, bare.platform.name, bare.routes) == ("bare", "bare", ())
    assert platform == (report.platform_id, "demo", "Demo", "https://demo.example/upgrade")
    chat, free = routes
    assert chat.price is not None
    assert chat.price.version > 0
    price = of_version(PRICE, chat.price.version)
    assert chat == replace(CHAT, id=chat.id, price=price)
    assert free == replace(FREE, id=free.id)
    assert await ledger.plans(report.platform_id) == [PRO]
    assert report == CatalogReport(
        platform_id=report.platform_id,
        plans_created=("pro",),
        plans_changed=(),
        routes_created=("chat", "free"),
        routes_changed=(),
        routes_deactivated=(),
        prices_created=("chat",),
    )


async def test_the_upstream_of_a_route_is_guarded_unless_the_config_says_it(
    ledger: Ledger, postgres_url: str
) -> None:
    report = await ledger.apply_catalog(DEMO, (), (CHAT, FREE))
    connection = await asyncpg.connect(postgres_url)
    await connection.execute("UPDATE routes SET managed_by = 'api' WHERE name = 'chat'")
    await connection.close()

    async def guarded() -> list[bool]:
        ((_, routes, _),) = (await ledger.snapshot_catalogue()).platforms
        stored = [each.route.guarded for each in await ledger.routes(report.platform_id)]
        assert [route.guarded for route in routes] == stored
        return stored

    assert await guarded() == [True, False]
    await ledger.apply_catalog(DEMO, (), (CHAT, FREE))
    assert await guarded() == [False, False]


async def test_applying_the_same_again_changes_nothing(ledger: Ledger) -> None:
    await ledger.apply_catalog(DEMO, (PRO,), (CHAT, FREE))
    before = (await ledger.snapshot_catalogue()).platforms
    again = await ledger.apply_catalog(DEMO, (PRO,), (CHAT, FREE))
    assert set(again[1:]) == {()}
    assert (await ledger.snapshot_catalogue()).platforms == before


async def test_only_a_changed_price_gets_a_new_version(ledger: Ledger) -> None:
    async def version() -> int:
        ((_, (route,), _),) = (await ledger.snapshot_catalogue()).platforms
        return route.price.version if route.price else 0

    await ledger.apply_catalog(DEMO, (), (CHAT,))
    first = await version()
    moved = replace(CHAT, upstream="http://elsewhere")
    report = await ledger.apply_catalog(DEMO, (), (moved,))
    assert (report.routes_changed, report.prices_created) == (("chat",), ())
    assert await version() == first

    dearer = replace(moved, price=replace(PRICE, per_request_microcredits=100_001))
    report = await ledger.apply_catalog(DEMO, (), (dearer,))
    assert (report.routes_changed, report.prices_created) == ((), ("chat",))
    assert await version() > first

    await ledger.apply_catalog(DEMO, (), (replace(moved, price=None),))
    assert await version() == 0


async def test_a_route_that_left_the_config_is_out_of_service_and_may_come_back(
    ledger: Ledger,
) -> None:
    platform_id = (await ledger.apply_catalog(DEMO, (), (CHAT, FREE))).platform_id
    ids = {row.route.name: row.route.id for row in await ledger.routes(platform_id)}
    report = await ledger.apply_catalog(DEMO, (), (FREE,))

    assert report.routes_deactivated == ("chat",)
    ((_, routes, _),) = (await ledger.snapshot_catalogue()).platforms
    assert [route.name for route in routes] == ["free"]
    assert [(row.route.name, row.active) for row in await ledger.routes(platform_id)] == [
        ("chat", False),
        ("free", True),
    ]

    report = await ledger.apply_catalog(DEMO, (), (CHAT, FREE))
    assert (report.routes_changed, report.prices_created) == (("chat",), ())
    assert {row.route.name: row.route.id for row in await ledger.routes(platform_id)} == ids


async def test_a_changed_plan_is_reported(ledger: Ledger) -> None:
    await ledger.apply_catalog(DEMO, (PRO, Plan("free", 1)), ())
    report = await ledger.apply_catalog(DEMO, (replace(PRO, concurrency=9), Plan("new", 1)), ())
    assert (report.plans_created, report.plans_changed) == (("new",), ("pro",))
    assert [plan.slug for plan in await ledger.plans(report.platform_id)] == ["free", "new", "pro"]


async def test_a_failing_apply_leaves_the_catalog_as_it_was(ledger: Ledger) -> None:
    await ledger.apply_catalog(DEMO, (), (CHAT,))
    before = (await ledger.snapshot_catalogue()).platforms
    broken = replace(FREE, name="nul\x00")
    with pytest.raises(Exception, match=r"0x00|u0000"):
        await ledger.apply_catalog(DEMO, (), (broken,))
    assert (await ledger.snapshot_catalogue()).platforms == before


async def test_workers_hear_of_a_new_catalog_also_after_a_lost_connection(
    ledger: Ledger, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.ledger.database.RELISTEN_PAUSE_S", 0.01)
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with (
        asyncio.timeout(20),
        postgres_gate(postgres_url) as (gate, url),
        Ledger(url) as worker,
    ):
        await worker.listen(CATALOG_CHANNEL, heard.put_nowait)
        assert await heard.get() == ""
        await ledger.apply_catalog(DEMO, (), (CHAT,))
        assert await heard.get() == "demo"
        gate.shut()
        await ledger.apply_catalog(DEMO, (), (FREE,))
        gate.open()
        assert await heard.get() == ""
        await ledger.apply_catalog(DEMO, (), (CHAT,))
        assert await heard.get() == "demo"

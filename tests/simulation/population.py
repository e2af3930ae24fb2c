"""Who lives in the simulation: a platform, its plans and routes, accounts with keys and lots."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.counters import Counters
from gateway.ledger import Ledger
from gateway.operations.accounts import create_account
from gateway.operations.keys import KeyMaker, add_key
from policies.catalog import Caps, MeterSpec, Plan, Platform, Price, Route, Source, Tier
from tests.simulation.callers import TARIFFS, Client
from tests.simulation.cast import PEPPER
from tests.simulation.model import Account, Lot

if TYPE_CHECKING:
    from tests.simulation.cast import Stage

CREDIT = 1_000_000
RICH = 10**6 * CREDIT
KEYS_PER_ACCOUNT = 2
PLANS = (
    Plan("plain", credits_microcredits=0),
    Plan("narrow", credits_microcredits=0, requests_per_second=4, burst=9, concurrency=3),
    Plan(
        "capped",
        credits_microcredits=0,
        caps=Caps(day=25 * CREDIT, month=60 * CREDIT, session=3 * CREDIT),
    ),
    Plan(
        "monthly",
        credits_microcredits=12 * CREDIT,
        rollover_microcredits_max=None,
        rollover_periods=2,
        low_credits_microcredits=CREDIT,
    ),
    Plan("billed", credits_microcredits=2 * CREDIT, overage_cap_microcredits=9 * CREDIT),
)
# Name, plan, microcredits (None: what the plan gives): the rich ones never run out of them.
ACCOUNTS = (
    ("rich-1", "plain", RICH),
    ("rich-2", "narrow", RICH),
    ("rich-3", "capped", RICH),
    ("monthly-1", "monthly", None),
    ("billed-1", "billed", None),
    ("poor-1", "plain", 6 * CREDIT),
)


async def populate(stage: Stage) -> list[Client]:
    """Write it into Postgres and the model; the keys that calls are made with."""
    config, model = stage.config, stage.world.model
    plans = {plan.slug: plan for plan in PLANS}
    clients = []
    async with (
        Ledger(config.postgres_url) as ledger,
        Counters(config.redis_url, shards=config.shards) as counters,
    ):
        await ledger.ensure_partitions(3)
        report = await ledger.apply_catalog(Platform("sim"), PLANS, routes())
        for name, plan, microcredits in ACCOUNTS:
            made = await create_account(
                ledger, report.platform_id, name, plan=plan, microcredits=microcredits
            )
            number = made.account.account_id
            account = Account(
                number,
                name,
                report.platform_id,
                counters.keys(number).shard,
                rich=name.startswith("rich"),
                caps=plans[plan].caps,
            )
            model.accounts[number] = account
            for _ in range(KEYS_PER_ACCOUNT):
                key = await add_key(ledger, made.account, KeyMaker("dev", PEPPER), name="key")
                account.key_caps[key.key_id] = [(0, 0)]
                clients.append(Client(account, key.key_id, key.text.encode()))
            for grant in await ledger.grants(number):
                account.lots[grant.grant_id] = Lot(
                    grant.grant_id, number, [grant.amount_microcredits]
                )
    return clients


def routes() -> list[Route]:
    """One per tariff."""
    found = []
    for tariff in TARIFFS:
        meters: tuple[MeterSpec, ...] = ()
        if tariff.per_unit:
            source = Source("response.json", "/usage/total_tokens")
            picocredits = tariff.per_unit * 1_000_000
            tiers = tuple(Tier(up_to, price * 1_000_000) for up_to, price in tariff.tiers)
            meters = (MeterSpec("token", (source,), picocredits, tariff.reserve_units, tiers),)
        price = Price(per_request_microcredits=tariff.per_request, meters=meters)
        found.append(
            Route(
                tariff.name,
                ("POST",),
                f"/{tariff.name}",
                "http://127.0.0.1:9",
                price,
                trust_microcredits=tariff.trust,
            )
        )
    return found

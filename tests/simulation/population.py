"""Who lives in the simulation: a platform, its plans and routes, accounts with keys and lots."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gateway.counters import Counters
from gateway.ledger import Ledger
from gateway.operations.accounts import create_account
from gateway.operations.keys import KeyMaker, add_key
from policies.catalog import MeterSpec, Plan, Platform, Price, Route, Source
from tests.simulation.callers import TARIFFS, Client
from tests.simulation.cast import PEPPER
from tests.simulation.model import Account, Lot

if TYPE_CHECKING:
    from tests.simulation.cast import Stage

CREDIT = 1_000_000
RICH = 10**6
# Name, credits: the poor ones run out of them.
ACCOUNTS = (("rich-1", RICH), ("rich-2", RICH), ("rich-3", RICH), ("poor-1", 4), ("poor-2", 2))
KEYS_PER_ACCOUNT = 2
PLANS = (Plan("plain", credits_microcredits=0),)


async def populate(stage: Stage) -> list[Client]:
    """Write it into Postgres and the model; the keys that calls are made with."""
    config, model = stage.config, stage.world.model
    clients = []
    async with (
        Ledger(config.postgres_url) as ledger,
        Counters(config.redis_url, shards=config.shards) as counters,
    ):
        await ledger.ensure_partitions(3)
        report = await ledger.apply_catalog(Platform("sim"), PLANS, routes())
        for name, given in ACCOUNTS:
            made = await create_account(
                ledger, report.platform_id, name, plan="plain", microcredits=given * CREDIT
            )
            number = made.account.account_id
            account = Account(
                number,
                name,
                report.platform_id,
                counters.keys(number).shard,
                rich=name.startswith("rich"),
            )
            model.accounts[number] = account
            for _ in range(KEYS_PER_ACCOUNT):
                key = await add_key(ledger, made.account, KeyMaker("dev", PEPPER), name="key")
                clients.append(Client(account, key.key_id, key.text.encode()))
            for grant in await ledger.grants(number):
                account.lots[grant.grant_id] = Lot(
                    grant.grant_id, number, [grant.amount_microcredits]
                )
        await asyncio.sleep(0)
    return clients


def routes() -> list[Route]:
    """One per tariff."""
    found = []
    for tariff in TARIFFS:
        meters: tuple[MeterSpec, ...] = ()
        if tariff.per_unit:
            source = Source("response.json", "/usage/total_tokens")
            picocredits = tariff.per_unit * 1_000_000
            meters = (MeterSpec("token", (source,), picocredits, tariff.reserve_units),)
        price = Price(per_request_microcredits=tariff.per_request, meters=meters)
        found.append(Route(tariff.name, ("POST",), f"/{tariff.name}", "http://127.0.0.1:9", price))
    return found

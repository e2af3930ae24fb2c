"""After a loss, what each delegated key and its ancestors have spent is what it was before."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from gateway.ledger.specs import key_to_spec
from policies.catalog import Caps, Limits
from policies.decision import (
    Carved,
    CarveRefused,
    GivenBack,
    KeyRefused,
    Settled,
    ShardLost,
    SpendCapReached,
)
from policies.limits import delegated_rules_text, key_text
from tests.support.calls import caller
from tests.support.delegated import change, delegate
from tests.support.rebuilt import assert_rebuilt

if TYPE_CHECKING:
    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from tests.support.calls import Caller
    from tests.support.hands import Hand

REVOKED = "status = 'revoked', revoked_at = now()"
ROOT = json.dumps(key_to_spec(Limits(requests_per_month=90), Caps(total=1_000, session=300)))


async def carved(counters: Counters, url: str, who: Caller, budget: int) -> Caller:
    """Who calls with a key that is carved out of the caller's, in Postgres and in Redis."""
    key_id = await delegate(url, who.key_id, budget)
    rules = delegated_rules_text(
        Limits(), Caps(), parent_key_id=who.key_id, budget_microcredits=budget
    )
    text = key_text(2_000_000_000_000, rules)
    await change(url, key_id, "expires_at = from_ms(2000000000000)")
    assert await counters.carve(who.keys, who.key_id, key_id, budget, text) == Carved()
    return who._replace(key_id=key_id)


async def revoke(counters: Counters, url: str, who: Caller) -> None:
    await change(url, who.key_id, REVOKED)
    fields = (await counters.inspect(who.keys)).fields
    _, _, rules = fields[f"k:{who.key_id}"].partition(" ")
    assert await counters.amend(who.keys, {f"k:{who.key_id}": key_text(-1, rules)})


async def counted(counters: Counters, who: Caller) -> dict[str, str]:
    """Every counter of a key, and every share."""
    fields = (await counters.inspect(who.keys)).fields
    return {name: text for name, text in fields.items() if name[0] in "Kp"}


async def test_budgets_count_after_a_loss_as_before_it(
    ledger: Ledger, counters: Counters, workers: list[Hand], postgres_url: str
) -> None:
    one, other = workers
    root = await caller(ledger, counters, 100_000)
    await change(postgres_url, root.key_id, f"spec = '{ROOT}'")
    state = await ledger.account_state(root.account_id)
    assert state is not None
    assert await counters.load(root.keys, state, force=True)
    child = await carved(counters, postgres_url, root, 400)
    grandchild = await carved(counters, postgres_url, child, 150)
    ended = await carved(counters, postgres_url, root, 200)
    of_ended = await carved(counters, postgres_url, ended, 90)
    calls = [await one.admit(who, 20) for who in (root, child, grandchild, ended, of_ended)]
    for call_id in calls[1:4]:
        await one.settle(call_id, 15)
    await other.admit(grandchild, 30, session="s.1")
    await other.admit(ended, 40)
    await one.flush()
    for key in (of_ended, ended):
        await revoke(counters, postgres_url, key)
    assert await counters.give_back(root.keys, of_ended.key_id, last=False) == GivenBack(20)
    assert await counters.give_back(root.keys, ended.key_id, last=False) == GivenBack(75)
    before = await counted(counters, root)
    assert before[f"K{root.key_id}.ct"] == f"0:{20 + 400 + 75}"
    assert before[f"K{child.key_id}.ct"] == f"0:{15 + 150}"
    assert before[f"K{grandchild.key_id}.ct"] == "0:45"

    await counters.command("FLUSHALL")
    lost = await one.ask(root, 1)
    assert isinstance(lost, ShardLost)
    assert await one.shards.ready(lost, root.keys.shard)

    # What was given back before is held back again, until it is given back as it was then.
    await assert_rebuilt(ledger, counters, [root], [*one.calls, *other.calls])
    counters.adopt(root.keys.shard, *await one.counters.meta(root.keys.shard))
    assert (await counted(counters, root))[f"K{root.key_id}.ct"] == f"0:{20 + 400 + 200}"
    assert await counters.give_back(root.keys, of_ended.key_id, last=False) == GivenBack(20)
    assert await counters.give_back(root.keys, ended.key_id, last=False) == GivenBack(75)
    assert await counted(counters, root) == before
    session = await counters.command("HGETALL", root.keys.session("s.1"))
    assert session == [b"K%d" % root.key_id, b"30"]
    # And they go on from there: what a call of an ended key does not use comes back as well.
    assert await one.ask(ended, 1) == KeyRefused()
    assert isinstance(await one.ask(grandchild, 106), SpendCapReached)
    for worker in workers:
        for call_id in list(worker.calls):
            assert isinstance(await worker.settle(call_id, 10), Settled)
    for key, used in ((of_ended, 10), (ended, 35)):
        assert await counters.give_back(root.keys, key.key_id, last=True) == GivenBack(used)
    after = await counted(counters, root)
    assert after[f"K{root.key_id}.ct"] == f"0:{10 + 400 + 35}"
    assert not {name for name in after if str(ended.key_id) in name}


async def test_a_key_whose_row_was_loaded_before_it_was_carved_counts_once(
    ledger: Ledger, counters: Counters, postgres_url: str
) -> None:
    root = await caller(ledger, counters, 100_000)
    await change(postgres_url, root.key_id, f"spec = '{ROOT}'")
    fits = await delegate(postgres_url, root.key_id, 800)
    too_much = await delegate(postgres_url, root.key_id, 300)
    state = await ledger.account_state(root.account_id)
    assert state is not None
    assert await counters.load(root.keys, state, force=True)

    async def carve(key_id: int, budget: int) -> object:
        rules = f"ct:{budget} up:{root.key_id}"
        text = key_text(2_000_000_000_000, rules)
        return await counters.carve(root.keys, root.key_id, key_id, budget, text)

    # Together they are more than the cap, and which of them is too much nobody can say.
    assert await carve(too_much, 300) == CarveRefused(0)
    await change(postgres_url, too_much, REVOKED)
    await counters.amend(root.keys, {f"k:{too_much}": f"-1 ct:300 up:{root.key_id}"})
    assert await counters.give_back(root.keys, too_much, last=False) == GivenBack(0)
    assert await carve(fits, 800) == Carved()
    assert (await counted(counters, root))[f"K{root.key_id}.ct"] == "0:800"

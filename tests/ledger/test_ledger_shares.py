"""Redis is loaded with delegated keys, and with what of each counts in its parent."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from gateway.counters import Counters
from gateway.ledger.specs import key_to_spec
from policies.catalog import Caps, Limits
from policies.delegation import DELEGATED_KEYS_MAX
from policies.spans import DAY_MS
from tests.support.delegated import change, delegate
from tests.support.settlements import account_with_grants, settlement

if TYPE_CHECKING:
    from gateway.ledger import Ledger
    from gateway.ledger.seeds import State

REVOKED = "status = 'revoked', revoked_at = now()"
CLOSED = f"{REVOKED}, closed = true"


class Family:
    """An account whose root key has a cap in total and one per day, and keys carved out of it."""

    def __init__(self, ledger: Ledger, postgres_url: str) -> None:
        self.ledger = ledger
        self.postgres_url = postgres_url
        self.mine: dict[str, int] = {}
        self.grant = self.root = 0

    async def begin(self, caps: Caps) -> None:
        platform_id, account_id, grants = await account_with_grants(self.ledger, 1_000_000)
        self.mine = {"platform_id": platform_id, "account_id": account_id}
        (self.grant,) = grants
        root = await self.ledger.create_key(
            account_id,
            name="root",
            prefix="tk_dev_ab",
            last4="wxyz",
            pepper_version=1,
            digest=b"root",
            caps=caps,
        )
        assert root is not None
        self.root = root

    async def carve(self, parent: int, budget: int, *, caps: Caps | None = None) -> int:
        spec = json.dumps(key_to_spec(Limits(), caps)) if caps else "{}"
        return await delegate(self.postgres_url, parent, budget, spec=spec)

    async def change(self, key_id: int, assignment: str) -> None:
        await change(self.postgres_url, key_id, assignment)

    async def spend(self, key_id: int, amount: int, *, days_ago: int = 0) -> None:
        call = settlement(((self.grant, amount),), key_id=key_id, **self.mine)
        await self.ledger.record_settlements(
            [call._replace(settled_ms=call.settled_ms - days_ago * DAY_MS)]
        )

    async def state(self) -> State:
        state = await self.ledger.account_state(self.mine["account_id"])
        assert state is not None
        return state

    async def total(self, key_id: int) -> int:
        end, _, used = str((await self.state())[f"K{key_id}.ct"]).partition(":")
        assert end == "0"
        return int(used)


async def family(ledger: Ledger, postgres_url: str, caps: Caps) -> Family:
    made = Family(ledger, postgres_url)
    await made.begin(caps)
    return made


async def test_a_delegated_key_is_written_with_its_budget_its_parent_and_its_guards(
    ledger: Ledger, postgres_url: str
) -> None:
    keys = await family(ledger, postgres_url, Caps(total=500))
    child = await keys.carve(keys.root, 100, caps=Caps(day=30, total=99))
    await keys.change(child, "guard_version = 3, expires_at = from_ms(1790000000000)")
    await keys.change(keys.root, "guard_version = 2")

    state = await keys.state()

    assert state[f"k:{keys.root}"] == "0 gv:2 ct:500"
    assert state[f"k:{child}"] == f"1790000000000 ct:100 up:{keys.root} gv:3 cd:30"
    assert state[f"p:{child}"] == f"{keys.root}:100"
    assert (state[f"K{child}.ct"], state[f"K{keys.root}.ct"]) == ("0:0", "0:100")


async def test_a_budget_counts_whole_in_its_parent_until_its_key_is_closed(
    ledger: Ledger, postgres_url: str
) -> None:
    """When it is over, and what came back, is known to Redis: it gives back again."""
    keys = await family(ledger, postgres_url, Caps(total=500))
    child = await keys.carve(keys.root, 100)
    grandchild = await keys.carve(child, 60)
    await keys.spend(keys.root, 7)
    await keys.spend(child, 20)
    await keys.spend(grandchild, 5)
    for ended in ("status = status", REVOKED, "expires_at = now() - interval '1 hour'"):
        await keys.change(grandchild, ended)
        assert [await keys.total(key) for key in (keys.root, child, grandchild)] == [107, 80, 5]
        assert (await keys.state())[f"p:{grandchild}"] == f"{child}:60"
    await keys.change(grandchild, "closed = true")
    assert [await keys.total(key) for key in (keys.root, child)] == [107, 25]


async def test_closed_keys_are_not_loaded_and_count_as_what_they_used(
    ledger: Ledger, postgres_url: str
) -> None:
    keys = await family(ledger, postgres_url, Caps(total=500, day=90))
    child = await keys.carve(keys.root, 100)
    grandchild = await keys.carve(child, 60)
    great = await keys.carve(grandchild, 30)
    for number, key_id in enumerate((keys.root, child, grandchild, great)):
        await keys.spend(key_id, 10**number)
    for key_id in (great, grandchild):
        await keys.change(key_id, CLOSED)

    state = await keys.state()

    for key_id in (grandchild, great):
        assert not [name for name in state if name in (f"k:{key_id}", f"p:{key_id}")]
        assert not [name for name in state if name.startswith(f"K{key_id}.")]
    assert await keys.total(child) == 1_110
    assert await keys.total(keys.root) == 101
    await keys.change(child, CLOSED)
    assert await keys.total(keys.root) == 1_111
    assert str((await keys.state())[f"K{keys.root}.cd"]).endswith(":1111")


async def test_calls_with_a_delegated_key_count_in_the_windows_of_its_ancestors(
    ledger: Ledger, postgres_url: str
) -> None:
    keys = await family(ledger, postgres_url, Caps(day=900))
    child = await keys.carve(keys.root, 100, caps=Caps(day=50, month=70))
    grandchild = await keys.carve(child, 60)
    other = await keys.carve(keys.root, 80, caps=Caps(day=50))
    for number, key_id in enumerate((keys.root, child, grandchild, other)):
        await keys.spend(key_id, 10**number)

    state = await keys.state()

    used = {name: str(value).partition(":")[2] for name, value in state.items() if "." in name}
    assert used == {
        f"K{keys.root}.cd": "1111",
        f"K{child}.cd": "110",
        f"K{child}.cm": "110",
        f"K{child}.ct": "70",
        f"K{grandchild}.ct": "100",
        f"K{other}.cd": "1000",
        f"K{other}.ct": "1000",
    }


async def test_a_cap_in_total_counts_from_when_its_key_was_made(
    ledger: Ledger, postgres_url: str
) -> None:
    keys = await family(ledger, postgres_url, Caps(total=500))
    await keys.spend(keys.root, 7)
    await keys.spend(keys.root, 9, days_ago=40)
    await keys.change(keys.root, "created_at = created_at - interval '50 days'")
    assert await keys.total(keys.root) == 16


async def test_a_delegated_key_without_a_budget_is_revoked_from_the_beginning(
    ledger: Ledger, postgres_url: str
) -> None:
    keys = await family(ledger, postgres_url, Caps(total=500))
    child = await keys.carve(keys.root, 0)
    state = await keys.state()
    assert str(state[f"k:{child}"]).startswith("-1 ct:1 ")
    assert (state[f"p:{child}"], state[f"K{keys.root}.ct"]) == (f"{keys.root}:1", "0:1")


async def test_a_session_counts_in_the_keys_that_the_calls_key_was_carved_from(
    ledger: Ledger, postgres_url: str
) -> None:
    keys = await family(ledger, postgres_url, Caps(session=500))
    child = await keys.carve(keys.root, 100)
    grandchild = await keys.carve(child, 60)
    await keys.change(grandchild, CLOSED)
    call = settlement(((keys.grant, 9),), key_id=grandchild, session="s", **keys.mine)
    await ledger.record_settlements([call])
    (spent,) = await ledger.session_spend(time.time_ns() // 1_000_000 - DAY_MS)
    assert spent.counts_in == [grandchild, child, keys.root]
    assert spent.spent_microcredits == 9


async def test_redis_takes_as_many_delegated_keys_as_an_account_may_have(
    ledger: Ledger, postgres_url: str, clean_redis_url: str
) -> None:
    keys = await family(ledger, postgres_url, Caps(total=10**9, day=10**9))
    caps = Caps(day=50, month=70)
    carved = [await keys.carve(keys.root, 100, caps=caps) for _ in range(DELEGATED_KEYS_MAX)]
    state = await keys.state()
    assert state[f"K{keys.root}.ct"] == f"0:{100 * DELEGATED_KEYS_MAX}"
    async with Counters(clean_redis_url, shards=4, deadline_ms=10_000) as counters:
        mine = counters.keys(keys.mine["account_id"])
        epoch = await ledger.next_epoch(mine.shard)
        await counters.close_shard(mine.shard, epoch, 0)
        await counters.open_shard(mine.shard, epoch)
        assert await counters.load(mine, state)
        fields = (await counters.inspect(mine)).fields
        assert fields[f"p:{carved[-1]}"] == f"{keys.root}:100"
        told = {name: str(value) for name, value in state.items() if name not in ("month", "count")}
        assert told.items() <= fields.items()
        amended = {name: value for name, value in state.items() if name[:2] in ("k:", "K1")}
        assert await counters.amend(mine, amended)

"""One shard on a real Redis, driven by the real scripts under a clock that tests set.

The scripts' text is production's but for `lib/clock.lua`, which here reads a key.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from policies.scripts import SCRIPTS, compose
from tests.support.shard_model import Account, Hold, ShardModel, account_fields

if TYPE_CHECKING:
    import redis

CLOCK = """
local function clock_us()
  return tonumber(redis.call('GET', 'tk:{lua}:clock'))
end
"""

# Which keys each script takes, in order.
KEYS = {
    "admit": ("meta", "account", "holds", "leases"),
    "settle": ("meta", "account", "holds", "leases", "outbox"),
    "void": ("meta", "account", "holds", "leases"),
    "expire": ("meta", "account", "holds", "leases", "outbox"),
    "load": ("meta", "account"),
    "open": ("meta", "holds", "leases"),
    "amend": ("meta", "account"),
    "grant": ("meta", "account"),
    "inspect": ("account", "holds", "meta"),
}


def source(name: str) -> str:
    """A file of policies/lua, as installed."""
    return (files("policies") / "lua" / name).read_text()


def source_with_test_clock(name: str) -> str:
    return CLOCK if name == "lib/clock.lua" else source(name)


def key(name: str, account_id: int = 0) -> str:
    return f"tk:{{lua}}:a:{account_id}" if name == "account" else f"tk:{{lua}}:{name}"


class LuaShard:
    """`run` a script, read the complete `state`. Starts empty; the clock stands at `now_us`."""

    def __init__(self, client: redis.Redis, *, test_clock: bool = True) -> None:
        self.client = client
        read = source_with_test_clock if test_clock else source
        self._shas = {name: client.script_load(compose(name, read)) for name in SCRIPTS}
        self.clear()

    def clear(self) -> None:
        if names := self.client.keys("tk:{lua}:*"):
            self.client.delete(*names)

    def set_clock(self, now_us: int) -> None:
        self.client.set(key("clock"), now_us)

    def run(self, script: str, account_id: int, *arguments: Any) -> Any:
        names = [key(name, account_id) for name in KEYS[script]]
        return self.client.evalsha(self._shas[script], len(names), *names, *arguments)

    def state(self, account_ids: tuple[int, ...]) -> dict[str, Any]:
        """Everything there is; without a transaction, which maxmemory would refuse."""
        with self.client.pipeline(transaction=False) as pipeline:
            pipeline.hgetall(key("meta"))
            pipeline.hgetall(key("holds"))
            pipeline.zrange(key("leases"), 0, -1, withscores=True)
            pipeline.xrange(key("outbox"))
            for account_id in account_ids:
                pipeline.hgetall(key("account", account_id))
            meta, holds, leases, outbox, *accounts = pipeline.execute()
        return {
            "meta": meta,
            "holds": holds,
            "leases": {call_id: int(deadline_ms) for call_id, deadline_ms in leases},
            "outbox": dict(outbox),
            "accounts": dict(zip(account_ids, accounts, strict=True)),
        }


def model_state(model: ShardModel, account_ids: tuple[int, ...]) -> dict[str, Any]:
    """What `LuaShard.state` must be."""
    epoch_seq = map(str, model.meta) if model.meta else ()
    return {
        "meta": dict(zip(("epoch", "seq"), epoch_seq, strict=False)),
        "holds": {call_id: hold.text() for call_id, hold in model.holds.items()},
        "leases": {
            call_id: hold.deadline_ms
            for call_id, hold in model.holds.items()
            if isinstance(hold, Hold)
        },
        "outbox": model.outbox,
        "accounts": {
            account_id: account_fields(model.accounts.get(account_id, Account()))
            for account_id in account_ids
        },
    }


def account_seed(
    *,
    lots: dict[int, int] | None = None,
    expires_ms: dict[int, int] | None = None,
    effective_ms: dict[int, int] | None = None,
    settled: dict[int, int] | None = None,
    **facts: str | int,
) -> dict[str, str]:
    """The fields of a `load`: an active account with key 5, no limits, and lots of the amounts."""
    lots = lots or {}
    fields: dict[str, str | int] = {"status": "active", "rpm": 0, "rpmonth": 0, "conc": 0, "k:5": 0}
    fields |= facts
    fields["lots"] = " ".join(map(str, lots))
    for grant_id, amount in lots.items():
        fields[f"a:{grant_id}"] = amount
        fields[f"s:{grant_id}"] = (settled or {}).get(grant_id, 0)
        fields[f"e:{grant_id}"] = (expires_ms or {}).get(grant_id, 0)
        fields[f"f:{grant_id}"] = (effective_ms or {}).get(grant_id, 0)
    return {name: str(value) for name, value in fields.items()}


def flat(fields: dict[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]

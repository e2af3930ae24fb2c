"""One shard on a real Redis, driven by the real scripts under a clock that tests set.

The scripts' text is production's but for `lib/clock.lua`, which here reads a key.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from policies.scripts import SCRIPTS, compose
from tests.support.shard_model_state import Account, Hold

if TYPE_CHECKING:
    import redis

    from tests.support.shard_model import ShardModel

CLOCK = """
local function clock_us()
  return tonumber(redis.call('GET', 'tk:{lua}:clock'))
end
"""

# Which keys each script takes, in order; those of SESSIONED one more if the call has a session.
KEYS = {
    "admit": ("meta", "account", "holds", "leases"),
    "raise": ("meta", "account", "holds", "leases"),
    "settle": ("meta", "account", "holds", "leases", "outbox"),
    "void": ("meta", "account", "holds", "leases"),
    "expire": ("meta", "account", "holds", "leases", "outbox"),
    "extend": ("meta", "holds", "leases"),
    "park": ("meta", "account", "holds", "leases", "task"),
    "touch": ("meta", "holds", "leases", "task"),
    "unpark": ("task",),
    "claim": ("meta", "account", "holds", "outbox", "i", "ia"),
    "remember": ("i", "ia", "ib"),
    "forget": ("i",),
    "late": ("meta", "account", "holds", "leases", "outbox"),
    "withdraw": ("meta", "account", "holds", "outbox"),
    "acknowledge": ("holds", "outbox"),
    "credit": ("meta", "account"),
    "load": ("meta", "account"),
    "amend": ("meta", "account"),
    "carve": ("meta", "account"),
    "giveback": ("meta", "account"),
    "close": ("meta", "holds", "leases", "old", "oldleases", "reports"),
    "restore": ("meta", "holds", "leases", "reports"),
    "open": ("meta", "old", "oldleases", "reports"),
    "resume": ("meta",),
    "inspect": ("account", "holds", "meta"),
}
SESSIONED = ("admit", "raise", "settle", "void", "expire", "late")


def source(name: str) -> str:
    """A file of policies/lua, as installed."""
    return (files("policies") / "lua" / name).read_text()


def source_with_test_clock(name: str) -> str:
    return CLOCK if name == "lib/clock.lua" else source(name)


def key(name: str, account_id: int = 0, session: str = "") -> str:
    if name == "session":
        return f"tk:{{lua}}:x:{account_id}:{session}"
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

    def start(self, epoch: int = 1) -> None:
        """Close and open an empty shard."""
        assert self.run("close", 0, epoch, 0)[0] == "OK"
        assert self.run("open", 0, epoch)[0] == "OK"

    def run(self, script: str, account_id: int, *arguments: Any, session: str = "") -> Any:
        names = [key(name, account_id) for name in KEYS[script]]
        if session:
            assert script in SESSIONED
            names.append(key("session", account_id, session))
        return self.client.evalsha(self._shas[script], len(names), *names, *arguments)

    def dispatched(self, call_id: str, score: int) -> None:
        """What a worker writes just before the call's first byte leaves."""
        self.client.zadd(key("leases"), {call_id: score}, xx=True, gt=True)

    def state(self, account_ids: tuple[int, ...], sessions: tuple[str, ...] = ()) -> dict[str, Any]:
        """Everything there is; without a transaction, which maxmemory would refuse."""
        places = [(account_id, session) for account_id in account_ids for session in sessions]
        with self.client.pipeline(transaction=False) as pipeline:
            for name in ("meta", "holds", "old", "reports"):
                pipeline.hgetall(key(name))
            for name in ("leases", "oldleases"):
                pipeline.zrange(key(name), 0, -1, withscores=True)
            pipeline.xrange(key("outbox"))
            for account_id in account_ids:
                pipeline.hgetall(key("account", account_id))
            for place in places:
                pipeline.hgetall(key("session", *place))
            meta, holds, old, reports, leases, old_leases, outbox, *rest = pipeline.execute()
        accounts, spent = rest[: len(account_ids)], rest[len(account_ids) :]
        return {
            "meta": meta,
            "holds": holds,
            "leases": {call_id: int(score) for call_id, score in leases},
            "outbox": dict(outbox),
            "accounts": dict(zip(account_ids, accounts, strict=True)),
            "sessions": dict(zip(places, spent, strict=True)),
            "old": old,
            "oldleases": {call_id: int(score) for call_id, score in old_leases},
            "reports": reports,
        }


def model_state(
    model: ShardModel, account_ids: tuple[int, ...], sessions: tuple[str, ...] = ()
) -> dict[str, Any]:
    """What `LuaShard.state` must be."""
    meta = zip(("epoch", "seq", "run"), (*(model.meta or (None, None)), model.run), strict=True)
    return {
        "meta": {name: str(value) for name, value in meta if value is not None},
        "holds": {name: kept.text() for name, kept in model.holds.items()},
        "leases": {
            call_id: hold.score for call_id, hold in model.holds.items() if isinstance(hold, Hold)
        },
        "outbox": {outbox_id: each.entry() for outbox_id, each in model.outbox.items()},
        "accounts": {
            account_id: model.accounts.get(account_id, Account()).fields()
            for account_id in account_ids
        },
        "sessions": {
            (account_id, session): {
                scope: str(spent)
                for scope, spent in model.sessions.get((account_id, session), {}).items()
            }
            for account_id in account_ids
            for session in sessions
        },
        "old": model.old_holds,
        "oldleases": model.old_scores,
        "reports": model.reports,
    }


def account_seed(
    *,
    lots: dict[int, int] | None = None,
    overage: dict[int, int] | None = None,
    expires_ms: dict[int, int] | None = None,
    effective_ms: dict[int, int] | None = None,
    settled: dict[int, int] | None = None,
    withdrawn: dict[int, int] | None = None,
    **facts: str | int,
) -> dict[str, str]:
    """The fields of a `load`: an active account with key 5, no limits, and lots of the amounts."""
    lots, overage = lots or {}, overage or {}
    fields: dict[str, str | int] = {"status": "active", "rpm": 0, "rpmonth": 0, "conc": 0}
    fields |= {"rules": "", "k:5": 0} | facts
    fields["lots"] = " ".join([*map(str, lots), *(f"{lot}o" for lot in overage)])
    for grant_id, amount in (lots | overage).items():
        fields[f"a:{grant_id}"] = amount
        fields[f"s:{grant_id}"] = (settled or {}).get(grant_id, 0)
        fields[f"w:{grant_id}"] = (withdrawn or {}).get(grant_id, 0)
        fields[f"e:{grant_id}"] = (expires_ms or {}).get(grant_id, 0)
        fields[f"f:{grant_id}"] = (effective_ms or {}).get(grant_id, 0)
    return {name: str(value) for name, value in fields.items()}


def flat(fields: dict[str, str]) -> list[str]:
    return [part for pair in fields.items() for part in pair]

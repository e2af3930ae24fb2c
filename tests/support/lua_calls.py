"""One account's calls on a `LuaShard`, with what most tests do not care about filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.lua_shard import account_seed, flat

if TYPE_CHECKING:
    from tests.support.lua_shard import LuaShard

NOW_US = 1_790_000_000_000_123
NOW_MS = NOW_US // 1000
CALL = "0190" + "a" * 28
CONTEXT = "1,7,5,2,9,"


def load(shard: LuaShard, account_id: int = 7, **seed: Any) -> None:
    fields = account_seed(**seed)
    assert shard.run("load", account_id, 0, 0, 1, *flat(fields))[0] == "OK"


def admit(shard: LuaShard, call_id: str = CALL, amount: int = 6, **others: Any) -> Any:
    """Others: account_id, key_id, lease_ms, due, context, route_rules, session."""
    values = {"account_id": 7, "key_id": 5, "lease_ms": 1000, "due": 0, "context": ""}
    values |= {"route_rules": "", "session": ""} | others
    account_id, key_id, lease_ms, due, context, route_rules, session = values.values()
    context = context or f"1,{account_id},{key_id},2,9,{session}"
    arguments = [call_id, 0, 0, key_id, amount, lease_ms, due, context]
    if route_rules or session:
        arguments += [route_rules, session]
    return shard.run("admit", account_id, *arguments, session=session)


def settle(shard: LuaShard, owed: int, call_id: str = CALL, session: str = "") -> Any:
    result = "completed,200,token=1,"
    return shard.run("settle", 7, call_id, 0, 0, owed, result, session=session)


def expire(shard: LuaShard, call_id: str = CALL, session: str = "") -> Any:
    return shard.run("expire", 7, call_id, 0, 0, session=session)


def void(shard: LuaShard, call_id: str = CALL, session: str = "") -> Any:
    return shard.run("void", 7, call_id, 0, 0, session=session)


def late(shard: LuaShard, owed: int, call_id: str = CALL, *, epoch: int = 0) -> Any:
    """A call whose hold may be lost: it had 6 reserved."""
    result = "completed,200,token=1,"
    return shard.run("late", 7, call_id, epoch, 0, owed, result, CONTEXT, 6, NOW_MS)


def withdraw(
    shard: LuaShard, change_id: str, kind: str, lot_id: int | str = "", amount: Any = "all"
) -> Any:
    return shard.run("withdraw", 7, 0, 0, change_id, kind, lot_id, amount, "", "1,7")


def dispatch(shard: LuaShard, call_id: str = CALL, lease_ms: int = 1000) -> None:
    """The mark of a call that was admitted at NOW_MS with this lease."""
    shard.dispatched(call_id, 2 * (NOW_MS + lease_ms) + 1)


def lot(shard: LuaShard, grant_id: int = 12) -> list[int]:
    """Available, held, settled and withdrawn of account 7's lot."""
    fields = shard.state((7,))["accounts"][7]
    return [int(fields[f"{name}:{grant_id}"]) for name in "ahsw"]


def counter(shard: LuaShard, name: str) -> str | None:
    """A counter of account 7, as its hash has it."""
    found: str | None = shard.state((7,))["accounts"][7].get(name)
    return found

"""What must hold at rest: nothing under way, and Redis, Postgres and the model say the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.operations.audit import audit
from tests.simulation.model import Call, Violation

if TYPE_CHECKING:
    from tests.simulation.cast import Node
    from tests.simulation.world import World

CHARGED = """
SELECT replace(settlements.call_id::text, '-', '') AS call_id, account_id, ending, flags,
    held_microcredits AS held, charged_microcredits AS charged,
    uncollected_microcredits AS uncollected,
    coalesce((
        SELECT -sum(microcredits) FROM ledger_entries
        WHERE ledger_entries.call_id = settlements.call_id AND kind = 'settle'
    ), 0)::bigint AS settled,
    coalesce((
        SELECT -sum(microcredits) FROM ledger_entries
        WHERE ledger_entries.call_id = settlements.call_id AND kind = 'late' AND microcredits < 0
    ), 0)::bigint AS late,
    coalesce((
        SELECT sum(microcredits) FROM ledger_entries
        WHERE ledger_entries.call_id = settlements.call_id AND kind = 'late' AND microcredits > 0
    ), 0)::bigint AS back,
    (coalesce((
        SELECT sum(microcredits) FROM ledger_entries
        WHERE ledger_entries.call_id = settlements.call_id AND kind = 'refund'
    ), 0) + coalesce((
        SELECT sum(amount_microcredits) FROM grants
        WHERE source = 'refund'
            AND business_key = 'refund:' || replace(settlements.call_id::text, '-', '')
    ), 0))::bigint AS refunded
FROM settlements
"""
# How far accounts have moved through tiers in windows that end in $1; a month or a period is no
# longer than so many days.
MOVED = """
SELECT coalesce(sum(substring(units FROM 'token\\.tiers=([0-9]+)')::bigint), 0)::bigint AS units
FROM settlements
WHERE account_id = $1 AND route_id = $2 AND settled_at < to_timestamp($3 / 1000.0)
    AND settled_at >= to_timestamp($3 / 1000.0) - interval '31 days'
"""
LOTS = """
SELECT id, account_id, amount_microcredits + credited_microcredits AS total,
    settled_microcredits AS settled, expired_microcredits + revoked_microcredits AS withdrawn
FROM grants
"""


class Rest:
    """Looks at everything, once nothing is under way any more."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._closed: dict[str, int] = {}  # what calls of earlier rests have cost

    def under_way(self) -> list[str]:
        """What keeps the world from being at rest, in words."""
        world = self._world
        found = [f"{call.call_id} runs" for call in world.model.running()]
        for name in world.redis.ask("KEYS", "tk:*"):
            key = name.decode()
            kind = key.rpartition(":")[2]
            size = {"holds": "HLEN", "outbox": "XLEN"}.get(kind)
            if size is not None and (count := world.redis.ask(size, key)):
                found.append(f"{key} has {count}")
            elif kind == "meta" and world.redis.ask("HGET", key, "seq") is None:
                found.append(f"{key} is closed")
            elif kind in {"old", "oldleases", "reports"}:
                found.append(f"{key} is there")
        if found:
            return found
        late = world.postgres.fetch("SELECT count(*) FROM late_settlements")[0][0]
        if late:
            found.append(f"{late} late settlements")
        return found

    def check(self, node: Node) -> None:
        """Compare all. Raises: Violation."""
        rows = {row["call_id"]: row for row in self._world.postgres.fetch(CHARGED)}
        self._calls(rows)
        self._lots(rows)
        assert node.ledger is not None
        assert node.counters is not None
        report = self._world.calmly(audit(node.ledger, node.counters), node.process)
        if report.findings:
            raise Violation("audit: " + "; ".join(map(str, report.findings)))
        self._world.model.note("rests")

    def _calls(self, rows: dict[str, Any]) -> None:
        """I2, and that each call cost what it must."""
        model = self._world.model
        if strange := rows.keys() - model.calls.keys():
            raise Violation(f"I2: settlements of calls that never were: {strange}")
        for call in list(model.unsettled.values()):
            self._call(call, rows.get(call.call_id))
            del model.unsettled[call.call_id]
        for call_id, row in rows.items():
            call = model.calls[call_id]
            allowed = {_cost(row)} if call.refunded else {0, _cost(row)} if call.refunds else {0}
            if row["refunded"] not in allowed:
                raise Violation(f"a call was refunded by {row['refunded']}, not {allowed}: {call}")
        for call_id, cost in self._closed.items():
            if _cost(rows[call_id]) != cost:
                raise Violation(f"I2: the cost of {call_id} changed after it was settled: {cost}")

    def _call(self, call: Call, row: Any) -> None:
        model = self._world.model
        low, high, unknown = call.allowed()
        if row is None:
            if not unknown:
                raise Violation(f"I2: no settlement of {call}")
            model.note("calls never sent on" if not call.dispatched else "calls forgotten")
            return
        if not call.dispatched:
            raise Violation(f"I2: a call that was never sent on was settled: {dict(row)} {call}")
        if row["settled"] != row["charged"]:
            raise Violation(f"I2: charged and posted differ: {dict(row)} {call}")
        cost = _cost(row)
        self._closed[call.call_id] = cost
        model.note(f"calls settled {row['flags'] or row['ending']}")
        short = row["uncollected"] > 0 or not model.accounts[call.account_id].rich
        if not (low <= cost <= high or (short and cost < low)):
            raise Violation(f"a call cost {cost}, not {low} to {high}: {dict(row)} {call}")
        if row["uncollected"] and model.accounts[call.account_id].rich:
            raise Violation(f"a rich account did not pay all: {dict(row)} {call}")

    def _lots(self, rows: dict[str, Any]) -> None:
        """I1 and I3 in both stores, lot by lot, and per account against what its calls cost."""
        world = self._world
        lots = world.postgres.fetch(LOTS)
        spent: dict[int, int] = {}
        for row in rows.values():
            cost = row["settled"] + row["late"]  # what came back is credited, and stays settled
            spent[row["account_id"]] = spent.get(row["account_id"], 0) + cost
        for account in world.model.accounts.values():
            mine = [lot for lot in lots if lot["account_id"] == account.account_id]
            settled = sum(lot["settled"] for lot in mine)
            if settled != spent.get(account.account_id, 0):
                raise Violation(
                    f"I1: lots of account {account.account_id} settled {settled}, its calls cost "
                    f"{spent.get(account.account_id, 0)}"
                )
            self._compare(account.shard, account.account_id, mine)

    def _compare(self, shard: int, account_id: int, lots: list[Any]) -> None:
        redis = self._world.redis
        tag = f"tk:{{s{shard:03d}}}"
        epoch = redis.ask("HGET", f"{tag}:meta", "epoch")
        flat = redis.ask("HGETALL", f"{tag}:a:{account_id}")
        fields = {
            name.decode(): value.decode() for name, value in zip(flat[::2], flat[1::2], strict=True)
        }
        for lot in lots:
            if lot["settled"] + lot["withdrawn"] > lot["total"]:
                raise Violation(f"I3: more was taken than there was: {dict(lot)}")
        if not epoch or fields.get("epoch") != epoch.decode():
            return
        if fields["running"] != "0":
            raise Violation(f"at rest account {account_id} runs {fields['running']} calls")
        self._tiers(account_id, fields)
        for lot in lots:
            name = lot["id"]
            if f"a:{name}" not in fields:
                continue
            a, h, s, w = (int(fields.get(f"{kind}:{name}", "0")) for kind in "ahsw")
            left = lot["total"] - lot["settled"] - lot["withdrawn"]
            if (a, h, s, w) != (left, 0, lot["settled"], lot["withdrawn"]):
                raise Violation(
                    f"I1: grant {name} of account {account_id}: Redis has {a=} {h=} {s=} {w=}, "
                    f"Postgres {dict(lot)}"
                )

    def _tiers(self, account_id: int, fields: dict[str, str]) -> None:
        """No settlement has moved an account twice; late ones do once it is loaded again."""
        for name, text in fields.items():
            if name.startswith("u:"):
                end_ms, used = map(int, text.split(":"))
                route_id = int(name.split(":")[1])
                moved = self._world.postgres.fetch(MOVED, account_id, route_id, end_ms)[0]["units"]
                self._world.model.note("tiers compared")
                if used > moved:
                    raise Violation(f"account {account_id} used {used} of {name}, not {moved}")


def _cost(row: Any) -> int:
    """What a call has cost in the end."""
    return int(row["settled"] + row["late"] - row["back"])

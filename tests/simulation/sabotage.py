"""Ways to break the product on purpose, to see that the simulation finds out.

Nothing is changed on disk: the text of a script or of a query is edited when it is read, or a
method is replaced, in the process that simulates. README.md says how soon each is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import gateway.ledger.database
from gateway.counters.scripts import read_scripts
from gateway.ledger.queries import load_queries
from gateway.ledger.writer import SettlementWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from policies.settlement import Settlement


class Edit(NamedTuple):
    """Text to replace, wherever it stands."""

    old: str
    new: str


SCRIPTS: dict[str, Edit] = {
    "settle-forgets-its-answer": Edit(
        "call('HSET', KEYS[3], call_id, mark .. '|' .. outbox_id)",
        "call('HDEL', KEYS[3], call_id)",
    ),
    "caps-are-never-uncounted": Edit("if counted ~= '' then uncount(", "if false then uncount("),
    "withdrawals-forget-w": Edit(
        "writes[w + 3], writes[w + 4] = prefix .. lot.id, format('%d', lot[field])", ""
    ),
    "expiry-ignores-the-stage": Edit("if dispatched == 0 then", "if true then"),
    "renewal-forgets-what-is-due": Edit(
        "if ARGV[i + 2] ~= '' then\n      local", "if false then local"
    ),
    "restarts-are-not-noticed": Edit("if epoch == 0 or meta[3] == ARGV[1] then", "if true then"),
    "void-keeps-the-lease": Edit("call('ZREM', KEYS[4], call_id) -- first: see end_hold", ""),
    "raised-parts-are-not-held": Edit("format('%d', lot.held + part)", "format('%d', lot.held)"),
    "tiers-move-twice": Edit("position + step[3]", "position + 2 * step[3]"),
    "late-charges-again": Edit(
        "if text and string.sub(text, 1, 2) ~= 'h|' then "
        "return settled_reply(text, epoch, seq, now_ms) end",
        "if text and string.sub(text, 1, 2) ~= 'h|' then text = nil end",
    ),
}

QUERIES: dict[str, tuple[str, Edit]] = {
    "entries-are-posted-twice": (
        "settlement_record",
        Edit(" AND (call_id IN (SELECT call_id FROM inserted)) IS TRUE", ""),
    ),
}


async def _acknowledge_first(self: SettlementWriter, batch: Sequence[Settlement]) -> None:
    await self._acknowledge([row for row in batch if row.outbox_id is not None])
    await self._record(batch)
    self._batch = ()


def _acknowledge_before_commit() -> None:
    SettlementWriter._deliver = _acknowledge_first  # type: ignore[method-assign]


def _workers_report_no_calls() -> None:
    from gateway.proxy.live import LiveCalls

    LiveCalls.of_shard = lambda *_: []  # type: ignore[method-assign]


def _marks_are_not_sent() -> None:
    from gateway.proxy.live import DISPATCHED, LiveCalls

    async def mark(_: LiveCalls, call: Any) -> None:
        call.stage = DISPATCHED

    LiveCalls.mark = mark  # type: ignore[method-assign]


METHODS: dict[str, Callable[[], None]] = {
    "acknowledged-before-commit": _acknowledge_before_commit,
    "workers-report-no-calls": _workers_report_no_calls,
    "marks-are-not-sent": _marks_are_not_sent,
}
NAMES = sorted((*SCRIPTS, *QUERIES, *METHODS))


def commit(name: str | None) -> Callable[[str], str]:
    """Break this one thing; answers what is to be done to the text of each script."""
    if name in METHODS:
        METHODS[name]()
    elif name in QUERIES:
        query, edit = QUERIES[name]
        queries = load_queries()
        _must_occur(edit, queries[query])
        queries[query] = queries[query].replace(*edit)
        gateway.ledger.database.load_queries = lambda: queries  # type: ignore[attr-defined]
    elif name is not None:
        edit = SCRIPTS[name]
        _must_occur(edit, "".join(script.text for script in read_scripts().values()))
        return lambda text: text.replace(*edit)
    return lambda text: text


def _must_occur(edit: Edit, text: str) -> None:
    if edit.old not in text:
        raise ValueError(f"the text to break is not there any more: {edit.old}")

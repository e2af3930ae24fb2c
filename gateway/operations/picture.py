"""Takes the audit's picture of a shard: Redis at one instant, in one script that only reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.operations.errors import OperationError
from policies.rebuild import parse_hold
from policies.settlement import Settlement, parse_entry, parse_postings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gateway.counters import AccountKeys, Counters
    from policies.rebuild import HoldText
    from policies.settlement import LedgerChange

# Redis answers nobody else while it takes the picture: about 0.1 s at this bound.
ENTRIES_MAX = 100_000
LIVE = "h|"
SETTLED = ("s|", "x|")
CHANGED = "c|"


class Lease(NamedTuple):
    """Until when a hold stays, and how far its call has come: 0 held, 1 dispatched."""

    deadline_ms: int
    stage: int


class Malformed(NamedTuple):
    """What can't be read: where it is, and the reason."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShardPicture:
    """One shard of Redis, with some of its accounts, at one instant.

    `markers` are what the shard remembers of calls and changes that are not acknowledged yet, by
    call or change id: "s|<outbox id>", "x|<outbox id>" (its hold had run out), "c|<outbox id>".
    """

    shard: int
    epoch: int  # 0: the shard is empty
    closed: bool  # somebody is rebuilding it
    now_ms: int
    accounts: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    holds: Mapping[str, HoldText] = field(default_factory=dict)
    markers: Mapping[str, str] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    settlements: tuple[Settlement, ...] = ()
    changes: tuple[LedgerChange, ...] = ()
    malformed: tuple[Malformed, ...] = ()

    def loaded(self, account_id: int) -> bool:
        """Whether Redis has this account's balance; else its next call reads Postgres."""
        epoch = self.accounts.get(account_id, {}).get("epoch")
        return self.epoch > 0 and epoch == str(self.epoch)


async def take_picture(counters: Counters, accounts: Sequence[AccountKeys]) -> ShardPicture:
    """The picture of some accounts of one shard, at least one.

    Raises: OperationError when the shard has more under way than may be read at once;
    CountersUnavailable.
    """
    shard = accounts[0].state
    names = (shard.meta, shard.holds, shard.leases, shard.outbox, *(keys.name for keys in accounts))
    script = (files("policies") / "lua" / "picture.lua").read_text(encoding="utf-8")
    reply = await counters.command("EVAL", script, len(names), *names, ENTRIES_MAX)
    if reply[0] != b"OK":
        _, holds, leases, outbox = reply
        raise OperationError(
            f"shard {shard.number} has too much under way to be audited ({holds} holds, {leases} "
            f"leases, {outbox} settlements not in Postgres yet): let it be written first"
        )
    _, epoch, seq, now_ms, texts, leases, outbox, hashes = reply
    malformed: list[Malformed] = []
    live, markers = _read_holds(dict(_pairs(texts)), malformed)
    settlements, changes = _read_outbox(shard.number, outbox, malformed)
    return ShardPicture(
        shard=shard.number,
        epoch=epoch,
        closed=epoch > 0 and seq < 0,
        now_ms=now_ms,
        accounts={
            keys.account_id: dict(_pairs(fields))
            for keys, fields in zip(accounts, hashes, strict=True)
        },
        holds=live,
        markers=markers,
        leases={call_id: Lease(*divmod(int(score), 2)) for call_id, score in _pairs(leases)},
        settlements=settlements,
        changes=changes,
        malformed=tuple(malformed),
    )


def _read_holds(
    texts: Mapping[str, str], malformed: list[Malformed]
) -> tuple[dict[str, HoldText], dict[str, str]]:
    live, markers = {}, {}
    for call_id, text in texts.items():
        if text.startswith((*SETTLED, CHANGED)):
            markers[call_id] = text
            continue
        try:
            hold = parse_hold(text)
            parse_postings(hold.allocation)
            live[call_id] = hold
        except ValueError as error:
            malformed.append(Malformed(f"call {call_id}", str(error)))
    return live, markers


def _read_outbox(
    shard: int, entries: list[Any], malformed: list[Malformed]
) -> tuple[tuple[Settlement, ...], tuple[LedgerChange, ...]]:
    settlements: list[Settlement] = []
    changes: list[LedgerChange] = []
    for outbox_id, fields in entries:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        try:
            entry = parse_entry(shard, outbox_id.decode(), values)
        except ValueError as error:
            malformed.append(Malformed(f"outbox entry {outbox_id.decode()}", str(error)))
            continue
        if isinstance(entry, Settlement):
            settlements.append(entry)
        else:
            changes.append(entry)
    return tuple(settlements), tuple(changes)


def _pairs(flat: list[bytes]) -> Iterator[tuple[str, str]]:
    """Redis' flat list of names and values, as text."""
    texts = [value.decode(errors="replace") for value in flat]
    return zip(texts[::2], texts[1::2], strict=True)

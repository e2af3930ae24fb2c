"""Takes the audit's picture of a shard: Redis at one instant, in one script that only reads."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

from gateway.operations.audit_compare import ShardPicture
from gateway.operations.errors import OperationError
from policies.settlement import parse_outbox

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gateway.counters import AccountKeys, Counters
    from policies.settlement import Settlement

# Redis answers nobody else while it takes the picture: about 0.1 s at this bound.
ENTRIES_MAX = 100_000


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
    _, epoch, now_ms, holds, leases, outbox, hashes = reply
    settlements, malformed = _read_outbox(shard.number, outbox)
    return ShardPicture(
        shard=shard.number,
        epoch=epoch,
        now_ms=now_ms,
        accounts={
            keys.account_id: dict(_pairs(fields))
            for keys, fields in zip(accounts, hashes, strict=True)
        },
        holds=dict(_pairs(holds)),
        leases={call_id: int(deadline_ms) for call_id, deadline_ms in _pairs(leases)},
        outbox=settlements,
        malformed=malformed,
    )


def _read_outbox(shard: int, entries: list[Any]) -> tuple[tuple[Settlement, ...], tuple[str, ...]]:
    settlements, malformed = [], []
    for outbox_id, fields in entries:
        values = dict(zip(fields[::2], fields[1::2], strict=True))
        try:
            settlements.append(parse_outbox(shard, outbox_id.decode(), values))
        except ValueError as error:
            malformed.append(str(error))
    return tuple(settlements), tuple(malformed)


def _pairs(flat: list[bytes]) -> Iterator[tuple[str, str]]:
    """Redis' flat list of names and values, as text."""
    texts = [value.decode() for value in flat]
    return zip(texts[::2], texts[1::2], strict=True)

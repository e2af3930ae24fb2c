"""A shard that lost its data: close it, put holds into it, open it. Who does when: recovery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.counters.base import Base
from gateway.counters.connection import identity_of
from gateway.counters.resp import bulks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.counters.keys import Shard

# Holds told by one command: bounds how long Redis is busy with it.
RESTORE_BATCH = 500

# Call id, text of its hold, stage (0 held, 1 dispatched).
ToldHold = tuple[str, str, int]


class Rebuilding(Base):
    """For the rebuilder, and for workers that report to it."""

    def adopt(self, shard: int, epoch: int, seq: int = 0) -> None:
        """Go by a newer epoch that another process opened; older ones are ignored."""
        self._shards[shard].saw(epoch, seq)

    def knows(self, shard: int) -> bool:
        """Whether this process has seen the shard open."""
        return self._shards[shard].epoch > 0

    def seen(self, shard: int) -> tuple[int, int]:
        """The newest epoch and seq that this process knows of; 0, 0 for nothing."""
        return self._known(self._shards[shard])

    async def meta(self, shard: int) -> tuple[int, int | None]:
        """The shard's epoch (0: empty) and seq (None: closed) as they are in Redis."""
        state = self._shards[shard]
        epoch, seq = await self._ask(state.link, "HMGET", state.meta, "epoch", "seq")
        return int(epoch or 0), None if seq is None else int(seq)

    async def close_shard(self, shard: int, epoch: int, lost: int) -> bool:
        """Close a shard whose epoch is `lost` (0: empty) under a new one.

        False: somebody else has done something with it since.
        """
        state = self._shards[shard]
        keys = (state.meta, state.holds, state.leases, state.old, state.oldleases, state.reports)
        reply = await self._run(state, "close", bulks(keys), epoch, lost)
        closed = bool(reply[0] == b"OK")
        if closed:
            # What it is rebuilt on. Without this the next to connect has it rebuilt again. Asked
            # now, because a server's replication may have begun anew since we connected.
            server = await self._ask(state.link, "INFO", "server")
            replication = await self._ask(state.link, "INFO", "replication")
            run = identity_of(server + replication)
            await self._ask(state.link, "HSET", state.meta, "run", run)
        return closed

    async def restore(
        self,
        shard: int,
        epoch: int,
        worker_id: str,
        lease_ms: int,
        holds: Sequence[ToldHold],
    ) -> bool:
        """Put holds into a closed shard. With a worker's id and none, it has told all.

        False: the shard is not closed under this epoch (any more).
        """
        state = self._shards[shard]
        keys = bulks((state.meta, state.holds, state.leases, state.reports))
        for start in range(0, max(len(holds), 1), RESTORE_BATCH):
            told = (part for hold in holds[start : start + RESTORE_BATCH] for part in hold)
            reply = await self._run(state, "restore", keys, epoch, worker_id, lease_ms, *told)
            if reply[0] != b"OK":
                return False
        return True

    async def reported(self, shard: int) -> set[str]:
        """Ids of the workers that have told all of a closed shard."""
        state = self._shards[shard]
        return {name.decode() for name in await self._ask(state.link, "HKEYS", state.reports)}

    async def live_holds(self, shard: int) -> dict[str, tuple[str, int]]:
        """Text and stage of every live hold by call id."""
        state = self._shards[shard]
        return await self._holds(state, state.holds, state.leases)

    async def old_holds(self, shard: int) -> dict[str, tuple[str, int]]:
        """The same of what a closed shard held when it was closed."""
        state = self._shards[shard]
        return await self._holds(state, state.old, state.oldleases)

    async def drop_holds(self, shard: int, call_ids: Sequence[str]) -> None:
        """Forget holds of calls whose settlements are in Postgres, where nothing is due of them."""
        state = self._shards[shard]
        for start in range(0, len(call_ids), RESTORE_BATCH):
            part = call_ids[start : start + RESTORE_BATCH]
            await self._ask(state.link, "ZREM", state.leases, *part)
            await self._ask(state.link, "HDEL", state.holds, *part)

    async def drop_stray_leases(self, shard: int) -> None:
        """Forget leases without a hold, in a closed shard.

        A worker tells of a call whose settlement is still in the outbox when it has not heard of
        it; carrying that acknowledges it, and with that its hold goes, which a worker put there.
        """
        state = self._shards[shard]
        leased = await self._ask(state.link, "ZRANGE", state.leases, 0, -1)
        for start in range(0, len(leased), RESTORE_BATCH):
            part = leased[start : start + RESTORE_BATCH]
            texts = await self._ask(state.link, "HMGET", state.holds, *part)
            stray = [call for call, text in zip(part, texts, strict=True) if text is None]
            if stray:
                await self._ask(state.link, "ZREM", state.leases, *stray)

    async def open_shard(self, shard: int, epoch: int) -> bool:
        """Open a shard that is closed under this epoch; False: it is not."""
        state = self._shards[shard]
        keys = bulks((state.meta, state.old, state.oldleases, state.reports))
        # An uncertain one is not sent again: a server that was restarted in between has closed the
        # shard under this very epoch, to have it rebuilt.
        return bool((await self._run(state, "open", keys, epoch, again=False))[0] == b"OK")

    async def seed_session(
        self, shard: int, account_id: int, session: str, spent: dict[str, int], ttl_ms: int
    ) -> None:
        """Say what a session has spent, by scope ("A", "K5"), and forget it after `ttl_ms`."""
        state = self._shards[shard]
        name = f"{state.tag}:x:{account_id}:{session}"
        fields = (part for pair in spent.items() for part in pair)
        await self._ask(state.link, "HSET", name, *fields)
        await self._ask(state.link, "PEXPIRE", name, ttl_ms)

    async def _holds(self, state: Shard, holds: str, leases: str) -> dict[str, tuple[str, int]]:
        texts = await self._ask(state.link, "HGETALL", holds)
        scores = await self._ask(state.link, "ZRANGE", leases, 0, -1, "WITHSCORES")
        stages = {
            call: int(score) % 2 for call, score in zip(scores[::2], scores[1::2], strict=True)
        }
        return {
            call.decode(): (text.decode(), stages.get(call, 1))
            for call, text in zip(texts[::2], texts[1::2], strict=True)
            if text.startswith(b"h|")
        }

"""Holds of tasks that outlive the calls which began them, each found again by its task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.counters.base import Base
from gateway.counters.replies import lost
from gateway.counters.resp import bulk, bulks
from policies.decision import HoldGone, Parked, TaskTaken, Touched

if TYPE_CHECKING:
    from gateway.counters.keys import AccountKeys
    from policies.decision import Parking, ShardLost

# A task that is heard of after its hold ran out can still be corrected to what it costs.
RECORD_KEPT_MS = 24 * 3_600_000
# Being heard of renews a task's lease no longer than this after its admission: calls that cost
# nothing could else keep its credits held, and it uncharged, for ever.
TASK_AGE_MAX_MS = 7 * 24 * 3_600_000


class Tasks(Base):
    """For calls of agent protocols that have tasks. A task is named by a digest of its id."""

    async def park(
        self,
        keys: AccountKeys,
        call_id: str,
        task: str,
        record: str,
        lease_ms: int,
        *,
        ended: bool,
    ) -> Parking:
        """Let a task have a call's hold, for `lease_ms` after it was last heard of.

        The record begins with the call id and a space. `ended`: the call no longer counts as
        running.
        """
        state = keys.state
        names = keys.four + bulk(keys.task(task))
        told = (lease_ms, lease_ms + RECORD_KEPT_MS, record, int(ended))
        reply = await self._run(state, "park", names, call_id, *self._known(state), *told)
        match reply[0]:
            case b"OK":
                return Parked(reply[3].decode() if ended else "")
            case b"TAKEN":
                return TaskTaken()
            case b"GONE":
                return HoldGone()
        return lost(reply)

    async def touch(
        self, keys: AccountKeys, task: str, lease_ms: int
    ) -> Touched | ShardLost | None:
        """What is known of a task, whose lease is renewed with that; None: nothing."""
        state = keys.state
        names = bulks((state.meta, state.holds, state.leases, keys.task(task)))
        told = (lease_ms, lease_ms + RECORD_KEPT_MS, TASK_AGE_MAX_MS)
        reply = await self._run(state, "touch", names, *self._known(state), *told)
        match reply[0]:
            case b"OK":
                return Touched(reply[3].decode(), bool(reply[4]))
            case b"GONE":
                return None
        return lost(reply)

    async def unpark(self, keys: AccountKeys, task: str, call_id: str) -> None:
        """Forget a task whose hold is settled."""
        await self._run(keys.state, "unpark", bulks((keys.task(task),)), call_id)

    async def restore_task(
        self, shard: int, account_id: int, task: str, record: str, lease_ms: int
    ) -> None:
        """Say again what a task has, in a closed shard that may have lost it."""
        state = self._shards[shard]
        name = f"{state.tag}:t:{account_id}:{task}"
        await self._ask(state.link, "SET", name, record, "PX", lease_ms + RECORD_KEPT_MS)

"""A shard that lost its data, rebuilt: equal to Postgres plus the holds that are live.

States of a shard in Redis, by what its meta has:

    state       epoch  seq   calls there                            left by
    ----------  -----  ----  -------------------------------------  ----------------------------
    empty       none   none  refused (STALE)                        close
    older       < N    any   refused (REGRESSED, STALE)             close
    closed (N)  N      none  refused; those that run wait (CLOSED)  open, or close under N + 1
    open (N)    N      1 …   served                                 losing data

Whoever finds a shard lost takes its lock in Postgres, closes it, and goes through `_steps`. Each
step is idempotent, and a later rebuild relies on none: if the process dies after any of them, the
next one finds the shard closed and begins again under a newer epoch. What was put into the shard
until then is put aside by `close` like what was found before, and is told or kept again. The lock
only spares work: two rebuilds at once (its connection was lost) have different epochs, and the
older one is refused by Redis at its next step.

Why nothing is lost or doubled: while a shard is closed, nobody settles, admits or voids there. So
once all workers have flushed and the outbox is empty, Postgres has everything that was ever charged
there, and what is reserved is in the holds. An account is then its state in Postgres less its holds
(`policies.rebuild`). Accounts with neither holds nor late settlements are read by their next call.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeVar

from gateway.clock import now_ms
from gateway.counters import CountersUnavailable
from gateway.recovery.loss import is_healed
from gateway.recovery.reports import LEASE_MS, REBUILD_CHANNEL
from policies.decision import ShardLost
from policies.rebuild import parse_hold, rebuild_account, session_holds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.recovery.carry import Carrier
    from gateway.recovery.late import LateApplier
    from policies.rebuild import Fields

T = TypeVar("T")

# A worker that has not reported by then is not waited for: it is stopped, or cut off. Those of its
# holds that Redis still had are kept; what only it knew of is charged when its call ends.
REPORT_WAIT_S = 5.0
CALL_AGAIN_S = 0.25
# Workers that lost Postgres are known as live again so soon after it is back: each tries it every
# second (the ledger's RELISTEN_PAUSE_S).
RETURN_S = 1.5
REPORT_POLL_S = 0.01
# Another process may be at it; other lost shards wait here meanwhile.
LOCK_WAIT_S = 3.0
CLOSE_ATTEMPTS_MAX = 5
LATECOMERS_MAX = 5
EPOCHS_SKIPPED_MAX = 1_000
PAGE_ACCOUNTS_MAX = 100
PAGE_CALLS_MAX = 1_000
SESSION_TTL_MS = 86_400_000
DISPATCHED = 1  # the stage of a call that was sent on

log = logging.getLogger("tollkeeper.recovery")


class LostRaceError(CountersUnavailable):
    """Somebody else has closed or opened the shard meanwhile: this rebuild has ended."""


class Rebuilt(NamedTuple):
    """What a rebuild did; `by_us` is False when somebody else had done it already."""

    shard: int
    epoch: int
    accounts: int = 0
    holds: int = 0
    silent: tuple[int, ...] = ()  # workers that did not report
    by_us: bool = True


@dataclass(slots=True)
class _Work:
    """One rebuild under way."""

    shard: int
    epoch: int
    loaded: dict[int, Fields] = field(default_factory=dict)  # by account: what Postgres had of it
    holds: Mapping[str, str] = field(default_factory=dict)  # texts by call id
    leases: dict[str, int] = field(default_factory=dict)  # of holds that live with a task, ms
    silent: tuple[int, ...] = ()


class OwnReports(Protocol):
    """The part in rebuilds of the worker that this process is: `Reporter`."""

    @property
    def worker_id(self) -> int:
        """Whose they are."""

    def called(self, payload: str) -> None:
        """Report of "shard:epoch", unless that is under way or done."""


class Rebuilder:
    """Rebuilds shards: one at a time in this process, and one process at a time per shard."""

    def __init__(
        self,
        counters: Counters,
        ledger: Ledger,
        carrier: Carrier,
        late: LateApplier,
        *,
        lease_ms: int = LEASE_MS,
        report_wait_s: float = REPORT_WAIT_S,
        publish: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        """`lease_ms` is what holds get that nobody tells of; `publish` tells Redis an account."""
        self._counters = counters
        self._ledger = ledger
        self._carrier = carrier
        self._late = late
        self._lease_ms = lease_ms
        self._report_wait_s = report_wait_s
        self._publish = publish
        self.own: OwnReports | None = None  # once this process takes calls
        self._one_at_a_time = asyncio.Lock()

    async def rebuild(self, shard: int, lost: ShardLost) -> Rebuilt:
        """Return when the shard is open again, by whomever.

        Raises: LedgerUnavailable, CountersUnavailable; the shard is then as lost as before, or
        closed, and rebuilding it can be tried again.
        """
        known = self._counters.seen(shard)
        async with (
            self._one_at_a_time,
            self._ledger.shard_locked(shard, wait_s=LOCK_WAIT_S),
        ):
            for _ in range(CLOSE_ATTEMPTS_MAX):
                epoch, seq = await self._counters.meta(shard)
                if is_healed(lost, known, epoch, seq):
                    self._counters.adopt(shard, epoch, seq or 0)
                    return Rebuilt(shard, epoch, by_us=False)
                first = not epoch and not await self._ledger.epoch_of(shard)
                if work := await self._close(shard, epoch):
                    break
            else:
                raise LostRaceError(f"shard {shard} is closed by others again and again")
            if first:  # nobody has ever called there: nothing to ask and nothing to read
                await self._open(work)
            else:
                await self._refill(work, lost)
        return Rebuilt(shard, work.epoch, len(work.loaded), len(work.holds), work.silent)

    async def rebuild_anyway(self, shard: int) -> Rebuilt | None:
        """Rebuild a shard because people ask for it; None: it was never used. Raises: as above."""
        epoch, seq = await self._counters.meta(shard)
        if not epoch and not await self._ledger.epoch_of(shard):
            return None
        kind: Literal["STALE", "REGRESSED"] = "REGRESSED" if epoch else "STALE"
        return await self.rebuild(shard, ShardLost(kind, epoch, seq or 0))

    def _steps(self) -> tuple[Callable[[_Work], Awaitable[None]], ...]:
        """What happens to a closed shard, in this order."""
        return (
            self._hear_workers,
            self._empty_outbox,
            self._keep_holds,
            self._drop_settled,
            self._load_accounts,
            self._charge_late,
            self._seed_sessions,
            self._hear_latecomers,
            self._note_loss,
            self._open,
            self._tell_changes,
        )

    async def _refill(self, work: _Work, lost: ShardLost) -> None:
        if lost.kind == "CLOSED":
            why, level = (
                "was closed, by a restart of Redis or a rebuild that ended",
                logging.WARNING,
            )
        else:
            why, level = "lost data in Redis", logging.ERROR
        log.log(level, "shard %d %s: it is rebuilt as epoch %d", work.shard, why, work.epoch)
        for step in self._steps():
            await step(work)
        log.warning(
            "shard %d is open again: %d accounts, %d running calls",
            work.shard,
            len(work.loaded),
            len(work.holds),
        )

    async def _close(self, shard: int, lost_epoch: int) -> _Work | None:
        """Close it under a new epoch; None when somebody else did something with it."""
        for _ in range(EPOCHS_SKIPPED_MAX):
            epoch = await self._ledger.next_epoch(shard)
            if epoch > lost_epoch:  # else this Postgres is older than that Redis
                break
        closed = await self._counters.close_shard(shard, epoch, lost_epoch)
        return _Work(shard, epoch) if closed else None

    async def _hear_workers(self, work: _Work) -> None:
        """Call every living worker until all have told their holds and flushed, or too long.

        A worker is known to live by a connection to Postgres, and for a moment after that was away
        none is. If we ourselves are not known, others may not be either, and are waited for.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._report_wait_s
        call_again = all_known = 0.0
        silent: set[int] = set()
        while True:
            if loop.time() >= call_again:
                payload = f"{work.shard}:{work.epoch}"
                await self._ledger.notify(REBUILD_CHANNEL, payload)
                living = await self._ledger.attending()
                if self.own is not None and self.own.worker_id not in living:
                    self.own.called(payload)
                    living.add(self.own.worker_id)
                    all_known = loop.time() + RETURN_S
                call_again = loop.time() + CALL_AGAIN_S
            reported = await self._counters.reported(work.shard)
            silent = {worker for worker in living if str(worker) not in reported}
            if not silent and loop.time() >= all_known:
                return
            if loop.time() >= give_up:
                break
            await asyncio.sleep(REPORT_POLL_S)
        if not silent:
            return
        work.silent = tuple(sorted(silent))
        log.error(
            "shard %d: workers %s do not report within %s s and are not waited for",
            work.shard,
            ", ".join(map(str, work.silent)),
            self._report_wait_s,
        )

    async def _empty_outbox(self, work: _Work) -> None:
        """What was settled is in Postgres afterwards."""
        await self._carrier.carry(work.shard)

    async def _keep_holds(self, work: _Work) -> None:
        """Keep what Redis still had and no worker told of: its expiry will end it by its stage.

        And what lives with a task, whether or not Redis still had it.
        """
        told = await self._counters.live_holds(work.shard)
        found = await self._counters.old_holds(work.shard)
        rows = await self._ledger.parked_holds(work.shard)
        settled = await self._settled([row.call_id for row in rows])
        parked = [row for row in rows if row.call_id not in settled]
        work.leases = {row.call_id: row.lease_ms for row in parked}
        kept = {call_id: hold for call_id, hold in found.items() if call_id not in told}
        kept |= {row.call_id: (row.hold, DISPATCHED) for row in parked}
        await self._restore(work, [(call_id, *hold) for call_id, hold in kept.items()])
        for row in parked:
            await self._counters.restore_task(
                row.shard, row.account_id, row.task, row.record, row.lease_ms
            )

    async def _drop_settled(self, work: _Work) -> None:
        """A hold is over if Postgres has its settlement: an older Redis, or a lost answer."""
        holds = await self._counters.live_holds(work.shard)
        settled = await self._settled(list(holds))
        await self._counters.drop_holds(work.shard, sorted(settled))
        await self._counters.drop_stray_leases(work.shard)
        work.holds = {call: text for call, (text, _) in holds.items() if call not in settled}

    async def _settled(self, call_ids: Sequence[str]) -> set[str]:
        """Which of these calls Postgres has settlements of."""
        settled: set[str] = set()
        for page in _pages(call_ids, PAGE_CALLS_MAX):
            settled |= await self._ledger.settled_of(page)
        return settled

    async def _load_accounts(self, work: _Work) -> None:
        """Those that something is due of; the others are read by their next call."""
        waiting = await self._ledger.late_settlements_of_shard(work.shard)
        accounts = {parse_hold(text).account_id for text in work.holds.values()}
        await self._load(work, accounts | {row.account_id for row in waiting})

    async def _charge_late(self, work: _Work) -> None:
        """Calls that ended while nobody could be asked; then count them as Postgres does."""
        charged = await self._late.apply_closed(work.shard)
        if charged:
            await self._empty_outbox(work)
            await self._drop_settled(work)
            await self._load(work, charged)

    async def _seed_sessions(self, work: _Work) -> None:
        """What sessions have spent that are still remembered, and what their calls hold."""
        sessions = session_holds(work.holds.values())
        for row in await self._ledger.session_spend(now_ms() - SESSION_TTL_MS):
            if self._counters.keys(row.account_id).shard == work.shard:
                spent = sessions.setdefault((row.account_id, row.session), {})
                for scope in ("A", *(f"K{key_id}" for key_id in row.counts_in)):
                    spent[scope] = spent.get(scope, 0) + row.spent_microcredits
        for (account_id, session), spent in sessions.items():
            await self._counters.seed_session(
                work.shard, account_id, session, spent, SESSION_TTL_MS
            )

    async def _hear_latecomers(self, work: _Work) -> None:
        """Fold in what a worker told that was not waited for any more."""
        for _ in range(LATECOMERS_MAX):
            before = work.holds
            await self._drop_settled(work)
            late = [text for call_id, text in work.holds.items() if call_id not in before]
            if not late:
                return
            await self._load(work, {parse_hold(text).account_id for text in late})
            await self._seed_sessions(work)

    async def _note_loss(self, work: _Work) -> None:
        """From now on claims of idempotency keys are looked up in Postgres, too."""
        await self._counters.note_loss(work.shard)

    async def _open(self, work: _Work) -> None:
        if not await self._counters.open_shard(work.shard, work.epoch):
            raise LostRaceError(f"shard {work.shard} was closed by somebody else")

    async def _tell_changes(self, work: _Work) -> None:
        """Publish accounts that people changed meanwhile, which a closed shard was not told of."""
        for page in _pages(sorted(work.loaded), PAGE_ACCOUNTS_MAX):
            for account_id, state in (await self._ledger.account_states(page)).items():
                if self._publish and _given(state) != _given(work.loaded[account_id]):
                    await self._publish(account_id)

    async def _load(self, work: _Work, account_ids: Collection[int]) -> None:
        """Seed accounts absolutely: from Postgres, less their holds."""
        by_account: defaultdict[int, dict[str, str]] = defaultdict(dict)
        for call_id, text in work.holds.items():
            by_account[parse_hold(text).account_id][call_id] = text
        for page in _pages(sorted(account_ids), PAGE_ACCOUNTS_MAX):
            states = await self._ledger.account_states(page)
            for account_id, state in states.items():
                rebuilt = rebuild_account(state, by_account[account_id])
                await self._rewrite(work, rebuilt.holds)
                keys = self._counters.keys(account_id)
                if not await self._counters.load(keys, rebuilt.fields, force=True):
                    raise LostRaceError(f"shard {work.shard} was closed by somebody else")
                work.loaded[account_id] = state

    async def _rewrite(self, work: _Work, texts: Mapping[str, str]) -> None:
        """Holds whose lots have less left than they say; stages stay."""
        if texts:
            live = await self._counters.live_holds(work.shard)
            await self._restore(
                work, [(call_id, text, live[call_id][1]) for call_id, text in texts.items()]
            )

    async def _restore(self, work: _Work, holds: Sequence[tuple[str, str, int]]) -> None:
        by_lease: defaultdict[int, list[tuple[str, str, int]]] = defaultdict(list)
        for hold in holds:
            by_lease[work.leases.get(hold[0], self._lease_ms)].append(hold)
        for lease_ms, kept in by_lease.items():
            if not await self._counters.restore(work.shard, work.epoch, "", lease_ms, kept):
                raise LostRaceError(f"shard {work.shard} was closed by somebody else")


def _pages(items: Sequence[T], size: int) -> Iterator[list[T]]:
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page


def _given(state: Fields) -> dict[str, str | int]:
    """What people decide of an account, and no call changes: facts, keys, and lots' totals."""
    given = {name: state[name] for name in ("status", "rpm", "rpmonth", "conc", "rules")}
    for name, value in state.items():
        kind, _, lot = name.partition(":")
        if kind in ("e", "f", "k"):
            given[name] = value
        elif kind == "a":
            given[name] = int(value) + int(state[f"s:{lot}"]) + int(state[f"w:{lot}"])
    return given

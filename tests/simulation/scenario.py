"""One simulation from its seed to its last rest: who is on stage, and when what is checked.

Every few hundred steps the world comes to rest: everything broken is mended, every client calls
once more on every worker (so that whoever knows more than Redis notices), calls end, and all is
compared.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING

from gateway.counters import CountersUnavailable
from gateway.counters.scripts import read_scripts
from gateway.ledger import LedgerUnavailable
from tests.simulation import patches
from tests.simulation.callers import Caller, Client
from tests.simulation.cast import SHARDS, Node, Stage, Worker
from tests.simulation.checks import Checks
from tests.simulation.faults import Faults
from tests.simulation.model import Violation
from tests.simulation.people import Desk
from tests.simulation.population import populate
from tests.simulation.rest import Rest
from tests.simulation.world import SCRIPT_NAMES, World

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.redis_side import Wire

WORKERS = 3
CALLERS = 9
STEPS_PER_REST = 2_500
# A rest that is not reached within these is none.
REST_STEPS_MAX = 60_000
REST_S_MAX = 900
HOUR_S = 3_600
# Over the end of an hour, a day, a month, a period.
LEAPS_S = (HOUR_S, 9 * HOUR_S, 24 * HOUR_S, 29 * 24 * HOUR_S, 32 * 24 * HOUR_S)
# What jobs get to do what has become due.
AFTER_LEAP_US = 20_000_000


# What the product may log with a traceback: that somebody was away.
FAILURES = (CountersUnavailable, LedgerUnavailable, OSError)


class TraceHandler(logging.Handler):
    """What the product logs, into the trace."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        """One line, and a failure's last lines."""
        self._world.say(f"    log {record.levelname} {record.getMessage()}"[:500])
        if record.exc_info and record.exc_info[1] is not None:
            self._world.say(f"    log {record.exc_info[1]!r}"[:500])
            if not isinstance(record.exc_info[1], FAILURES):
                lines = traceback.format_exception(record.exc_info[1])
                self._world.loop.problems.append("".join(lines[-4:]))


class Simulation:
    """Stage, cast and plot."""

    def __init__(
        self,
        seed: int,
        redis_url: str,
        postgres_url: str,
        edit_script: Callable[[str], str] = lambda text: text,
        *,
        harsh: bool = False,
    ) -> None:
        """`harsh`: things break while others are broken, beyond what is promised."""
        self.harsh = harsh
        world = self.world = World(seed, redis_url, postgres_url, edit_script)
        for name, script in read_scripts().items():
            SCRIPT_NAMES[script.sha] = name
        patches.install(world.loop, world.redis, world.postgres, seed)
        self.stage = Stage(world, lease_s=world.random.choice((3, 6, 15)))
        root = logging.getLogger()
        root.handlers = [TraceHandler(world)]
        root.setLevel(logging.INFO)
        self.workers: list[Worker] = []
        self.clients: list[Client] = []
        self.node: Node
        self.desk: Desk
        self.checks = Checks(world)
        self.rest = Rest(world)
        self.faults = Faults(self)
        world.check_command = self.checks.command

    def prepare(self) -> None:
        """Accounts and routes in Postgres; processes started."""
        process = self.world.process("setup")
        self.clients = self.world.calmly(populate(self.stage), process)
        process.alive = False
        self.start_node()
        self.start_desk()
        for _ in range(WORKERS):
            self.start_worker()
        self.world.settle_down()

    def run(self, steps: int) -> None:
        """So many steps, with a rest now and then and at the end."""
        world = self.world
        while world.steps < steps:
            next_rest = min(world.steps + STEPS_PER_REST, steps)
            world.lose_statements = True
            while world.steps < next_rest:
                if self.faults.maybe():
                    world.settle_down()
                world.step()
            self.come_to_rest()

    # Processes.

    def start_worker(self) -> Worker:
        """A new worker with its callers."""
        process = self.world.process(f"worker{len(self.world.processes)}")
        worker = Worker(self.stage, process)
        self.workers.append(worker)
        self.world.loop.spawn(process, worker.run())
        for _ in range(CALLERS):
            caller = Caller(self.world, worker, self.clients)
            self.world.loop.spawn(process, caller.run())
        return worker

    def start_worker_if_missing(self) -> None:
        """Another worker in the place of one that died."""
        if len(self.workers) < WORKERS:
            self.start_worker()

    def kill_worker(self, worker: Worker) -> None:
        """It is gone, with its memory."""
        for wire in self.world.redis.wires:
            if wire.process is worker.process:
                self.note_lost_marks(wire)
        for call in self.world.model.unsettled.values():
            if call.process is worker.process and call.told and worker.knows(call.call_id):
                call.unsafe = True
        self.workers.remove(worker)
        self.world.kill(worker.process)

    def start_node(self) -> None:
        """A new node with its jobs."""
        process = self.world.process(f"node{len(self.world.processes)}")
        self.node = Node(self.stage, process)
        self.world.loop.spawn(process, self.node.run())

    def start_node_if_missing(self) -> None:
        """Another node in the place of one that died."""
        if not self.node.process.alive:
            self.start_node()

    def start_desk(self) -> None:
        """A new operator."""
        process = self.world.process(f"desk{len(self.world.processes)}")
        self.desk = Desk(self.stage, process)
        self.world.loop.spawn(process, self.desk.run())

    def start_desk_if_missing(self) -> None:
        """Another operator in the place of one that died."""
        if not self.desk.process.alive:
            self.start_desk()

    # What the model must know of faults.

    def note_lost_marks(self, wire: Wire) -> None:
        """The marks of calls just sent on that are on this wire may never be executed."""
        for command in wire.sent:
            if command[0] == b"ZADD" and command[2] == b"XX":  # others are no marks
                self.world.model.calls[command[-1].decode()].mark_lost = True

    def data_lost(self) -> None:
        """Redis has lost something."""
        self.world.model.lose_data(None)

    def shards_are_whole(self) -> bool:
        """Whether every shard that was ever opened is open under its newest epoch."""
        for row in self.world.postgres.fetch("SELECT shard, epoch FROM shards"):
            name = f"tk:{{s{row['shard']:03d}}}:meta"
            epoch, seq = self.world.redis.ask("HMGET", name, "epoch", "seq")
            if seq is None or int(epoch) < row["epoch"]:
                return False
        return True

    def would_be_noticed(self, snapshot: dict[bytes, tuple[int, bytes]]) -> bool:
        """Whether, of every shard that would lose something, somebody alive knows more."""
        world = self.world
        marks = {
            row["shard"]: (row["epoch"], row["seq"])
            for row in world.postgres.fetch("SELECT shard, epoch, seq FROM shards")
        }
        for shard in range(SHARDS):
            name = f"tk:{{s{shard:03d}}}:meta"
            now = world.redis.ask("HMGET", name, "epoch", "seq")
            then = world.redis.peek(snapshot, name.encode(), "epoch", "seq")
            if None in now:
                return False  # it is being rebuilt, or empty already
            if now == then:
                continue
            known = [worker.seen(shard) for worker in self.workers if worker.ready] + [
                marks.get(shard, (0, 0))
            ]
            if None not in then and max(known) <= (int(then[0]), int(then[1])):
                return False
        return True

    # Rest.

    def come_to_rest(self) -> None:
        """Mend, let everything end, compare."""
        world = self.world
        world.say("comes to rest")
        world.lose_statements = False
        self.faults.mend()
        world.settle_down()
        self._drive(self._all_ready, "its processes are not ready")
        for worker in self.workers:
            for client in self.clients:
                caller = Caller(world, worker, [client])
                world.loop.spawn(worker.process, caller.call())
        world.resting = True
        world.settle_down()
        self._drive(lambda: self.desk.idle and not self.rest.under_way(), "no rest")
        world.calmly(self.desk.sync(), self.desk.process)
        self.rest.check(self.node)
        if world.random.random() < 0.5:
            self._leap()
        world.resting = False

    def _leap(self) -> None:
        """A long time passes; what was due by then is done."""
        world = self.world
        leap_s = world.random.choice(LEAPS_S)
        world.say(f"{leap_s} s pass")
        world.leaps += 1
        self.checks.disturb()
        world.loop.advance_to(world.loop.now_us + leap_s * 1_000_000)
        world.redis.expire_keys()
        world.settle_down()
        until_us = world.loop.now_us + AFTER_LEAP_US
        self._drive(lambda: world.loop.now_us > until_us, "no rest after a leap")
        self.rest.check(self.node)

    def _all_ready(self) -> bool:
        return all(one.ready for one in (*self.workers, self.node, self.desk))

    def _drive(self, done: Callable[[], bool], why: str) -> None:
        """Step until nothing is in flight and `done` says so."""
        world = self.world
        began_us, began = world.loop.now_us, world.steps
        while world.busy() or not done():
            world.step()
            late = world.loop.now_us - began_us > REST_S_MAX * 1_000_000
            if late or world.steps - began > REST_STEPS_MAX:
                raise Violation(f"{why}: {self.rest.under_way()}")

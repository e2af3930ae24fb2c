"""What breaks, and mends again after a while: one method per fault, each with its odds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.simulation.scenario import Simulation
    from tests.simulation.virtual_loop import Process

HOUR_MS = 3_600_000
# How long a writer may wait until it tries Postgres again.
WRITER_PAUSE_US = 6_000_000
# Steps between two faults, on average: one of these per seed.
STEPS_PER_FAULT = (40, 120, 400)
# Virtual seconds for which a thing stays broken.
AWAY_S = (0.05, 0.05, 0.3, 0.3, 1.0, 3.0, 8.0, 20.0)


class Faults:
    """Breaks things at random; `mend` makes all whole again."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._world = simulation.world
        self._random = simulation.world.random
        self._later: list[tuple[int, Callable[[], None]]] = []  # when, what
        self._postgres_well_us = 0
        self._snapshots: list[dict[bytes, tuple[int, bytes]]] = []
        self._odds: dict[Callable[[], None], int] = {
            self.cut_wire: 10,
            self.cut_postgres: 4,
            self.kill_worker: 5,
            self.pause_worker: 3,
            self.move_clock: 2,
            self.redis_hangs: 3,
            self.redis_is_away: 2,
            self.postgres_is_away: 2,
            self.forget_scripts: 2,
            self.take_snapshot: 5,
            self.go_back: 2,
            self.flush: 2,
            self.kill_node: 2,
            self.kill_desk: 3,
        }
        self._steps = self._random.choice(STEPS_PER_FAULT)
        # Each seed leaves some out, so that a failure says more.
        self._chosen = {
            fault: odds for fault, odds in self._odds.items() if self._random.random() < 0.7
        }

    def maybe(self) -> bool:
        """Mend what is due; break something now and then. Whether something was broken."""
        for entry in [entry for entry in self._later if entry[0] <= self._world.loop.now_us]:
            self._later.remove(entry)
            entry[1]()
        if not self._chosen or self._random.random() * self._steps > 1:
            return False
        (fault,) = self._random.choices(list(self._chosen), list(self._chosen.values()))
        self._world.model.note(f"fault {fault.__name__}")
        fault()
        return True

    def mend(self) -> None:
        """Everything that is broken is whole again."""
        for _, work in self._later:
            work()
        self._later.clear()

    def _after(self, work: Callable[[], None]) -> None:
        away_us = int(self._random.choice(AWAY_S) * 1_000_000)
        self._later.append((self._world.loop.now_us + away_us, work))

    def _disturb(self) -> None:
        self._simulation.checks.disturb()

    # What is promised while two things are broken is less (RELIABILITY.md): Redis loses its data
    # only while everybody else is well, and nobody is cut off until its shards are rebuilt.

    def _alone(self) -> bool:
        if self._simulation.harsh:
            return True
        postgres = self._world.postgres
        well = not postgres.away and self._world.loop.now_us > self._postgres_well_us
        present = {one.process for one in postgres.connections if one.listeners}
        living = [one.process for one in self._simulation.workers]
        return well and all(one in present and one.runs for one in living)

    def _rebuilding(self) -> bool:
        return not self._simulation.harsh and not self._simulation.shards_are_whole()

    # Connections.

    def cut_wire(self) -> None:
        """One connection to Redis ends; some of what was sent has run, and nobody hears of it."""
        wires = list(self._world.redis.wires)
        if not wires or self._world.redis.away:
            return
        busy = [wire for wire in wires if wire.sent]
        wire = self._random.choice(busy if busy and self._random.random() < 0.8 else wires)
        run = self._random.randint(0, len(wire.sent))
        self._world.say(f"{wire.process}'s connection to Redis is cut after {run} more commands")
        for _ in range(run):
            self._world.execute(wire)
        if self._simulation.node.process is wire.process:
            self._disturb()
        self._simulation.note_lost_marks(wire)
        wire.cut(ConnectionResetError("cut"))

    def cut_postgres(self) -> None:
        """One connection to Postgres ends."""
        connections = list(self._world.postgres.connections)
        if self._rebuilding():
            connections = [one for one in connections if not one.listeners]
        if connections:
            connection = self._random.choice(connections)
            self._world.say(f"{connection.process}'s connection to Postgres is cut")
            connection.lose()
            self._world.postgres.look_again()

    # Processes.

    def kill_worker(self) -> None:
        """One worker dies; another takes its place after a while."""
        if self._simulation.workers:
            self._simulation.kill_worker(self._random.choice(self._simulation.workers))
            self._after(self._simulation.start_worker_if_missing)

    def pause_worker(self) -> None:
        """SIGSTOP, perhaps for longer than its leases; SIGCONT."""
        if self._rebuilding():
            return
        running = [one.process for one in self._simulation.workers if one.process.runs]
        if running:
            process = self._random.choice(running)
            self._world.say(f"{process} is stopped")
            process.paused = True
            self._after(lambda: self._resume(process))

    def _resume(self, process: Process) -> None:
        if process.alive:
            self._world.say(f"{process} goes on")
            self._world.loop.resume(process)

    def move_clock(self) -> None:
        """A worker's own clock jumps."""
        if self._simulation.workers:
            process = self._random.choice(self._simulation.workers).process
            process.clock_offset_ms = self._random.choice((-HOUR_MS, 0, HOUR_MS))
            self._world.say(f"{process}'s clock is off by {process.clock_offset_ms} ms")

    def kill_node(self) -> None:
        """The node with the jobs dies; another one starts."""
        self._disturb()
        self._world.kill(self._simulation.node.process)
        self._after(self._simulation.start_node_if_missing)

    def kill_desk(self) -> None:
        """An operator's command dies; another is begun later."""
        self._world.kill(self._simulation.desk.process)
        self._after(self._simulation.start_desk_if_missing)

    # Redis.

    def redis_hangs(self) -> None:
        """It answers nobody for a while."""
        self._away("hangs")

    def redis_is_away(self) -> None:
        """It is not there for a while, or restarted, with all its data when it is back."""
        self._away("refuses")
        for wire in list(self._world.redis.wires):
            self._simulation.note_lost_marks(wire)
        if self._random.random() < 0.5:
            self._world.redis.restart()
        else:
            self._world.redis.cut_all()

    def _away(self, how: str) -> None:
        if self._world.redis.away:
            return
        self._world.say(f"Redis {how}")
        self._world.redis.away = how
        self._disturb()
        self._after(self._redis_back)

    def _redis_back(self) -> None:
        if self._world.redis.away:
            self._world.say("Redis is back")
            self._world.redis.away = ""
            self._disturb()

    def forget_scripts(self) -> None:
        """SCRIPT FLUSH."""
        self._world.say("SCRIPT FLUSH")
        self._world.redis.forget_scripts()

    def flush(self) -> None:
        """FLUSHALL, or a restart without any file."""
        if not self._alone():
            return
        self._world.say("Redis is emptied")
        self._disturb()
        self._simulation.checks.remember_holds()
        if self._random.random() < 0.5:
            self._world.redis.put_back({})
        else:
            self._world.redis.flush()
        self._simulation.data_lost()
        self._snapshots.clear()

    def take_snapshot(self) -> None:
        """Remember Redis as it is, to go back to."""
        self._snapshots = [*self._snapshots[-2:], self._world.redis.snapshot()]

    def go_back(self) -> None:
        """A restart with an older file, if anybody can notice."""
        if not self._snapshots or not self._alone():
            return
        snapshot = self._random.choice(self._snapshots)
        if not self._simulation.would_be_noticed(snapshot):
            return
        self._world.say("Redis goes back to an older state")
        self._disturb()
        self._simulation.checks.remember_holds()
        self._world.redis.put_back(snapshot)
        self._simulation.data_lost()
        self._snapshots.clear()

    # Postgres.

    def postgres_is_away(self) -> None:
        """It is not there for a while."""
        if self._world.postgres.away or self._rebuilding():
            return
        self._world.say("Postgres is away")
        self._world.postgres.away = "refuses"
        self._world.postgres.cut_all()
        self._after(self._postgres_back)

    def _postgres_back(self) -> None:
        if self._world.postgres.away:
            self._world.say("Postgres is back")
            self._world.postgres.away = ""
            self._postgres_well_us = self._world.loop.now_us + WRITER_PAUSE_US

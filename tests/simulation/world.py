"""The world of one simulation: clock, Redis, Postgres, processes; and the driver that steps it.

A step is one of: Redis takes a command, a reply arrives, Postgres takes a statement, a notification
arrives, time passes, something breaks. The driver picks it from a seeded random, carries it out,
lets every process run until it waits again, and checks what can be checked at once.
"""

from __future__ import annotations

import hashlib
from collections import deque
from random import Random
from typing import TYPE_CHECKING, Any

from tests.simulation.model import Model, Violation
from tests.simulation.postgres_side import PostgresSide
from tests.simulation.redis_side import RedisSide, Wire
from tests.simulation.virtual_loop import Process, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from tests.simulation.postgres_doubles import Statement

# Two minutes before a month ends.
START_US = 1_790_812_680_000_000
TRACE_LINES = 4_000
CALM_STEPS_MAX = 200_000
# What passes while something is under way: far below any deadline, so that those pass only when a
# fault makes them.
PAUSES_US = (1, 50, 300, 1_000, 2_500)


class World:
    """Everything that is not a process of the product."""

    def __init__(
        self,
        seed: int,
        redis_url: str,
        postgres_url: str,
        edit_script: Callable[[str], str] = lambda text: text,
    ) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.loop = VirtualLoop(START_US)
        self.redis = RedisSide(redis_url, self.loop, edit_script)
        self.postgres = PostgresSide(postgres_url, self.loop)
        self.model = Model()
        self.steps = 0
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self._hash = hashlib.sha256()
        self.processes: list[Process] = []
        self.check_command: Callable[[list[bytes], bytes], None] = lambda *_: None
        self.lose_statements = False  # whether a statement's answer may be lost
        self.resting = False  # callers start no new calls
        self.leaps = 0  # how often a long time passed while nothing happened

    # Processes.

    def process(self, name: str) -> Process:
        """A new one."""
        process = Process(name)
        self.processes.append(process)
        return process

    def kill(self, process: Process) -> None:
        """SIGKILL: no handler runs. What it had written to its sockets may still arrive."""
        self.say(f"{process} is killed")
        process.alive = False
        for wire in [wire for wire in self.redis.wires if wire.process is process]:
            wire.replies.clear()
            arrives = self.random.randint(0, len(wire.sent)) if self.random.random() < 0.3 else None
            while arrives is not None and len(wire.sent) > arrives:
                wire.sent.pop()
            if not wire.sent:
                self.redis.wires.remove(wire)
        for statement in self.postgres.reap(process):
            alone = not statement.connection.in_transaction or statement.text == "COMMIT"
            if not alone or self.random.random() < 0.5:
                self.postgres.waiting.remove(statement)
                statement.connection.hang_up()

    def now_ms(self) -> int:
        """By the clock of Redis and Postgres."""
        return self.loop.now_us // 1_000

    def say(self, text: str) -> None:
        """Write a line of the trace."""
        line = f"{self.steps:6d} {(self.loop.now_us - START_US) / 1e6:12.6f} {text}"
        self.trace.append(line)
        self._hash.update(line.encode())

    def fingerprint(self) -> str:
        """Of all lines of the trace so far: equal seeds must give equal ones."""
        return self._hash.hexdigest()[:12]

    # Steps.

    def step(self) -> None:
        """One step, chosen at random. That time passes while nothing is under way is none."""
        choices = list(self._choices())
        self.steps += bool(choices)
        if choices and self.random.random() < 0.93:
            weights = [weight for weight, _, _ in choices]
            ((_, work, subject),) = self.random.choices(choices, weights)
            work(subject)
            self.model.note(f"step {work.__name__}")
        else:
            self.pass_time(bool(choices))
            self.model.note("step pass_time busy" if choices else "step pass_time idle")
        self.settle_down()

    def busy(self) -> bool:
        """Whether anything is on its way."""
        return next(self._choices(), None) is not None

    def _choices(self) -> Iterator[tuple[int, Callable[[Any], None], Any]]:
        for wire in self.redis.wires:
            if wire.sent and not self.redis.away:
                yield 3, self.execute, wire
            if wire.replies and wire.process.runs:
                yield 4, self.deliver, wire
        for statement in self.postgres.waiting:
            if not self.postgres.away:
                yield 3, self.perform, statement
        heard = set()
        for index, (connection, *_) in enumerate(self.postgres.notifications):
            if connection not in heard:
                heard.add(connection)
                yield 2, self.notify, index

    def execute(self, wire: Wire) -> None:
        """Redis takes a command."""
        command, reply = wire.execute()
        self.say(f"{wire.process} redis {describe(command)} -> {reply[:160]!r}")
        if wire.done:
            self.redis.wires.remove(wire)
        self.check_command(command, reply)

    def deliver(self, wire: Wire) -> None:
        """Replies arrive: one, or all that are there."""
        if self.random.random() < 0.5:
            wire.deliver()
        else:
            wire.deliver_all()

    def perform(self, statement: Statement) -> None:
        """Postgres takes a statement; now and then the connection is cut before or after it."""
        lost = self.random.random() if self.lose_statements else 1.0
        if lost < 0.001:
            self.say(f"{statement.process} postgres {statement.name}: cut before")
            statement.connection.lose()
            return
        if lost < 0.004:
            statement.cut_after = True
        done = self.postgres.execute(statement)
        cut = " and cut" if statement.cut_after else ""
        self.say(f"{statement.process} postgres {statement.name}{'' if done else ': waits'}{cut}")
        self.postgres.look_again()

    def notify(self, index: int) -> None:
        """A notification arrives."""
        connection, _, channel, payload = self.postgres.notifications[index]
        self.say(f"{connection.process} hears {channel} {payload!r}")
        self.postgres.notify(index)

    def pass_time(self, busy: bool) -> None:
        """A little while something is under way, else until somebody wakes up."""
        now_us = self.loop.now_us
        if busy:
            self.loop.advance_to(now_us + self.random.choice(PAUSES_US))
            return
        due_us = self.loop.next_timer_us()
        if due_us is None:  # nobody is there at the moment
            due_us = now_us + 50_000
        late_us = self.random.choice((0, 0, 0, 500, 20_000))
        self.loop.advance_to(max(due_us, now_us) + late_us)
        self.redis.expire_keys()
        self.postgres.end_idle()

    def settle_down(self) -> None:
        """Let every process run until it waits, greetings of new connections included."""
        while True:
            self.loop.drain()
            greeting = [wire for wire in self.redis.wires if wire.greeting and not self.redis.away]
            for wire in greeting:
                while wire.greeting:
                    wire.execute()
                if wire.replies and wire.process.runs:
                    wire.deliver_all()
            if not greeting:
                break
        if self.loop.problems:
            raise Violation("a task failed: " + "; ".join(self.loop.problems))

    def calmly(self, work: Coroutine[Any, Any, Any], process: Process) -> Any:
        """Do something to its end, with nothing breaking meanwhile; its result."""
        task = self.loop.spawn(process, work)
        self.settle_down()
        for _ in range(CALM_STEPS_MAX):
            if task.done():
                return task.result()
            self.step()
        raise Violation(f"{process} does not come to an end")

    # Ends.

    def close(self) -> None:
        """Let go of both servers."""
        self.loop.close()
        self.redis.close()
        self.postgres.close()


def describe(command: list[bytes]) -> str:
    """A command for the trace."""
    parts = [part.decode("latin-1") for part in command]
    if parts[0] in {"EVALSHA", "EVAL"}:
        keys = int(parts[2])
        return f"{script_of(command)} {parts[3 + keys :]}"[:260]
    return " ".join(parts)[:260]


# By SHA-1, filled when the world is made.
SCRIPT_NAMES: dict[str, str] = {}


def script_of(command: list[bytes]) -> str:
    """Which script an EVALSHA asks for."""
    return SCRIPT_NAMES.get(command[1].decode().lower(), "?")

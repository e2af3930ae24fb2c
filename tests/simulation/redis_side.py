"""A real Redis behind connections that the simulation controls, command by command.

The product's own connection code writes to a transport of ours, which keeps the commands. The
simulation executes them one at a time (`Wire.execute`) and hands back the replies one at a time
(`Wire.deliver`), so that anything can happen in between: the connection is cut with replies on
their way, the process dies with commands in the kernel's buffers, which then still arrive.

Scripts run with their text unchanged but for what depends on the server's clock: TIME, the ids that
XADD makes, and PEXPIRE; these follow the simulation's clock. `TIME` as a command does too.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import socket
from collections import deque
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import hiredis

from tests.simulation.virtual_loop import PROCESS, Process, VirtualLoop

if TYPE_CHECKING:
    from collections.abc import Callable

# What a connection says before it is used: no decision hangs on when it is executed.
GREETINGS = frozenset(
    {b"HELLO", b"AUTH", b"CLIENT", b"SELECT", b"SCRIPT", b"INFO", b"CONFIG", b"PING"}
)
RUN_ID = re.compile(rb"run_id:\w{40}")
CLOCK = "sim:clock"
ENTRIES = "sim:entries"
MARKED_TTL_MS = 10**12  # thirty years: never in a real run, but DEL takes it away as it should

# Prepended to every script.
PRELUDE = f"""
local function sim_us() return tonumber(redis.call('GET', '{CLOCK}')) end
local function sim_time()
  local us = sim_us()
  return {{string.format('%d', math.floor(us / 1000000)), string.format('%d', us % 1000000)}}
end
local function sim_entry_id()
  return string.format('%d-%d', math.floor(sim_us() / 1000), redis.call('INCR', '{ENTRIES}'))
end
local function sim_pexpire(key, ms)
  redis.call('ZADD', 'sim:ttl', string.format('%d', math.floor(sim_us() / 1000) + ms), key)
  return redis.call('PEXPIRE', key, '{MARKED_TTL_MS}')
end
"""
CLOCKWORK = (
    (re.compile(r"\b(?:redis\.)?call\('TIME'\)"), "sim_time()"),
    (re.compile(r"(call\('XADD', *[^,]+, *)'\*'"), r"\1sim_entry_id()"),
    (re.compile(r"\b(?:redis\.)?call\('PEXPIRE', *"), "sim_pexpire("),
)


def with_virtual_time(text: str) -> str:
    """A script's text, with its clock replaced. A script that asks for none is left alone."""
    changed = text
    for pattern, replacement in CLOCKWORK:
        changed = pattern.sub(replacement, changed)
    if re.search(r"'(TIME|PEXPIRE|EXPIRE|PEXPIREAT)'|XADD[^\n]*'\*'", changed):
        raise AssertionError(
            "a script uses Redis' clock in a way that the simulation can't replace"
        )
    if changed == text:
        return text
    first, _, rest = changed.partition("\n")
    return f"{first}{PRELUDE}{rest}" if first.startswith("#!") else PRELUDE + changed


class RedisSide:
    """The server: executes commands, and can be cut off, emptied, or set back to an older state."""

    def __init__(self, url: str, loop: VirtualLoop, edit_script: Callable[[str], str]) -> None:
        self._loop = loop
        self._edit = edit_script
        self._shas: dict[bytes, bytes] = {}
        self._clock_us = -1
        parts = urlsplit(url)
        self._socket = _connect(url)
        self._reader = hiredis.Reader()
        self.away: str = ""  # "", "refuses", "hangs"
        self.run = 1  # counts restarts
        self.wires: list[Wire] = []
        if parts.password:
            login = [parts.username] if parts.username else []
            self.ask("AUTH", *login, parts.password)
        self.ask("FLUSHALL")

    def ask(self, *parts: Any) -> Any:
        """Ask for ourselves: not a step, and never refused. Raises: hiredis.ReplyError."""
        reply = self._exchange(hiredis.pack_command(tuple(_encoded(part) for part in parts)))[1]
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def ask_all(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Several at once."""
        packed = (hiredis.pack_command(tuple(map(_encoded, command))) for command in commands)
        self._socket.sendall(b"".join(packed))
        return [self._read()[1] for _ in commands]

    def execute(self, command: list[bytes]) -> bytes:
        """One command of the product's; the reply as bytes."""
        name = command[0].upper()
        if name == b"TIME":
            seconds, rest = divmod(self._loop.now_us, 1_000_000)
            return b"*2\r\n" + _bulk(str(seconds)) + _bulk(str(rest))
        if name == b"SCRIPT" and command[1].upper() == b"LOAD":
            return self._load(command[2].decode())
        self._set_clock()
        if name == b"INFO":
            reply = self._exchange(hiredis.pack_command(tuple(command)))[0]
            return RUN_ID.sub(b"run_id:%040x" % self.run, reply)
        if name == b"EVALSHA":
            command = [name, self._shas.get(command[1].lower(), command[1]), *command[2:]]
        elif name == b"EVAL":
            text = with_virtual_time(self._edit(command[1].decode()))
            command = [name, text.encode(), *command[2:]]
        elif name == b"PEXPIRE":
            self.ask("ZADD", "sim:ttl", self._loop.now_us // 1000 + int(command[2]), command[1])
            command = [name, command[1], b"%d" % MARKED_TTL_MS]
        elif name in {b"XADD", b"EXPIRE", b"SETEX", b"PSETEX"}:
            raise AssertionError(f"{command[:3]} uses Redis' clock")
        return self._exchange(hiredis.pack_command(tuple(command)))[0]

    def _load(self, text: str) -> bytes:
        sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode()
        edited = with_virtual_time(self._edit(text))
        raw, reply = self._exchange(hiredis.pack_command((b"SCRIPT", b"LOAD", edited.encode())))
        if isinstance(reply, hiredis.ReplyError):
            return raw
        self._shas[sha] = reply
        return _bulk(sha.decode())

    def _set_clock(self) -> None:
        if self._clock_us != self._loop.now_us:
            self._clock_us = self._loop.now_us
            self.ask("SET", CLOCK, self._clock_us)

    def expire_keys(self) -> None:
        """Delete what the scripts gave a time to live that is over."""
        now_ms = self._loop.now_us // 1000
        for key in self.ask("ZRANGEBYSCORE", "sim:ttl", "-inf", now_ms):
            if self.ask("PTTL", key) > 0:  # else it was deleted and made anew since
                self.ask("DEL", key)
            self.ask("ZREM", "sim:ttl", key)

    # Faults.

    def flush(self) -> None:
        """FLUSHALL, and nobody's connection is cut."""
        entries = self.ask("GET", ENTRIES) or 0
        self.ask("FLUSHALL")
        self.ask("SET", ENTRIES, entries)  # an id of the same millisecond would be unreal
        self._clock_us = -1

    def forget_scripts(self) -> None:
        """SCRIPT FLUSH."""
        self.ask("SCRIPT", "FLUSH")

    def snapshot(self) -> dict[bytes, tuple[int, bytes]]:
        """Every key."""
        names = sorted(self.ask("KEYS", "*"))
        values = self.ask_all([part for name in names for part in (("PTTL", name), ("DUMP", name))])
        return {
            name: (ttl, value)
            for name, ttl, value in zip(names, values[::2], values[1::2], strict=True)
        }

    def peek(
        self, snapshot: dict[bytes, tuple[int, bytes]], key: bytes, *fields: str
    ) -> list[bytes | None]:
        """Fields of a hash as they are in a snapshot."""
        if key not in snapshot:
            return [None] * len(fields)
        self.ask("RESTORE", "sim:peek", 0, snapshot[key][1])
        found: list[bytes | None] = self.ask("HMGET", "sim:peek", *fields)
        self.ask("DEL", "sim:peek")
        return found

    def put_back(self, snapshot: dict[bytes, tuple[int, bytes]]) -> None:
        """Restarted with an older state."""
        self.restart()
        self.flush()
        for name, (ttl, value) in snapshot.items():
            if name.decode() != ENTRIES:
                self.ask("RESTORE", name, max(ttl, 0), value)
        self._clock_us = -1

    def restart(self) -> None:
        """Connections are cut, scripts are unknown, and it says that it is another run."""
        self.run += 1
        self.cut_all()
        self.forget_scripts()

    def cut_all(self) -> None:
        """Every connection is cut; what was sent and not executed never is."""
        for wire in list(self.wires):
            wire.cut()

    async def dial(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        """Connect, as `Endpoint.dial` does."""
        process = PROCESS.get()
        assert process is not None
        if self.away == "hangs":
            await asyncio.get_running_loop().create_future()
        if self.away:
            raise ConnectionRefusedError("Redis is away")
        made = protocol()
        wire = Wire(self, self._loop, process, made)
        self.wires.append(wire)
        made.connection_made(wire)

    # The wire to the server.

    def _exchange(self, packed: bytes) -> tuple[bytes, Any]:
        self._socket.sendall(packed)
        return self._read()

    def _read(self) -> tuple[bytes, Any]:
        raw = b""
        while (reply := self._reader.gets()) is False:
            part = self._socket.recv(1 << 20)
            if not part:
                raise ConnectionError("the real Redis has gone away")
            raw += part
            self._reader.feed(part)
        return raw, reply

    def close(self) -> None:
        self._socket.close()


class Wire(asyncio.Transport):
    """One connection of one process: commands on their way there, replies on their way back."""

    def __init__(
        self, side: RedisSide, loop: VirtualLoop, process: Process, protocol: asyncio.Protocol
    ) -> None:
        super().__init__()
        self._side = side
        self._loop = loop
        self._protocol = protocol
        self._closing = False
        self.process = process
        self.sent: deque[list[bytes]] = deque()
        self.replies: deque[bytes] = deque()

    # What the product's connection asks of its transport.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self.sent.extend(split_commands(bytes(data)))

    def is_closing(self) -> bool:
        return self._closing

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return _NoSocket() if name == "socket" else default

    def abort(self) -> None:
        self.cut(None)

    def close(self) -> None:
        self.cut(None)

    # What the simulation does with it.

    @property
    def greeting(self) -> bool:
        """Whether the next command is one that need not be a step."""
        return bool(self.sent) and self.sent[0][0].upper() in GREETINGS

    @property
    def done(self) -> bool:
        """Dead, with nothing on its way any more."""
        return not self.sent and (self._closing or not self.process.alive)

    def execute(self) -> tuple[list[bytes], bytes]:
        """The server takes the oldest command; its reply is on the way."""
        command = self.sent.popleft()
        reply = self._side.execute(command)
        if self.process.alive and not self._closing:
            self.replies.append(reply)
        return command, reply

    def deliver(self) -> None:
        """The oldest reply arrives."""
        self._loop.call_in(self.process, self._protocol.data_received, self.replies.popleft())

    def deliver_all(self) -> None:
        """Every reply arrives, in one read."""
        data = b"".join(self.replies)
        self.replies.clear()
        self._loop.call_in(self.process, self._protocol.data_received, data)

    def cut(self, error: Exception | None = None) -> None:
        """The connection is gone, with what was on its way."""
        if self._closing:
            return
        self._closing = True
        self.sent.clear()
        self.replies.clear()
        if self in self._side.wires:
            self._side.wires.remove(self)
        if self.process.alive:
            self._loop.call_in(self.process, self._protocol.connection_lost, error)


class _NoSocket:
    def setsockopt(self, *_: object) -> None:
        pass


def split_commands(data: bytes) -> list[list[bytes]]:
    """Packed commands, taken apart."""
    commands, at = [], 0
    while at < len(data):
        end = data.index(b"\r\n", at)
        count, at = int(data[at + 1 : end]), end + 2
        parts = []
        for _ in range(count):
            end = data.index(b"\r\n", at)
            size, at = int(data[at + 1 : end]), end + 2
            parts.append(data[at : at + size])
            at += size + 2
        commands.append(parts)
    return commands


def _encoded(part: Any) -> bytes:
    return part if isinstance(part, bytes) else str(part).encode()


def _bulk(text: str) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(text), text.encode())


def _connect(url: str) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(parts.path)
        return connection
    connection = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection

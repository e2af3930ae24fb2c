"""Clients that write down what they saw of each call: nothing is assumed, nothing retried."""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from policies.units import parse_credits
from tests.faults.kinds import (
    DIE_CALL,
    FAIL_CALL,
    FIXED_CALL,
    HANG_CALL,
    REFUSE_CALL,
    STREAM_CALL,
    TOKENS_CALL,
    Kind,
)
from tests.support.waiting import eventually

if TYPE_CHECKING:
    from asyncio import StreamReader
    from collections.abc import Callable, Sequence
    from random import Random

CALL_TIMEOUT_S = 90.0
_COMMENT = re.compile(rb"\n: credits-charged=([0-9.]+)")
_DETAIL = re.compile(rb'"detail": ?"([^"]*)"')
_USAGE = re.compile(rb'"total_tokens": (\d+)')
_numbers = itertools.count(1)


@dataclass
class Seen:
    """One call as its client saw it. Times are seconds since the epoch, amounts microcredits."""

    nonce: str
    account_id: int
    kind: Kind
    tokens: int = 0  # of the whole answer
    started_s: float = 0.0
    ended_s: float = 0.0
    status: int = 0
    request_id: str = ""
    told: int | None = None  # what the answer said that it was charged
    retry_after_s: int | None = None
    complete: bool = False  # the answer came to its end
    unreached: bool = False  # nobody took the connection
    left: bool = False  # the client went away in the middle
    tokens_read: int = 0
    problem: str = ""  # why it was cut, or what the gateway says in its refusal

    @property
    def went_well(self) -> bool:
        """It got the answer that its kind gets where nothing is at fault."""
        return self.status == self.kind.status and self.complete

    @property
    def in_order(self) -> bool:
        """Nobody but its agent, or its client, was at fault."""
        died = self.kind is DIE_CALL and self.status == 200 and not self.complete
        return self.went_well or self.left or died

    @property
    def cut(self) -> bool:
        """Its answer did not come to its end, though both ends were there."""
        return not (self.complete or self.unreached or self.in_order)

    def __str__(self) -> str:
        told = "" if self.told is None else f", told {self.told}"
        how = ("complete" if self.complete else "cut") + f" ({self.problem})" * bool(self.problem)
        who = f"{self.kind.name} call {self.nonce} {self.request_id} of account {self.account_id}"
        return f"{who}: status {self.status}, {how}{told}"


@dataclass(frozen=True)
class Caller:
    """An account with a key, at a gateway."""

    account_id: int
    name: str
    key: str
    grant_ids: tuple[int, ...]
    proxy_url: Callable[[], str]

    def start(
        self,
        kind: Kind,
        *,
        tokens: int = 10,
        chunks: int = 10,
        ms: int = 0,
        leave_after: int | None = None,
        session: str = "",
    ) -> Running:
        """Begin a call; `leave_after` so many tokens of a stream the client goes away."""
        nonce = f"n{next(_numbers)}"
        total = tokens * chunks if kind is STREAM_CALL else tokens
        seen = Seen(nonce, self.account_id, kind, total, started_s=time.time())
        path = f"/{kind.name}?n={nonce}&tokens={tokens}&chunks={chunks}&ms={ms}"
        return Running(seen, asyncio.ensure_future(_call(self, seen, path, leave_after, session)))

    async def call(self, kind: Kind, **how: int | str) -> Seen:
        """One call from its beginning to its end."""
        running = self.start(kind, **how)  # type: ignore[arg-type]
        return await running.ended()


@dataclass
class Running:
    """A call that is under way; `seen` grows while it is."""

    seen: Seen
    task: asyncio.Task[None]

    async def ended(self) -> Seen:
        await self.task
        return self.seen


async def _call(
    caller: Caller, seen: Seen, path: str, leave_after: int | None, session: str
) -> None:
    writer = None
    more = f"X-Session-Id: {session}\r\n" if session else ""
    more += f"Authorization: Bearer {caller.key}\r\n"
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            parts = urlsplit(caller.proxy_url())
            seen.unreached = True
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            seen.unreached = False
            writer.write(
                f"POST {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: 2\r\n"
                f"{more}Connection: close\r\n\r\n{{}}".encode()
            )
            await _read(reader, seen, leave_after)
    except (OSError, asyncio.IncompleteReadError, TimeoutError) as problem:
        seen.problem = type(problem).__name__
    finally:
        seen.ended_s = time.time()
        if writer is not None:
            writer.transport.abort()


async def _read(reader: StreamReader, seen: Seen, leave_after: int | None) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    start, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    seen.status = int(start.split(" ")[1])
    seen.request_id = headers.get("x-request-id", "")
    if "x-credits-charged" in headers:
        seen.told = parse_credits(headers["x-credits-charged"])
    if "retry-after" in headers:
        seen.retry_after_s = int(headers["retry-after"])
    if "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
        if found := _DETAIL.search(body):
            seen.problem = found[1].decode()
        seen.complete = True
        return
    body = b""
    while size := int(await reader.readline() or b"0", 16):
        body += (await reader.readexactly(size + 2))[:-2]
        if found := _USAGE.findall(body):
            seen.tokens_read = int(found[-1])
        if leave_after is not None and seen.tokens_read >= leave_after:
            seen.left = True
            return
    if not (await reader.readline()):
        raise asyncio.IncompleteReadError(b"", 2)
    if comment := _COMMENT.search(body):
        seen.told = parse_credits(comment[1].decode())
    seen.complete = True


@dataclass
class Load:
    """Many clients, each making one call after the other, of all kinds, for as long as it lasts.

    Which kinds with which numbers is decided by `random`; what happened is in `seen`.
    """

    callers: Sequence[Caller]
    random: Random
    clients: int = 16
    pause_s: float = 0.05
    pause_unreached_s: float = 0.3
    seen: list[Seen] = field(default_factory=list)
    _stopping: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def start(self) -> None:
        self._stopping = False
        self._tasks = [asyncio.ensure_future(self._client()) for _ in range(self.clients)]

    async def stop(self) -> list[Seen]:
        """Let running calls end; all calls since the last stop."""
        self._stopping = True
        await asyncio.gather(*self._tasks)
        seen, self.seen = self.seen, []
        return seen

    async def _client(self) -> None:
        while not self._stopping:
            caller, kind, how = self._next()
            running = caller.start(kind, session=self._session(), **how)
            self.seen.append(running.seen)
            seen = await running.ended()
            await asyncio.sleep(self.pause_unreached_s if seen.unreached else self.pause_s)

    def _session(self) -> str:
        return self.random.choice(("", "", "monday", "tuesday"))

    def _next(self) -> tuple[Caller, Kind, dict[str, int]]:
        random = self.random
        tokens, chunks = random.randint(1, 20), random.randint(5, 40)
        stream = {"tokens": tokens, "chunks": chunks, "ms": random.randint(5, 60)}
        leaving = {**stream, "leave_after": tokens * random.randint(1, chunks)}
        delay = {"ms": random.choice((0, 0, 5, 100, 400))}
        shares: tuple[tuple[int, Kind, dict[str, int]], ...] = (
            (30, FIXED_CALL, delay),
            (30, TOKENS_CALL, {**delay, "tokens": tokens * 10}),
            (25, STREAM_CALL, stream),
            (5, STREAM_CALL, leaving),
            (3, FAIL_CALL, {}),
            (3, DIE_CALL, {"ms": 50}),
            (2, REFUSE_CALL, {}),
            (2, HANG_CALL, {}),
        )
        (chosen,) = random.choices(shares, [share for share, _, _ in shares])
        return random.choice(self.callers), chosen[1], chosen[2]


async def all_ended(calls: Sequence[Running]) -> list[Seen]:
    """Wait for running calls to end."""
    return list(await asyncio.gather(*(call.ended() for call in calls)))


async def came_to(call: Running, tokens: int) -> None:
    """Wait until the client of a stream has read so many tokens."""
    await eventually(lambda: call.seen.tokens_read >= tokens or call.task.done())
    assert call.seen.tokens_read >= tokens, str(call.seen)

"""What every question to Redis is made of: the shards, their connection, and asking a script.

Whether a script ran is uncertain once its connection is cut or its deadline has passed. Every
script is idempotent by its call id (or change id, grant id, epoch), so after a cut it is sent once
more, while the deadline lasts; after NOSCRIPT it was not run and is sent again with its text.
Nothing else is ever sent twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import hiredis

from gateway.counters.connection import IN_FLIGHT_MAX, Link
from gateway.counters.endpoint import parse_url
from gateway.counters.errors import CommandRefused, CountersUnavailable
from gateway.counters.keys import AccountKeys, Shard, shard_of
from gateway.counters.replies import LOST, ServerFacts, server_facts
from gateway.counters.resp import Part, bulks, pack
from gateway.counters.retries import send_again
from gateway.counters.scripts import Script, read_scripts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

DEADLINE_MS = 250


class Base:
    """The shards of one deployment, on one multiplexed connection per server.

    An async context manager; belongs to the event loop that entered it.
    """

    def __init__(
        self,
        url: str,
        *,
        shards: int,
        deadline_ms: int = DEADLINE_MS,
        in_flight_max: int = IN_FLIGHT_MAX,
        scripts: Mapping[str, Script] | None = None,
        guards: bool = False,
    ) -> None:
        """`url` as in `endpoint`; `scripts` other than the installed ones are for tests.

        Who serves calls also guards the shards: after connecting to a server that was restarted,
        or has become the master, each has to be rebuilt before it is used (`resume.lua`).

        Raises: CountersMisconfigured when it is no such URL.
        """
        self._scripts = scripts if scripts is not None else read_scripts()
        self._link = Link(
            parse_url(url),
            self._scripts.values(),
            deadline_s=deadline_ms / 1000,
            in_flight_max=in_flight_max,
            resume=self._resume if guards else None,
        )
        self._shards = [Shard(number, self._link) for number in range(shards)]

    async def __aenter__(self) -> Self:
        """Connect.

        Raises: CountersMisconfigured, CountersUnavailable, each with a sentence for the operator.
        """
        await self._link.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._link.close()

    @property
    def shards(self) -> int:
        """How many shards this deployment has."""
        return len(self._shards)

    def keys(self, account_id: int) -> AccountKeys:
        """The packed keys of an account; keep them as long as the account is cached."""
        return AccountKeys(account_id, self._shards[shard_of(account_id, len(self._shards))])

    async def server_facts(self) -> ServerFacts:
        """Version and durability settings of the server."""
        return server_facts(await self._ask(self._link, "INFO"))

    async def command(self, *parts: Part) -> Any:
        """Any other command, sent once. Raises: CommandRefused with Redis' own words."""
        return await self._ask(self._link, *parts)

    def _resume(self, run: str) -> list[bytes]:
        """The commands that close all shards which were open on another run of the server."""
        head = self._scripts["resume"].head(1)
        return [head + bulks((state.meta, run)) for state in self._shards]

    async def _now_ms(self, state: Shard) -> int:
        seconds, microseconds = await self._ask(state.link, "TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def _ask(self, link: Link, *parts: Part) -> Any:
        return refuse_errors(await link.submit(pack(*parts)))

    def _known(self, state: Shard) -> tuple[int, int]:
        return state.epoch, state.seq

    async def _run(
        self,
        state: Shard,
        name: str,
        keys: bytes,
        *arguments: Part,
        more_keys: tuple[str, ...] = (),
        again: bool = True,
    ) -> list[Any]:
        head = self._scripts[name].head(len(arguments), len(more_keys))
        tail = keys + bulks(more_keys) + bulks(arguments)
        try:
            reply = await state.link.submit(head + tail)
        except CountersUnavailable as failure:
            if not again:
                raise
            reply = failure
        if type(reply) is not list:
            reply = await self._again(state, name, head, tail, reply)
        if name != "inspect" and reply[0] not in LOST:
            state.saw(reply[1], reply[2])
        return reply

    async def _again(
        self, state: Shard, name: str, head: bytes, tail: bytes, outcome: object
    ) -> list[Any]:
        return await send_again(state.link, self._scripts[name], head, tail, outcome)


def refuse_errors(reply: Any) -> Any:
    """The reply, unless it is an error. Raises: CommandRefused."""
    if isinstance(reply, hiredis.ReplyError):
        raise CommandRefused(str(reply))
    return reply

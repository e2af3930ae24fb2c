"""Answers whose caller has a bound: they pass when it is known what they cost, if they can wait.

A stream of events or lines passes as it comes, and ends where its bound is reached. Any other
answer is one thing, however its agent cuts it: all of it but its last bytes would be worth as much
as the whole, for a caller whose bound is below what it costs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.proxy.answers import read_headers
from gateway.upstream import Answer

if TYPE_CHECKING:
    from gateway.proxy.offers import Offer

# Of a longer answer only the end is kept back.
GATHERED_MAX_BYTES = 1024 * 1024


async def gathered(answer: Answer, offer: Offer) -> Answer:
    """The same answer, complete if it is no stream and not too long.

    Raises: UpstreamError as reading it does.
    """
    _, kind = read_headers(answer.headers)
    plan = offer.answer_kind(kind).meter_plan
    if plan is None or plan.streamed:
        return answer
    parts: list[bytes] = []
    size = 0
    while not answer.ended:
        if size > GATHERED_MAX_BYTES:
            return _Begun(answer, b"".join(parts))
        part = await answer.read()
        parts.append(part)
        size += len(part)
    return Answer(
        answer.status,
        answer.reason,
        answer.http_version,
        answer.headers,
        answer.content_length,
        b"".join(parts),
    )


class _Begun(Answer):
    """An answer of which some was read already."""

    __slots__ = ("_rest", "_start")

    def __init__(self, rest: Answer, start: bytes) -> None:
        super().__init__(
            rest.status, rest.reason, rest.http_version, rest.headers, rest.content_length, None
        )
        self._rest = rest
        self._start = start

    async def read(self) -> bytes:
        start, self._start = self._start, b""
        return start or await self._rest.read()

    @property
    def ended(self) -> bool:
        return not self._start and self._rest.ended

    def abort(self) -> None:
        self._rest.abort()

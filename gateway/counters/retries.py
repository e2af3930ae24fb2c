"""When a script is sent again, and when that would be a risk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import hiredis

from gateway.counters.errors import (
    CommandRefused,
    ConnectionCut,
    CountersUnavailable,
    DeadlinePassed,
    NotReady,
    Unanswered,
)

if TYPE_CHECKING:
    from gateway.counters.connection import Link
    from gateway.counters.scripts import Script

CUTS_SURVIVED_MAX = 1


async def send_again(
    link: Link, script: Script, head: bytes, tail: bytes, outcome: object
) -> list[Any]:
    """The reply of an idempotent script whose first sending had another `outcome` than a reply.

    | outcome so far                 | what is done                                        |
    | ------------------------------ | --------------------------------------------------- |
    | NotReady: nothing was sent     | wait for the connection, send                       |
    | ConnectionCut: it may have run | the same, once; the script knows its call by the id |
    | NOSCRIPT: it has not run       | send the script's text once for all, then again     |
    | DeadlinePassed, other answers  | give up                                             |

    All of it within the deadline of the first sending. The command is `head` and `tail`.

    Raises: Unanswered when it may have run, else another CountersUnavailable.
    """
    now_s = asyncio.get_running_loop().time()
    started_s = outcome.sent_s if isinstance(outcome, Unanswered) else now_s
    command = head + tail
    uncertain = isinstance(outcome, Unanswered)
    cuts = 0
    missing = False
    try:
        async with asyncio.timeout_at(started_s + link.deadline_s):
            while type(outcome) is not list:
                if isinstance(outcome, ConnectionCut) and cuts < CUTS_SURVIVED_MAX:
                    cuts += 1
                elif isinstance(outcome, hiredis.ReplyError):
                    _give_up_unless_missing(link, str(outcome))
                    missing = True
                elif not isinstance(outcome, NotReady):
                    raise _failure(outcome)
                await link.ready()
                try:
                    if missing:
                        link.teach(script)
                        missing = False
                    answer = link.submit(command)
                    uncertain_before, uncertain = uncertain, True
                    outcome = await answer
                    uncertain = uncertain_before  # an answer, if only NOSCRIPT, is certain
                except CountersUnavailable as failure:
                    outcome = failure
    except (TimeoutError, CountersUnavailable) as failure:
        if uncertain and not isinstance(failure, Unanswered):
            raise DeadlinePassed("Redis did not answer in time", started_s) from failure
        if isinstance(failure, TimeoutError):
            raise NotReady(f"Redis at {link.endpoint} is not usable: {link.problem}") from None
        raise
    return outcome


def _give_up_unless_missing(link: Link, text: str) -> None:
    if text.startswith("NOSCRIPT"):
        return
    if "READONLY You can't write" in text:  # before Redis 7, behind what it says of the script
        link.drop("it has become a replica")
    raise CommandRefused(text)


def _failure(outcome: object) -> CountersUnavailable:
    if isinstance(outcome, CountersUnavailable):
        return outcome
    return CommandRefused(f"a script answered {outcome!r}")

"""What commands that go on until somebody stops them have in common.

They survive a control plane that is away for a while, and end quietly when nobody reads them.
"""

from __future__ import annotations

import os
import select
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from gateway.cli.output import complain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.cli.api import ApiClient

# Between two attempts while the control plane is away; each pause is twice the one before.
PAUSE_S = 1.0
PAUSE_S_MAX = 10.0


class Patient:
    """Asks a control plane again and again while it is away, once it was there."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client
        self._was_there = False

    async def get(self, path: str, **query: object) -> Any:
        """A document, however long that takes.

        Raises: OperationError for what does not pass, or when it was away from the beginning.
        """
        import asyncio

        from gateway.cli.api import AwayError

        pause_s, away = PAUSE_S, False
        while True:
            try:
                answer = await self.client.get(path, **query)
            except AwayError as error:
                if not self._was_there:
                    raise
                if not away:
                    complain(f"tollkeeper: {error}; asking again until it answers")
                away = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
            else:
                if away:
                    complain("tollkeeper: it answers again")
                self._was_there = True
                return answer


def print_line(text: str) -> None:
    """A line that is on its way at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def check_reader() -> None:
    """Raises: BrokenPipeError when stdout is a pipe that nobody reads any more."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # a test's, which is no pipe
        return
    looks = select.poll()
    looks.register(descriptor, 0)
    if any(event & select.POLLERR for _, event in looks.poll(0)):
        raise BrokenPipeError


@contextmanager
def ending_with_reader() -> Iterator[None]:
    """Who reads no more has seen enough: that is no failure."""
    try:
        yield
    except BrokenPipeError:
        # Else Python complains when it flushes stdout at its end.
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())

"""A resolver that answers what a test says, differently each time if it likes."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from gateway.upstream import dial

if TYPE_CHECKING:
    import pytest


class Resolver:
    """The running loop with a resolver of our own: uvloop's methods cannot be replaced.

    Each look-up gets the next of `answers`, a list of addresses; further ones get the last. An
    empty list is a name that does not resolve.
    """

    def __init__(self, *answers: list[str]) -> None:
        self.real = asyncio.get_running_loop()
        self.answers = list(answers)
        self.asked: list[object] = []

    async def getaddrinfo(self, host: object, port: int, **_: object) -> list[object]:
        self.asked.append(host)
        hosts = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if not hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            (socket.AF_INET6 if ":" in each else socket.AF_INET, socket.SOCK_STREAM, 6, "", where)
            for each in hosts
            for where in [(each, port, 0, 0) if ":" in each else (each, port)]
        ]

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> Resolver:
    """Until the end of the test names of upstreams mean this."""
    resolver = Resolver(*answers)
    monkeypatch.setattr(dial, "running_loop", lambda: resolver)
    return resolver

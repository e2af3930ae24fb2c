"""What the control plane may ask about the node it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class WorkerState:
    """One place in the pool of workers; `pid` is None while it is being filled again."""

    index: int
    pid: int | None
    ready: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What Redis and Postgres say of the whole deployment; None where they could not be asked.

    `late_settlements` wait for Redis, `outbox_entries` for Postgres; `rebuilds` are all that there
    ever were. Events of Stripe's wait to be worked on, or are parked and wait for a person.
    """

    late_settlements: int | None
    outbox_entries: int | None
    rebuilds: int | None
    stripe_events_waiting: int | None = None
    stripe_events_parked: int | None = None


class Node(Protocol):
    """The running node, as the supervisor knows it."""

    @property
    def platform(self) -> str:
        """The slug of the platform that the config describes."""
        ...

    def workers(self) -> Sequence[WorkerState]:
        """Every worker's place, in order."""
        ...

    async def redis_answers(self) -> bool:
        """Whether Redis answered just now, within a second."""
        ...

    async def postgres_answers(self) -> bool:
        """Whether Postgres answered just now, within a second."""
        ...

    async def figures(self) -> Figures:
        """The deployment's figures, asked within a second."""
        ...

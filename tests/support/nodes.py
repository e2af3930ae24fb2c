"""A node as the control plane sees it, in a state of the test's choosing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gateway.control.node import Figures, WorkerState

if TYPE_CHECKING:
    from collections.abc import Sequence

READY = WorkerState(0, 11, ready=True, restarts=0)
STARTING = WorkerState(1, None, ready=False, restarts=3)


@dataclass
class SomeNode:
    """A node in a state of the test's choosing."""

    places: list[WorkerState] = field(default_factory=lambda: [READY, STARTING])
    redis: bool = True
    postgres: bool = True
    platform: str = "demo"

    def workers(self) -> Sequence[WorkerState]:
        return self.places

    async def redis_answers(self) -> bool:
        return self.redis

    async def postgres_answers(self) -> bool:
        return self.postgres

    async def figures(self) -> Figures:
        known = self.postgres
        return Figures(3 if known else None, 7 if self.redis else None, 1 if known else None)

"""Reconciles Redis and Postgres for ever: drift becomes a metric and an error in the log.

Nothing is changed: what drifted is for people to judge. Several nodes may do this at a time; each
reads the same.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn, Protocol

from gateway.jobs.rounds import repeat
from gateway.operations.errors import OperationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gateway.operations.findings import Finding
    from gateway.operations.reconcile import Turn

RECONCILE_PAUSE_S = 5.0
# Errors logged per turn: what broke one account may have broken all of them.
LOGGED_MAX = 20

log = logging.getLogger("tollkeeper.jobs")


class Tour(Protocol):
    """What compares, a shard at a time: `operations.reconcile.Reconciler`."""

    async def turn(self) -> Turn:
        """Look at the next shard, or the next part of it."""

    def drift(self) -> Mapping[str, int]:
        """How many disagreements stand, by check."""


class Reconciliation:
    """Takes turn after turn. `reconciled` and `drift` are told what the metrics say."""

    def __init__(
        self,
        tour: Tour,
        *,
        reconciled: Callable[[int], None],
        drift: Callable[[Mapping[str, int]], None],
    ) -> None:
        self._tour = tour
        self._reconciled = reconciled
        self._drift = drift

    async def run(self) -> NoReturn:
        """Reconcile until cancelled."""
        await repeat("reconciliation", self.reconcile, RECONCILE_PAUSE_S)

    async def reconcile(self) -> int:
        """One turn; answers how many disagreements it found.

        Raises: LedgerUnavailable, CountersUnavailable.
        """
        try:
            turn = await self._tour.turn()
        except OperationError as error:
            log.warning("reconciliation: %s", error)
            return 0
        self._reconciled(turn.accounts)
        self._drift(self._tour.drift())
        for finding in turn.findings[:LOGGED_MAX]:
            log.error("%s", _line(finding, turn.shard))
        if len(turn.findings) > LOGGED_MAX:
            log.error("shard %s: %d more like these", turn.shard, len(turn.findings) - LOGGED_MAX)
        return len(turn.findings)


def _line(finding: Finding, shard: int | None) -> str:
    where = f"account {finding.account_id} " if finding.account_id else ""
    unit = " microcredits" if finding.is_amount else ""
    return (
        f"drift in shard {shard}: {where}{finding.subject}: {finding.meaning} "
        f"({finding.check}: expected {finding.expected}{unit}, found {finding.found}{unit})"
    )

"""What the meters of a call have read."""

from __future__ import annotations

from typing import NamedTuple


class Reading(NamedTuple):
    """Units of one call, one entry per meter of its price, in order.

    `units` has None where nothing could be read. `estimates` is empty if nothing is missing; else
    it says for each meter how many units what passed suggests. `failed` are the indexes of the
    call's priced JSON-RPC calls whose answer was an error or a failed tool, `unanswered` of those
    that have had no answer.
    """

    units: tuple[int | None, ...] = ()
    estimates: tuple[int, ...] = ()
    failed: tuple[int, ...] = ()
    unanswered: tuple[int, ...] = ()


NOTHING_READ = Reading()

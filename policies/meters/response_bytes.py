"""`response.bytes`: how long the answer's body is, as it passes: compressed where it is."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.catalog import Source
    from policies.meters.reader import Observed


class ResponseBytes:
    """The count that every meter has anyway."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """It takes no argument."""
        return "takes no argument" if source.argument else None

    @staticmethod
    def prepare(_source: Source) -> Callable[[Observed], int | None]:
        """What tells the bytes that have passed."""
        return attrgetter("passed_bytes")

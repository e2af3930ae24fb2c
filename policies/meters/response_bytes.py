"""`response.bytes`: how long the answer's body is, as it passes: compressed where it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from policies.catalog import Source
    from policies.meters.reader import Observed


class ResponseBytes:
    """The count that every meter has anyway."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """It takes no argument."""
        return "takes no argument" if source.argument else None

    @staticmethod
    def units(_source: Source, observed: Observed) -> int | None:
        """Bytes that have passed."""
        return observed.passed_bytes

"""`request.json:/pointer`: units in the request, such as how many images it asks for."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from policies.meters.pointer import mistake_in_pointer

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.catalog import Source
    from policies.meters.reader import Observed


class RequestJson:
    """What `RequestFacts` finds."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """What is wrong with a JSON pointer."""
        return mistake_in_pointer(source.argument)

    @staticmethod
    def prepare(source: Source) -> Callable[[Observed], int | None]:
        """What tells the units at this pointer."""
        return partial(units_of_request, source)


def units_of_request(source: Source, observed: Observed) -> int | None:
    """The units of a source in the request."""
    return observed.facts.units(source) if observed.facts is not None else None

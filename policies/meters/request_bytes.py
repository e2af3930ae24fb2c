"""`request.bytes`: how long the request's body is, as the client sent it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from policies.meters.request_json import units_of_request

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.catalog import Source
    from policies.meters.reader import Observed


class RequestBytes:
    """What `RequestFacts` knows of the length; nothing while a chunked body is still to come."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """It takes no argument."""
        return "takes no argument" if source.argument else None

    @staticmethod
    def prepare(source: Source) -> Callable[[Observed], int | None]:
        """What tells the length."""
        return partial(units_of_request, source)

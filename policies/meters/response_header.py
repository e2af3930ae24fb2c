"""`response.header:X-Units`: units in a header of the answer.

What an agent says there is between it and the gateway: a header that a price reads is removed
before the answer passes on.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING

from policies.catalog import named_sources
from policies.meters.reader import UNITS_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from policies.catalog import Price, Source
    from policies.meters.reader import Observed

KIND = "response.header"
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}")  # a token of RFC 9110 section 5.6.2
_UNITS = re.compile(rb"[0-9]{1,16}")
# Without these, what is left of the answer could not be understood.
_NEEDED = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "location",
        "set-cookie",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
    }
)


class ResponseHeader:
    """A plain decimal integer, said once."""

    @staticmethod
    def mistake_in(source: Source) -> str | None:
        """It takes the name of a header that the client can do without."""
        if not _NAME.fullmatch(source.argument):
            return 'needs the name of a header, such as "X-Units"'
        if source.argument.lower() in _NEEDED:
            return "would be removed from the answer, which needs it"
        return None

    @staticmethod
    def prepare(source: Source) -> Callable[[Observed], int | None]:
        """What tells the units in a header of this name."""
        return partial(_units, source.argument.lower().encode("ascii"))


def metered_headers(price: Price) -> frozenset[bytes]:
    """The names, in lower case, of the headers that a price reads: no client gets them."""
    cases = price.table.cases.values() if price.table is not None else ()
    return frozenset(
        source.argument.lower().encode("ascii")
        for case in (price, *cases)
        for meter in case.meters
        for source in named_sources(meter)
        if source.kind == KIND
    )


def _units(wanted: bytes, observed: Observed) -> int | None:
    """None also where two headers of the name are there, even if they agree."""
    values = [value for name, value in observed.headers if name.lower() == wanted]
    if len(values) != 1:
        return None
    text = values[0].strip(b" \t")
    if not _UNITS.fullmatch(text):
        return None
    units = int(text)
    return units if units <= UNITS_MAX else None

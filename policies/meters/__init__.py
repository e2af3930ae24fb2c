"""Sans-io readers of units: `open_meter` for one call, `KINDS` for what there is."""

from policies.meters.call import READABLE_ENCODINGS, CallMeter, open_meter
from policies.meters.reader import UNITS_MAX
from policies.meters.registry import KINDS, mistake_in_source, parse_source

__all__ = [
    "KINDS",
    "READABLE_ENCODINGS",
    "UNITS_MAX",
    "CallMeter",
    "mistake_in_source",
    "open_meter",
    "parse_source",
]

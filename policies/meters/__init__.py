"""Sans-io readers of units.

`MeterPlan` for a kind of answer, `RequestFacts` for a request, `KINDS` for what there is.
"""

from policies.meters.call import READABLE_ENCODINGS, CallMeter, MeterPlan, Tools
from policies.meters.facts import RequestFacts
from policies.meters.reader import UNITS_MAX
from policies.meters.registry import KINDS, mistake_in_source, parse_source

__all__ = [
    "KINDS",
    "READABLE_ENCODINGS",
    "UNITS_MAX",
    "CallMeter",
    "MeterPlan",
    "RequestFacts",
    "Tools",
    "mistake_in_source",
    "parse_source",
]

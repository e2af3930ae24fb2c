"""Sans-io readers of units.

`MeterPlan` for a kind of answer, `RequestFacts` for a request, `KINDS` and `PRESETS` for what a
price may name.
"""

from policies.meters.call import CallMeter, MeterPlan, Tools
from policies.meters.facts import RequestFacts
from policies.meters.presets import PRESETS
from policies.meters.reader import UNITS_MAX
from policies.meters.registry import KINDS, mistake_in_source, parse_source, parse_sources
from policies.meters.response_header import metered_headers

__all__ = [
    "KINDS",
    "PRESETS",
    "UNITS_MAX",
    "CallMeter",
    "MeterPlan",
    "RequestFacts",
    "Tools",
    "metered_headers",
    "mistake_in_source",
    "parse_source",
    "parse_sources",
]

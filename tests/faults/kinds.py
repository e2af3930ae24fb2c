"""The kinds of calls that the fault tests make: their routes, and what each must cost, exactly."""

from __future__ import annotations

from typing import NamedTuple

CREDIT = 1_000_000
FIXED = CREDIT // 2
PER_REQUEST = CREDIT // 10
PER_TOKEN = CREDIT // 1_000
RESERVE_TOKENS = 1_000
METERED_HOLD = PER_REQUEST + RESERVE_TOKENS * PER_TOKEN
FIRST_BYTE_TIMEOUT_S = 1

_FIXED_PRICE = '[routes.price]\nper_request = "0.5"\n'
_METERED_PRICE = """[routes.price]
per_request = "0.1"
[[routes.price.meters]]
unit = "token"
from = ["response.json:/usage/total_tokens", "response.sse:/usage/total_tokens"]
credits_per_unit = "0.001"
reserve_units = 1000
"""


class Kind(NamedTuple):
    """A route and the answer that a client gets on it when nothing is at fault.

    `charged` is what such a call costs in microcredits, None where its tokens say; `hold` is what
    is reserved for it, and `floor` what it costs at least once it was sent on.
    """

    name: str
    status: int
    hold: int
    floor: int
    charged: int | None
    route: str  # the rest of its table in the config
    dispatched: bool = True
    upstream: str = "{backend}"

    def cost(self, tokens: int) -> int:
        """Microcredits of a call that went well, with this usage in all."""
        return PER_REQUEST + tokens * PER_TOKEN if self.charged is None else self.charged

    def checkpoint(self, tokens: int) -> int:
        """Microcredits owed once this usage was seen."""
        return min(self.floor + tokens * PER_TOKEN, self.hold)


_METERED = (200, METERED_HOLD, PER_REQUEST, None, _METERED_PRICE)
_FIXED = (FIXED, FIXED)
FIXED_CALL = Kind("fixed", 200, *_FIXED, FIXED, _FIXED_PRICE)
TOKENS_CALL = Kind("tokens", *_METERED)
STREAM_CALL = Kind("stream", *_METERED)
FAIL_CALL = Kind("fail", 400, *_FIXED, 0, _FIXED_PRICE)
DIE_CALL = Kind("die", 0, *_FIXED, FIXED, _FIXED_PRICE + '[routes.on]\nupstream_error = "actual"\n')
HANG_CALL = Kind(
    *("hang", 504, *_FIXED, FIXED),
    f"first_byte_timeout_s = {FIRST_BYTE_TIMEOUT_S}\n"
    + _FIXED_PRICE
    + '[routes.on]\nupstream_timeout = "reserved"\n',
)
REFUSE_CALL = Kind(
    *("refuse", 502, *_FIXED, 0, _FIXED_PRICE), dispatched=False, upstream="{nobody}"
)
CONNECT_CALL = Kind(
    *("connect", 504, *_FIXED, 0, "connect_timeout_s = 60\n" + _FIXED_PRICE),
    dispatched=False,
    upstream="{black_hole}",
)
KINDS = {
    kind.name: kind
    for kind in (
        *(FIXED_CALL, TOKENS_CALL, STREAM_CALL, FAIL_CALL, DIE_CALL, HANG_CALL),
        *(REFUSE_CALL, CONNECT_CALL),
    )
}

GATEWAY = """
[gateway]
proxy_listen = "127.0.0.1:{proxy_port}"
control_listen = "127.0.0.1:{control_port}"
redis_url = "{redis_url}"
postgres_url = "{postgres_url}"
key_pepper = "env:TOLLKEEPER_PEPPER"
shards = 4
workers = {workers}
lease_s = {lease_s}
{more}

[platform]
slug = "demo"

# Every limit and cap there is, none of which is reached: what counts must survive faults as well.
[[plans]]
slug = "counted"
credits = "0"
period = "month"
requests_per_second = 100000
requests_per_minute = 1000000
requests_per_month = 1000000000
concurrency = 100000

[plans.caps]
day = "100000000"
month = "100000000"
total = "100000000"
session = "100000000"
"""
COUNTED_PLAN = "counted"


def config_text(addresses: dict[str, str], **gateway: object) -> str:
    """A whole config with all kinds of routes. `addresses` of backend, nobody and black_hole."""
    text = GATEWAY.format(**gateway)
    for kind in KINDS.values():
        text += f'\n[[routes]]\nname = "{kind.name}"\nmatch = "POST /{kind.name}"\n'
        text += f'upstream = "{kind.upstream.format(**addresses)}"\nconnections_max = 2048\n'
        text += kind.route
    return text

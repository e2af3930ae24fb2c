"""A route as people write it to the API."""

from __future__ import annotations

from typing import Any

METER = {
    "unit": "token",
    "from": "response.json:/usage/total_tokens",
    "credits_per_unit": "0.0010",
    "reserve_units": 4000,
}
CHAT: dict[str, Any] = {
    "name": "chat",
    "match": "POST /v1/chat",
    "upstream": "http://127.0.0.1:9100",
    "timeout_s": 1.5,
    "errors": "openai",
    "headers": {"X-Team": "blue"},
    "price": {"per_request": "0.10", "meters": [METER]},
    "on": {"completed": "reserved"},
    "limits": {"requests_per_minute": 60},
    "caps": {"day": "50"},
}

"""Routes that ask their agents for usage on behalf of clients who did not.

The request is changed on its way out, behind everything that was decided from it; the answer on its
way back, behind the meters, so that the client sees what it would have seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from policies.meters.ensure_usage import UsageRemover, ask
from policies.meters.values import has_too_many_values

if TYPE_CHECKING:
    from gateway.proxy.exchange import Exchange


def ensure_usage(
    exchange: Exchange, body: tuple[bytes | None, bytes]
) -> tuple[bytes | None, bytes]:
    """The body to be sent; one that can't be read or written anew stays as it is."""
    whole, _ = body
    try:
        readable = whole is not None and not has_too_many_values(whole)
        asking = ask(whole, orjson.loads, orjson.dumps) if whole and readable else None
    except orjson.JSONEncodeError:  # nested deeper than can be written
        asking = None
    if asking is None:
        return body
    # Nothing can be taken out of a compressed answer.
    exchange.head = exchange.head._replace(accept_encoding=b"identity")
    exchange.rewriter = UsageRemover(orjson.loads)
    return asking, b""

"""The lean HTTP/1.1 client that forwards calls to agents. README.md tells its rules."""

from gateway.upstream.answer import Answer
from gateway.upstream.client import UpstreamClient
from gateway.upstream.errors import (
    CancelledUnsentError,
    UpstreamBroken,
    UpstreamError,
    UpstreamForbidden,
    UpstreamTimeout,
    UpstreamTruncated,
    UpstreamUnreachable,
)
from gateway.upstream.networks import Networks
from gateway.upstream.origin import Origin
from gateway.upstream.tls import client_context

__all__ = (
    "Answer",
    "CancelledUnsentError",
    "Networks",
    "Origin",
    "UpstreamBroken",
    "UpstreamClient",
    "UpstreamError",
    "UpstreamForbidden",
    "UpstreamTimeout",
    "UpstreamTruncated",
    "UpstreamUnreachable",
    "client_context",
)

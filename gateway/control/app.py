"""The control plane: an `aiohttp.web.Application` on a port of its own, apart from the calls' way.

It is put together here and knows only what it is given; the proxy serves on when it is down.
"""

from __future__ import annotations

import contextlib
import ipaddress
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.control.api.serve import add_endpoints
from gateway.control.description import add_description
from gateway.control.health import add_health
from gateway.control.metrics import add_metrics
from gateway.control.resources import ENDPOINTS
from gateway.control.status import add_status
from gateway.control.stripe_webhooks import add_stripe_webhooks
from gateway.ports import serve_on
from gateway.stripe_sync.webhooks import Reception

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from socket import socket

    from gateway.control.api.services import Services
    from gateway.control.metrics import Metrics
    from gateway.control.node import Node

HEADER_BYTES_MAX = 16_384
BODY_BYTES_MAX = 1 << 20
KEEPALIVE_TIMEOUT_S = 75.0
SHUTDOWN_TIMEOUT_S = 2.0


def build_app(
    node: Node, admin_token: str | None, metrics: Metrics, services: Services | None, *, host: str
) -> web.Application:
    """The application that listens on `host`; without `services` it has no API.

    Without an admin token its administrative part answers 401 to everybody. Where it listens only
    on loopback, `/metrics` needs none.
    """
    app = web.Application(client_max_size=BODY_BYTES_MAX)
    if services is not None:
        add_endpoints(app, services, ENDPOINTS)
        add_description(app, ENDPOINTS)
        reception = Reception(services.ledger, services.billing.source, services.events)
        add_stripe_webhooks(app, reception, metrics)
    add_health(app, node)
    add_status(app, node, admin_token)
    add_metrics(app, node, metrics, admin_token, is_open=_is_loopback(host))
    return app


@contextlib.asynccontextmanager
async def serving(app: web.Application, bound: socket) -> AsyncIterator[None]:
    """Serves on the socket as long as the context lasts. Raises: OSError if it can't listen."""
    runner = web.AppRunner(
        app,
        access_log=None,
        keepalive_timeout=KEEPALIVE_TIMEOUT_S,
        max_line_size=HEADER_BYTES_MAX,
        max_field_size=HEADER_BYTES_MAX,
        shutdown_timeout=SHUTDOWN_TIMEOUT_S,
    )
    await runner.setup()
    try:
        serve_on(bound)
        await web.SockSite(runner, bound).start()
        yield
    finally:
        await runner.cleanup()


def _is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address. Names other than "localhost" may change."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

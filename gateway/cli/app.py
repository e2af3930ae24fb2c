"""The `tollkeeper` command: which commands there are."""

from __future__ import annotations

from gateway.cli import (
    accounts,
    audit,
    calls,
    catalog,
    events,
    grants,
    keys,
    rebuild,
    reconcile,
    servers,
    usage,
)
from gateway.cli.options import new_app

app = new_app("Tollkeeper: a metering gateway in front of agent APIs.")
servers.register(app)
catalog.register(app)
app.add_typer(accounts.app, name="accounts")
app.add_typer(keys.app, name="keys")
app.add_typer(grants.app, name="grants")
app.add_typer(calls.app, name="calls")
events.register(app)
usage.register(app)
audit.register(app)
reconcile.register(app)
rebuild.register(app)

"""The `tollkeeper` command: which commands there are."""

from __future__ import annotations

from gateway.cli import (
    accounts,
    audit,
    audit_log,
    calls,
    catalog,
    delegations,
    events,
    grants,
    issuers,
    keys,
    logins,
    packs,
    plans,
    platforms,
    rebuild,
    reconcile,
    revenue,
    routes,
    sealed_secrets,
    servers,
    signing_keys,
    standing,
    stripe,
    subscriptions,
    tail,
    tokens,
    top,
    transactions,
    usage,
)
from gateway.cli.options import new_app

app = new_app("Tollkeeper: a metering gateway in front of agent APIs.", root=True)
servers.register(app)
catalog.register(app)
app.add_typer(routes.app, name="routes")
app.add_typer(plans.app, name="plans")
app.add_typer(packs.app, name="packs")
app.add_typer(accounts.app, name="accounts")
app.add_typer(keys.app, name="keys")
app.add_typer(grants.app, name="grants")
app.add_typer(calls.app, name="calls")
app.add_typer(tokens.app, name="tokens")
app.add_typer(delegations.app, name="delegations")
app.add_typer(sealed_secrets.app, name="secrets")
app.add_typer(issuers.app, name="issuers")
app.add_typer(platforms.app, name="platforms")
app.add_typer(signing_keys.app, name="signing-keys")
app.add_typer(subscriptions.app, name="subscriptions")
app.add_typer(transactions.app, name="transactions")
app.add_typer(revenue.app, name="revenue")
app.add_typer(stripe.app, name="stripe")
packs.register(app)
logins.register(app)
standing.register(app)
events.register(app)
usage.register(app)
tail.register(app)
top.register(app)
audit_log.register(app)
audit.register(app)
reconcile.register(app)
rebuild.register(app)

"""What the API can do, the command line can: each endpoint has its commands, or a reason."""

from __future__ import annotations

from gateway.control.resources import ENDPOINTS
from tests.cli.test_cli_commands import commands

COMMANDS: dict[str, tuple[str, ...]] = {
    "POST /v1/accounts": ("accounts create",),
    "GET /v1/accounts": ("accounts list",),
    "GET /v1/accounts/{account_id}": ("accounts show", "tail"),
    "PATCH /v1/accounts/{account_id}": (
        *("accounts set-plan", "accounts set-discount", "accounts rename"),
        *("accounts suspend", "accounts resume"),
    ),
    "GET /v1/accounts/{account_id}/balance": ("balance", "accounts show"),
    "GET /v1/accounts/{account_id}/limits": ("limits",),
    "POST /v1/accounts/{account_id}/keys": ("keys create", "accounts create"),
    "GET /v1/keys": ("keys list",),
    "PATCH /v1/keys/{key_id}": ("keys limit",),
    "POST /v1/keys/{key_id}/rotate": ("keys rotate",),
    "POST /v1/keys/{key_id}/revoke": ("keys revoke",),
    "POST /v1/routes": ("routes create",),
    "GET /v1/routes": ("routes list", "tail"),
    "POST /v1/routes/dry-run": ("routes dry-run",),
    "GET /v1/routes/{route}": ("routes show",),
    "PATCH /v1/routes/{route}": ("routes update",),
    "DELETE /v1/routes/{route}": ("routes delete",),
    "POST /v1/routes/{route}/dry-run": ("routes dry-run",),
    "POST /v1/routes/{route}/reach": ("routes reach",),
    "POST /v1/plans": ("plans create",),
    "GET /v1/plans": ("plans list",),
    "GET /v1/plans/{plan}": ("plans show",),
    "PATCH /v1/plans/{plan}": ("plans update",),
    "DELETE /v1/plans/{plan}": ("plans delete",),
    "POST /v1/platforms": ("platforms create",),
    "GET /v1/platforms": ("platforms list",),
    "GET /v1/platforms/{platform}": ("platforms show",),
    "PATCH /v1/platforms/{platform}": ("platforms change",),
    "GET /v1/secrets": ("secrets list",),
    "PUT /v1/secrets/{secret}": ("secrets set",),
    "DELETE /v1/secrets/{secret}": ("secrets delete",),
    "POST /v1/issuers": ("issuers add",),
    "GET /v1/issuers": ("issuers list",),
    "PATCH /v1/issuers/{issuer_id}": ("issuers change",),
    "DELETE /v1/issuers/{issuer_id}": ("issuers remove",),
    "POST /v1/accounts/{account_id}/grants": ("grants add",),
    "GET /v1/accounts/{account_id}/grants": ("grants list",),
    "GET /v1/grants/{grant_id}": ("grants revoke",),
    "POST /v1/grants/{grant_id}/adjust": ("grants adjust",),
    "POST /v1/grants/{grant_id}/revoke": ("grants revoke",),
    "POST /v1/tokens": ("tokens create",),
    "GET /v1/tokens": ("tokens list",),
    "POST /v1/tokens/{token_id}/revoke": ("tokens revoke",),
    "POST /v1/login": ("login",),
    "POST /v1/logout": ("logout",),
    "GET /.well-known/jwks.json": ("signing-keys list",),
    "POST /v1/signing-keys/rotate": ("signing-keys rotate",),
    "GET /v1/settlements": ("calls list",),
    "GET /v1/settlements/following": ("tail",),
    "POST /v1/settlements/{call_id}/refund": ("calls refund",),
    "GET /v1/receipts/{call_id}": ("calls show",),
    "GET /v1/usage": ("usage",),
    "GET /v1/traffic": ("top",),
    "GET /v1/audit-log": ("audit-log",),
    "GET /v1/stripe/events": ("stripe events list",),
    "GET /v1/stripe/events/{event}": ("stripe events show",),
    "POST /v1/stripe/events/{event}/replay": ("stripe events replay",),
    "POST /v1/stripe/reconcile": ("stripe reconcile",),
    "POST /v1/accounts/{account_id}/subscribe": ("subscriptions subscribe",),
    "POST /v1/accounts/{account_id}/packs": ("subscriptions buy",),
    "POST /v1/accounts/{account_id}/portal": ("subscriptions portal",),
    "GET /v1/accounts/{account_id}/subscription": ("subscriptions show",),
    "POST /v1/accounts/{account_id}/subscription/cancel": ("subscriptions cancel",),
    "POST /v1/accounts/{account_id}/subscription/resume": ("subscriptions resume",),
    "POST /v1/accounts/{account_id}/subscription/change": ("subscriptions change",),
    "POST /v1/accounts/{account_id}/subscription/change/undo": ("subscriptions undo-change",),
    "GET /v1/transactions": ("transactions list",),
    "GET /v1/transactions/{transaction_id}": ("transactions show",),
    "GET /v1/revenue": ("revenue show",),
    "GET /v1/revenue/products": ("revenue products",),
    "GET /v1/revenue/metrics": ("revenue metrics",),
    "GET /v1/accounts/{account_id}/invoices/{month}": ("transactions statement",),
    # The same of one's own account, for its admins and members.
    "GET /v1/me": ("whoami", "login"),
    "GET /v1/me/balance": ("balance",),
    "GET /v1/me/limits": ("limits",),
    "GET /v1/me/keys": ("keys list",),
    "POST /v1/me/keys": ("keys create",),
    "PATCH /v1/me/keys/{key_id}": ("keys limit",),
    "POST /v1/me/keys/{key_id}/rotate": ("keys rotate",),
    "POST /v1/me/keys/{key_id}/revoke": ("keys revoke",),
    "GET /v1/me/grants": ("grants list",),
    "POST /v1/me/delegations": ("delegations create",),
    "GET /v1/me/delegations": ("delegations list",),
    "POST /v1/me/delegations/{key_id}/revoke": ("delegations revoke",),
    "POST /v1/me/tokens": ("tokens create",),
    "GET /v1/me/tokens": ("tokens list",),
    "POST /v1/me/tokens/{token_id}/revoke": ("tokens revoke",),
    "GET /v1/me/settlements": ("calls list",),
    "GET /v1/me/receipts/{call_id}": ("calls show",),
    "GET /v1/me/usage": ("usage",),
    "GET /v1/me/audit-log": ("audit-log",),
    "POST /v1/subscribe": ("subscriptions subscribe",),
    "POST /v1/me/packs": ("subscriptions buy",),
    "POST /v1/me/portal": ("subscriptions portal",),
    "GET /v1/me/subscription": ("subscriptions show",),
    "POST /v1/me/subscription/cancel": ("subscriptions cancel",),
    "POST /v1/me/subscription/resume": ("subscriptions resume",),
    "POST /v1/me/subscription/change": ("subscriptions change",),
    "POST /v1/me/subscription/change/undo": ("subscriptions undo-change",),
    "GET /v1/me/transactions": ("transactions list",),
    "GET /v1/me/transactions/{transaction_id}": ("transactions show",),
    "GET /v1/me/invoices/{month}": ("transactions statement",),
}
LISTED = "the list shows all of it"
REASONS = {
    "GET /v1/keys/{key_id}": LISTED,
    "GET /v1/me/keys/{key_id}": LISTED,
    "GET /v1/secrets/{secret}": LISTED,
    "GET /v1/issuers/{issuer_id}": LISTED,
    "GET /v1/tokens/{token_id}": LISTED,
    "GET /v1/me/tokens/{token_id}": LISTED,
    "GET /v1/me/delegations/{key_id}": LISTED,
    "PUT /v1/routes/{route}": "for programs that keep whole documents: update takes them, too",
    "POST /v1/login/refresh": "every command does it by itself",
}


def test_every_endpoint_has_a_command_or_a_reason() -> None:
    endpoints = {f"{one.method} {one.path}" for one in ENDPOINTS}

    assert endpoints - COMMANDS.keys() - REASONS.keys() == set()
    assert (COMMANDS.keys() | REASONS.keys()) - endpoints == set()
    assert COMMANDS.keys() & REASONS.keys() == set()


def test_every_command_that_is_named_is_there() -> None:
    there = {" ".join(words) for words in commands()}

    assert {command for named in COMMANDS.values() for command in named} - there == set()

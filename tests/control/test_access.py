"""Who may do what: every endpoint, with every role and a foreign tenant, against docs/access.md."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest_asyncio

from gateway.control.api.roles import Role
from gateway.control.resources import ENDPOINTS
from tests.control.test_reading import settle
from tests.support.billing_rows import BillingRows
from tests.support.dev import ROOT
from tests.support.inbox import TEST, some_event

if TYPE_CHECKING:
    from gateway.control.api.endpoint import Endpoint
    from tests.support.api import Answer, Api, Client, Tenant

PAGE = ROOT / "docs" / "access.md"
ROW = re.compile(r"^\| `(?P<method>[A-Z]+) (?P<path>[^`]+)` \|(?P<cells>.*)\|$", re.MULTILINE)
COLUMNS = ("everybody", *Role)
YES, NO = "yes", ""


def table() -> dict[tuple[str, str], set[str]]:
    """Who may, by method and path, as the page says."""
    found = {}
    for row in ROW.finditer(PAGE.read_text()):
        cells = [cell.strip() for cell in row["cells"].split("|")]
        assert len(cells) == len(COLUMNS), row[0]
        assert set(cells) <= {YES, NO}, row[0]
        found[row["method"], row["path"]] = {
            str(name) for name, cell in zip(COLUMNS, cells, strict=True) if cell == YES
        }
    return found


def written() -> str:
    """The table as the code has it, to be pasted into the page."""
    lines = [
        "| | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " :-: |" * len(COLUMNS),
    ]
    for endpoint in ENDPOINTS:
        may = endpoint.roles or set(COLUMNS)
        cells = " | ".join(YES if name in may else NO for name in COLUMNS)
        lines.append(f"| `{endpoint.method} {endpoint.path}` | {cells} |")
    return "\n".join(lines)


def test_the_page_has_every_endpoint_with_its_roles() -> None:
    stated = {
        (one.method, one.path): {str(role) for role in one.roles} or set(map(str, COLUMNS))
        for one in ENDPOINTS
    }
    assert table() == stated, f"docs/access.md should have:\n{written()}"


class Places:
    """Ids of a tenant for the parameters of paths: one of each kind."""

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    def path(self, endpoint: Endpoint) -> str:
        """The endpoint's path with this tenant's ids in it."""
        return re.sub(r"{(\w+)}", lambda match: self._values[match[1]], endpoint.path)


async def places_of(api: Api, tenant: Tenant) -> Places:
    """What the tenant has, of each kind one."""
    owner = api.as_("owner", tenant)
    account = tenant.account.account_id
    (call,) = await settle(api, tenant)
    (grant,) = await api.ledger.grants(account)
    made = {
        "/v1/routes": {
            "name": "bought",
            "match": "POST /bought",
            "upstream": "http://127.0.0.1:9009",
            "price": {"per_request": "1"},
        },
        "/v1/plans": {"slug": "mine", "credits": "5"},
        "/v1/packs": {"slug": "mine", "credits": "5"},
        "/v1/issuers": {
            "issuer": "https://id.example",
            "jwks_url": "http://127.0.0.1:9009/jwks",
            "account_claim": "sub",
            "algorithms": ["RS256"],
        },
        "/v1/tokens": {"role": "viewer", "name": "mine"},
    }
    answers = {path: await owner.post(path, body) for path, body in made.items()}
    delegated = await api.as_key(tenant).post(
        "/v1/me/delegations", {"credits": "1", "expires_in_s": 600}
    )
    payment = await BillingRows(api.postgres_url, tenant.platform_id).transaction(account)
    await api.services.events.receive(tenant.platform_id, TEST, [some_event(f"evt_{tenant.slug}")])
    secret = await owner.put("/v1/secrets/mine", {"value": "canary"})
    for path, answer in {**answers, "delegation": delegated, "secret": secret}.items():
        assert answer.status in {200, 201}, (path, answer.body)
    return Places(
        {
            "account_id": str(account),
            "key_id": str(delegated.body["key_id"]),
            "grant_id": str(grant.grant_id),
            "call_id": call,
            "route": "bought",
            "plan": "mine",
            "pack": "mine",
            "platform": tenant.slug,
            "secret": "mine",
            "event": f"evt_{tenant.slug}",
            "issuer_id": str(answers["/v1/issuers"].body["id"]),
            "transaction_id": str(payment),
            "month": "2026-11",
            "token_id": str(answers["/v1/tokens"].body["id"]),
        }
    )


@pytest_asyncio.fixture
async def places(api: Api) -> Places:
    return await places_of(api, api.demo)


async def asked(client: Client, endpoint: Endpoint, path: str) -> Answer:
    body = {} if endpoint.body is not None else None
    return await client.ask(endpoint.method, path, body)


def harmless_first(endpoint: Endpoint) -> tuple[bool, bool]:
    """Reads before changes, changes before ends, so that there is something to ask for."""
    return endpoint.method != "GET", endpoint.method == "DELETE"


async def test_each_role_may_do_what_the_page_says_and_nothing_else(
    api: Api, places: Places
) -> None:
    stated = table()
    for endpoint in sorted(ENDPOINTS, key=harmless_first):
        path = places.path(endpoint)
        may = stated[endpoint.method, endpoint.path]
        for role in (*Role, "everybody"):
            client = api.stranger if role == "everybody" else api.as_(role)
            if role is Role.MEMBER:  # who delegates is a key
                client = api.as_key()
            answer = await asked(client, endpoint, path)
            where = f"{role}: {endpoint.method} {path}: {answer.status} {answer.body}"
            assert answer.status != 500, where
            if role in may:
                assert answer.status != 403, where
                assert answer.status != 401 or endpoint.guarded, where
            elif role == "everybody":
                assert answer.status == 401, where
            else:
                assert answer.status == 403, where
        api.services.failures.__init__(10**6, lambda: 0)  # type: ignore[misc] # forget failures
        api.services.logins.__init__(10**6, lambda: 0)  # type: ignore[misc]


async def test_nothing_of_a_tenant_is_there_for_another(api: Api, places: Places) -> None:
    """By id it is 404 for whoever may ask for its own; lists and answers do not name it."""
    await places_of(api, api.other)
    stated = table()
    for endpoint in sorted(ENDPOINTS, key=harmless_first):
        if endpoint.path.startswith(("/v1/me", "/v1/login", "/v1/logout", "/.well-known")):
            continue
        path = places.path(endpoint)
        for role in sorted(stated[endpoint.method, endpoint.path] - {"everybody", "operator"}):
            if Role(role) in (Role.ADMIN, Role.MEMBER) and not endpoint.path_names():
                continue
            answer = await asked(api.as_(role, api.other), endpoint, path)
            where = f"{role}: {endpoint.method} {path}: {answer.status} {answer.body}"
            if endpoint.path_names() and not named_alike(endpoint):
                body_first = answer.status == 422 and endpoint.body is not None
                assert answer.status == 404 or body_first, where
        api.services.logins.__init__(10**6, lambda: 0)  # type: ignore[misc] # forget attempts


def named_alike(endpoint: Endpoint) -> bool:
    """Whether its parameters are names that each tenant may have: routes, plans, packs, secrets."""
    return bool({"route", "plan", "pack", "secret"} & set(endpoint.path_names()))


async def test_lists_hold_only_what_is_the_tenants_own(api: Api, places: Places) -> None:
    del places
    own = {api.demo.account.account_id, api.demo.platform_id, None}
    await places_of(api, api.other)
    for endpoint in ENDPOINTS:
        if endpoint.method != "GET" or endpoint.path_names() or not endpoint.exports:
            continue
        role = "admin" if endpoint.path.startswith("/v1/me") else "owner"
        answer = await api.as_(role).get(endpoint.path)
        assert answer.status == 200, (endpoint.path, answer.body)
        rows: list[dict[str, Any]] = answer.body["data"]
        assert {row.get("account_id") for row in rows} <= own, endpoint.path
        assert {row.get("platform_id") for row in rows} <= own, endpoint.path

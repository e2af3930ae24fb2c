"""What can be done with issuers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.cursors import read_id_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import PageQuery
from gateway.control.api.problems import not_found
from gateway.control.api.roles import OWNERS, VIEWERS
from gateway.control.issuers.models import Issuer, IssuerPatch, Issuers, NewIssuer
from gateway.identity.jwks import PLATFORM_AUDIENCE_PREFIX
from gateway.operations import issuers

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.issuers import IssuerRow

PATH = "/v1/issuers"
ONE = f"{PATH}/{{issuer_id}}"


def document(row: IssuerRow) -> Issuer:
    """The issuer's document."""
    return Issuer(
        id=row.issuer_id,
        issuer=row.issuer,
        audience=PLATFORM_AUDIENCE_PREFIX + row.platform_slug,
        jwks_url=row.jwks_url,
        account_claim=row.account_claim,
        algorithms=list(row.algorithms),
        created_at=row.created_ms,
    )


async def create(ask: Ask, body: NewIssuer) -> Issuer:
    """Trust one: its tokens are good from the next call on."""
    trust = issuers.Trust(body.jwks_url, body.account_claim, body.algorithms)
    made = await issuers.register_issuer(
        ask.ledger, ask.platform_id, body.issuer, trust, ask.services.networks
    )
    await ask.services.spread.wait(made.version)
    return document(await _find(ask, made.issuer_id))


async def read(ask: Ask) -> Issuer:
    """One of them."""
    return document(await _find(ask, ask.id_of("issuer_id")))


async def read_list(ask: Ask, query: PageQuery) -> Issuers:
    """All, oldest first."""
    after = read_id_cursor(query.cursor) or 0
    # There are few: ISSUERS_MAX of gateway/operations/issuers.py.
    found = [row for row in await ask.ledger.issuers(ask.platform_id) if row.issuer_id > after]
    page = found[: query.limit]
    return Issuers(
        data=[document(row) for row in page],
        next_cursor=write_cursor(page[-1].issuer_id) if len(page) < len(found) else None,
    )


async def change(ask: Ask, body: IssuerPatch) -> Issuer:
    """Believe it by other keys, another claim, other algorithms."""
    row = await _find(ask, ask.id_of("issuer_id"))
    trust = issuers.Trust(
        body.jwks_url or row.jwks_url,
        body.account_claim or row.account_claim,
        body.algorithms or row.algorithms,
    )
    version = await issuers.change_issuer(
        ask.ledger, ask.platform_id, row.issuer_id, trust, ask.services.networks
    )
    await ask.services.spread.wait(version)
    return await read(ask)


async def delete(ask: Ask) -> None:
    """Trust it no more. Repeated, it does no harm, and mends what Redis could not be told."""
    version = await issuers.remove_issuer(
        ask.ledger, ask.counters, ask.platform_id, ask.id_of("issuer_id")
    )
    await ask.services.spread.wait(version)


async def _find(ask: Ask, issuer_id: int) -> IssuerRow:
    row = await ask.ledger.issuer(ask.platform_id, issuer_id)
    if row is None:
        raise not_found("issuer")
    return row


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Trust an issuer", OWNERS, create,
        body=NewIssuer, answers=Issuer, status=201, creates=True,
        description="Its tokens are credentials of the accounts that they name, as keys are.",
    ),
    Endpoint("GET", PATH, "List issuers", VIEWERS, read_list, query=PageQuery, answers=Issuers),
    Endpoint("GET", ONE, "Read an issuer", VIEWERS, read, answers=Issuer),
    Endpoint(
        "PATCH", ONE, "Change how an issuer is believed", OWNERS, change,
        body=IssuerPatch, answers=Issuer, reads=read,
    ),
    Endpoint(
        "DELETE", ONE, "Trust an issuer no more", OWNERS, delete,
        description="All that its tokens were used for ends: delegated tokens, too.",
    ),
)  # fmt: skip

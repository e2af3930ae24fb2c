"""What can be done with secrets: anything but reading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.api.cursors import read_text_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import PageQuery
from gateway.control.api.problems import not_found
from gateway.control.api.roles import OWNERS, VIEWERS
from gateway.control.secrets.models import Secret, Secrets, SecretValue
from gateway.operations import secrets

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger.sealed import SecretRow

PATH = "/v1/secrets"
ONE = f"{PATH}/{{secret}}"


def document(row: SecretRow) -> Secret:
    """The secret's document."""
    return Secret(name=row.name, created_at=row.created_ms, updated_at=row.updated_ms)


async def write(ask: Ask, body: SecretValue) -> Secret:
    """Keep it, or another value of it: the next call's agent is shown that."""
    version = await secrets.set_secret(
        ask.ledger, ask.services.sealer, ask.platform_id, ask.path["secret"], body.value
    )
    await ask.services.spread.wait(version)
    return await read(ask)


async def read(ask: Ask) -> Secret:
    """What is known of one."""
    row = await ask.ledger.secret(ask.platform_id, ask.path["secret"])
    if row is None:
        raise not_found("secret")
    return document(row)


async def read_list(ask: Ask, query: PageQuery) -> Secrets:
    """All, by name."""
    after = read_text_cursor(query.cursor) or ""
    # There are few: SECRETS_MAX of gateway/operations/secrets.py.
    found = [row for row in await ask.ledger.secrets(ask.platform_id) if row.name > after]
    page = found[: query.limit]
    return Secrets(
        data=[document(row) for row in page],
        next_cursor=write_cursor(page[-1].name) if len(page) < len(found) else None,
    )


async def delete(ask: Ask) -> None:
    """Delete it, if no route sends it."""
    version = await secrets.delete_secret(ask.ledger, ask.platform_id, ask.path["secret"])
    await ask.services.spread.wait(version)


ENDPOINTS = (
    Endpoint("GET", PATH, "List secrets", VIEWERS, read_list, query=PageQuery, answers=Secrets),
    Endpoint("GET", ONE, "Read what is known of a secret", VIEWERS, read, answers=Secret),
    Endpoint(
        "PUT", ONE, "Write a secret", OWNERS, write, body=SecretValue, answers=Secret,
        description="It is sealed with the deployment's master key, and never answered.",
    ),
    Endpoint("DELETE", ONE, "Delete a secret that no route sends", OWNERS, delete, reads=read),
)  # fmt: skip

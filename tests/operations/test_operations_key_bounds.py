"""How many keys an account can have, and that Redis takes all of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from gateway.ledger.specs import key_to_spec
from gateway.operations.errors import UsageError
from gateway.operations.keys import KEYS_MAX, KeyChanges, change_key, create_key, rotate_key
from policies.catalog import Caps, Limits
from policies.decision import Admitted, SpendCapReached
from policies.delegation import DELEGATED_KEYS_MAX
from tests.support.deployment import CREDIT

if TYPE_CHECKING:
    from tests.support.deployment import Caller, Deployment

BOUNDED = json.dumps(
    key_to_spec(
        Limits(requests_per_month=9),
        Caps(day=CREDIT, month=CREDIT, total=CREDIT),
    )
)


async def fill(deployment: Deployment, caller: Caller, keys: int, revoked: int) -> None:
    """Give the account keys with limits and caps of every kind, some of them revoked."""
    await deployment.damage(
        "INSERT INTO api_keys (platform_id, account_id, name, prefix, last4, pepper_version,"
        " digest, spec, status, revoked_at) SELECT platform_id, id, 'filler', '', '', 1,"
        " sha256(n::text::bytea), $4, CASE WHEN n > $2 THEN 'revoked' ELSE 'active' END,"
        " CASE WHEN n > $2 THEN now() END"
        " FROM accounts, generate_series(1, $2::bigint + $3) AS n WHERE id = $1",
        caller.account.account_id,
        keys,
        revoked,
        BOUNDED,
    )


async def test_an_account_has_so_many_keys_and_a_revoked_one_makes_room(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller()
    await fill(deployment, caller, KEYS_MAX - 1, 3)
    ledger, counters, account = deployment.ledger, deployment.counters, caller.account
    with pytest.raises(UsageError, match="as many as it can"):
        await create_key(ledger, counters, account, deployment.maker)
    old = await deployment.ledger.key(deployment.platform_id, caller.key_id)
    assert old is not None
    with pytest.raises(UsageError, match="as many as it can"):
        await rotate_key(
            ledger, counters, account, old, deployment.maker, old_expires_ms=2_000_000_000_000
        )
    await rotate_key(ledger, counters, account, old, deployment.maker)
    await deployment.damage(
        "UPDATE api_keys SET status = 'revoked' WHERE name = 'filler' AND id % 50 = 0"
    )
    await create_key(ledger, counters, account, deployment.maker)


async def test_an_account_with_as_many_keys_as_can_be_is_loaded_and_told(
    deployment: Deployment,
) -> None:
    caller = await deployment.caller()
    await fill(deployment, caller, KEYS_MAX, 5_000)
    await deployment.damage(
        "INSERT INTO api_keys (platform_id, account_id, kind, parent_key_id, name, prefix, last4,"
        " pepper_version, digest, budget_microcredits, expires_at) SELECT platform_id,"
        " account_id, 'delegated', id, 'agent', '', '', 1, sha256(('d' || n)::bytea), 5,"
        " now() + interval '1 hour' FROM api_keys, generate_series(1, $2::bigint) AS n"
        " WHERE id = $1",
        caller.key_id,
        DELEGATED_KEYS_MAX,
    )
    assert isinstance(await deployment.admit(caller), Admitted)
    await change_key(
        deployment.ledger,
        deployment.counters,
        deployment.platform_id,
        caller.key_id,
        KeyChanges(bounds={"day": 5 * CREDIT}),
    )
    refused = await deployment.admit(caller, 6 * CREDIT)
    assert isinstance(refused, SpendCapReached)

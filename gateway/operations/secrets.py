"""Secrets of owners who have no shell on the gateway: set, delete, seal anew.

Routes name them; the proxy puts them into requests to agents. They can be written and never read:
they are sealed with the deployment's master key before Postgres gets them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from gateway.config.selling import parse_slug
from gateway.ledger.sealed import SecretInUse
from gateway.operations.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from gateway.identity.seal import Sealer
    from gateway.ledger import Ledger

# As a header's value, with room for what servers allow a header line to have.
SECRET_BYTES_MAX = 8_190
SECRETS_MAX = 200

_PRINTABLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


class Resealed(NamedTuple):
    """How much is sealed with the newest master key now."""

    secrets: int
    signing_keys: int


async def set_secret(
    ledger: Ledger, sealer: Sealer, platform_id: int, name: str, value: str
) -> int:
    """Keep a secret, or another value of one; answers the catalogue's version with it.

    Raises: UsageError for a bad name or value, or one more than a platform may have;
    NotConfiguredError without a master key.
    """
    check_secret_name(name)
    check_secret_value(value)
    sealed = sealer.seal(value.encode())
    kept = {row.name for row in await ledger.secrets(platform_id)}
    if name not in kept and len(kept) >= SECRETS_MAX:
        raise UsageError(f"a platform has at most {SECRETS_MAX} secrets: delete one first")
    return await ledger.set_secret(platform_id, name, sealed)


async def delete_secret(ledger: Ledger, platform_id: int, name: str) -> int:
    """Delete a secret; answers the catalogue's version without it.

    Raises: UsageError when there is none of this name; ConflictError when something refers to it.
    """
    done = await ledger.delete_secret(platform_id, name)
    if isinstance(done, SecretInUse):
        users = [f"the routes {', '.join(done.routes)}"] if done.routes else []
        users += ["the Stripe settings"] if done.by_stripe else []
        text = f"{' and '.join(users)} refer to it; change them first"
        raise ConflictError("in_use", text)
    if done is None:
        raise UsageError("there is no such secret")
    return done


def check_secret_name(name: str) -> None:
    """Raises: UsageError for what is no name; it is not repeated, for it may be the value."""
    try:
        parse_slug(name)
    except ValueError:
        raise UsageError(
            'a secret\'s name is up to 63 of a-z, 0-9, "-" and "_", and starts and ends with a-z '
            "or 0-9"
        ) from None


def check_secret_value(value: str) -> None:
    """Raises: UsageError for what can't be a header's value, without repeating it."""
    if len(value) > SECRET_BYTES_MAX or _PRINTABLE.fullmatch(value) is None:
        raise UsageError(
            f"a secret's value is 1 to {SECRET_BYTES_MAX} characters of printable ASCII, without "
            "spaces around it"
        )


async def reseal(ledger: Ledger, sealer: Sealer) -> Resealed:
    """Seal everything with the newest master key, so that older ones can go from the config.

    Repeat it after all nodes have the new key: a node without it still seals with the old one.

    Raises: CannotOpenError for what no key opens, NotConfiguredError.
    """
    secrets = 0
    for row in await ledger.sealed_secrets():
        anew = sealer.rotate(row.sealed)
        secrets += await ledger.reseal_secret(row.secret_id, row.sealed, anew)
    key = await ledger.signing_key()
    if key is None:
        return Resealed(secrets, 0)
    anew = sealer.rotate(key.sealed_private)
    return Resealed(
        secrets, int(await ledger.reseal_signing_key(key.kid, key.sealed_private, anew))
    )

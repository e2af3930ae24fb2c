"""API keys: make, list, revoke, rotate. A key's text exists once, in the answer to its making."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from gateway.operations.bounds import change_bounds
from gateway.operations.errors import UsageError
from gateway.operations.publish import publish_account
from policies.apikeys import (
    ALPHABET,
    RANDOM_CHARACTERS,
    compose_key,
    digest,
    display,
    well_formed,
)
from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.rows import AccountRow, KeyListRow

KEY_NAME_DEFAULT = "default"
KEY_NAME_CHARACTERS_MAX = 100
# A longer reference may be a mistyped key, which is nearly a key: it is not repeated.
PREFIX_CHARACTERS_MAX = 12
# The version of the one pepper a deployment has; a second pepper will count on.
PEPPER_VERSION = 1
NO_LIMITS, NO_CAPS = Limits(), Caps()


@dataclass(frozen=True, slots=True)
class KeyMaker:
    """How this deployment makes keys: their environment ("dev" or "live") and the secret pepper."""

    env: str
    pepper: bytes = field(repr=False)

    def new_text(self) -> str:
        """A key nobody has."""
        random = "".join(secrets.choice(ALPHABET) for _ in range(RANDOM_CHARACTERS))
        return compose_key(self.env, random)


class NewKey(NamedTuple):
    """A key just made. `text` is the secret: show it once, keep it nowhere."""

    key_id: int
    account_name: str
    name: str
    text: str
    expires_ms: int


async def create_key(
    ledger: Ledger,
    counters: Counters,
    account: AccountRow,
    maker: KeyMaker,
    *,
    name: str = KEY_NAME_DEFAULT,
    expires_ms: int = 0,
    limits: Limits = NO_LIMITS,
    caps: Caps = NO_CAPS,
) -> NewKey:
    """A new key of an account, which works from now on; `expires_ms` 0 for ever.

    Raises: UsageError for a bad name; NotToldError when Redis could not be told.
    """
    new = await add_key(
        ledger, account, maker, name=name, expires_ms=expires_ms, limits=limits, caps=caps
    )
    await publish_account(ledger, counters, account.account_id, account.name)
    return new


async def add_key(
    ledger: Ledger,
    account: AccountRow,
    maker: KeyMaker,
    *,
    name: str,
    expires_ms: int = 0,
    limits: Limits = NO_LIMITS,
    caps: Caps = NO_CAPS,
) -> NewKey:
    """As `create_key`, without telling Redis: for an account that no call can have used yet."""
    if not 0 < len(name) <= KEY_NAME_CHARACTERS_MAX or not name.isprintable():
        raise UsageError(f"a key's name is 1 to {KEY_NAME_CHARACTERS_MAX} printable characters")
    text = maker.new_text()
    prefix, last4 = display(text)
    key_id = await ledger.create_key(
        account.account_id,
        name=name,
        prefix=prefix,
        last4=last4,
        pepper_version=PEPPER_VERSION,
        digest=digest(text, maker.pepper),
        expires_ms=expires_ms,
        limits=limits,
        caps=caps,
    )
    if key_id is None:
        raise UsageError(f'the account "{account.name}" is gone')
    return NewKey(key_id, account.name, name, text, expires_ms)


async def find_key(ledger: Ledger, platform_id: int, reference: str) -> KeyListRow:
    """The key that a person means: by its number, its prefix, or its whole text (then never shown).

    Raises: UsageError when there is no such key on the platform, or more than one.
    """
    keys = await ledger.keys(platform_id)
    if well_formed(reference):
        prefix, last4 = display(reference)
        found = [key for key in keys if (key.prefix, key.last4) == (prefix, last4)]
        shown = f"{prefix}…{last4}"
    else:
        found = [key for key in keys if reference in (str(key.key_id), key.prefix)]
        shown = reference if len(reference) <= PREFIX_CHARACTERS_MAX else "tk_…"
    if not found:
        raise UsageError(f'there is no key "{shown}": "tollkeeper keys list" shows their numbers')
    if len(found) > 1:
        numbers = ", ".join(str(key.key_id) for key in found)
        raise UsageError(f'"{shown}" is more than one key: say which by its number ({numbers})')
    return found[0]


async def limit_key(
    ledger: Ledger,
    counters: Counters,
    platform_id: int,
    key: KeyListRow,
    changes: Mapping[str, int | None],
) -> KeyListRow:
    """Change limits and caps of a key, by their fields' names, from its very next call.

    None leaves one as it is, 0 ends it. A cap that is new counts what was spent in its window
    before.

    Raises: UsageError for what can't be; NotToldError when Redis could not be told.
    """
    limits, caps = change_bounds(key.limits, key.caps, changes)
    await ledger.set_key_limits(platform_id, key.key_id, limits, caps)
    await publish_account(ledger, counters, key.account_id, key.account_name)
    return key._replace(limits=limits, caps=caps)


async def revoke_key(ledger: Ledger, counters: Counters, platform_id: int, key: KeyListRow) -> None:
    """End a key for ever, from the very next call. Repeating it tells Redis again.

    Raises: NotToldError when Redis could not be told, so that calls with the key may still pass.
    """
    await ledger.revoke_key(platform_id, key.key_id)
    await publish_account(ledger, counters, key.account_id, key.account_name)


async def rotate_key(
    ledger: Ledger,
    counters: Counters,
    account: AccountRow,
    old: KeyListRow,
    maker: KeyMaker,
    *,
    old_expires_ms: int = 0,
) -> NewKey:
    """A new key in place of an old one, which ends now or, with an overlap, at `old_expires_ms`.

    It has the old one's limits and caps, but has spent nothing.
    The new key comes first: whatever fails on the way, a caller is never left without one.

    Raises: UsageError when the old key is revoked; NotToldError as for `revoke_key`.
    """
    if old.status == "revoked":
        raise UsageError(f'key {old.key_id} is revoked already: make one with "keys create"')
    new = await add_key(ledger, account, maker, name=old.name, limits=old.limits, caps=old.caps)
    if old_expires_ms:
        await ledger.expire_key(account.platform_id, old.key_id, old_expires_ms)
    else:
        await ledger.revoke_key(account.platform_id, old.key_id)
    await publish_account(ledger, counters, account.account_id, account.name)
    return new

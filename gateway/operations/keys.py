"""API keys: make, change, revoke, rotate. A key's text exists once: when it is made."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from gateway.ledger.rows import Guards
from gateway.operations.bounds import change_bounds
from gateway.operations.errors import ConflictError, OperationError, UsageError
from gateway.operations.guards import check_guards, check_metadata
from gateway.operations.publish import publish_account
from policies.apikeys import (
    ALPHABET,
    RANDOM_CHARACTERS,
    compose_key,
    digest,
    display,
)
from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gateway.counters import Counters
    from gateway.ledger import Ledger
    from gateway.ledger.rows import AccountRow, KeyFacts, KeyListRow

KEY_NAME_DEFAULT = "default"
KEY_NAME_CHARACTERS_MAX = 100
# Of an account, all of which are loaded into Redis at once; revoked ones don't count.
KEYS_MAX = 1_000
# The version of the one pepper a deployment has; a second pepper will count on.
PEPPER_VERSION = 1
NO_LIMITS, NO_CAPS, NO_GUARDS = Limits(), Caps(), Guards()
NOTHING: Mapping[str, str] = MappingProxyType({})
# What people can change of keys that are not secrets of people. A delegated key's limit is its
# budget, and its guards are a part of its token.
CHANGEABLE = {"delegated": {"name", "metadata"}, "issuer": {"name", "guards", "metadata"}}


class KeyChangedError(OperationError):
    """The key is another by now than the one whose change was asked for. Nothing changed."""


class KeyChanges(NamedTuple):
    """What becomes of a key; None leaves as it is. An expiry of 0 is never.

    `bounds` are limits and caps by their fields' names, of which 0 ends one.
    """

    name: str | None = None
    expires_ms: int | None = None
    bounds: Mapping[str, int | None] = MappingProxyType({})
    routes: Sequence[str] | None = None
    addresses: Sequence[str] | None = None
    metadata: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class KeyMaker:
    """How this deployment makes keys: their environment ("dev" or "live") and the secret pepper.

    `secret` is the pepper; empty: this process does not have it.
    """

    env: str
    secret: bytes = field(repr=False)

    @property
    def pepper(self) -> bytes:
        """Without it no key is made, and none is known. Raises: ConflictError."""
        if not self.secret:
            raise ConflictError(
                "not_configured",
                "keys and tokens need the pepper: set gateway.key_pepper, or what it refers to",
            )
        return self.secret

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
    guards: Guards = NO_GUARDS,
    metadata: Mapping[str, str] = NOTHING,
) -> NewKey:
    """A new key of an account, which works from now on; `expires_ms` 0 for ever.

    Raises: UsageError for too many keys, a bad name, guard or metadata; NotToldError when Redis
    could not be told.
    """
    new = await add_key(
        ledger,
        account,
        maker,
        name=name,
        expires_ms=expires_ms,
        limits=limits,
        caps=caps,
        guards=guards,
        metadata=metadata,
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
    guards: Guards = NO_GUARDS,
    metadata: Mapping[str, str] = NOTHING,
    in_place: bool = False,
) -> NewKey:
    """As `create_key`, without telling Redis: for an account that no call can have used yet.

    `in_place`: of another key, which ends now.
    """
    if not in_place and await ledger.count_keys(account.account_id) >= KEYS_MAX:
        raise UsageError(
            f'the account "{account.name}" has {KEYS_MAX} keys, which is as many as it can: revoke '
            "some"
        )
    text = maker.new_text()
    prefix, last4 = display(text)
    key_id = await ledger.create_key(
        account.account_id,
        name=check_name(name),
        prefix=prefix,
        last4=last4,
        pepper_version=PEPPER_VERSION,
        digest=digest(text, maker.pepper),
        expires_ms=expires_ms,
        limits=limits,
        caps=caps,
        guards=await check_guards(ledger, account.platform_id, guards),
        metadata=check_metadata(metadata),
    )
    if key_id is None:
        raise UsageError(f'the account "{account.name}" is gone')
    return NewKey(key_id, account.name, name, text, expires_ms)


async def change_key(
    ledger: Ledger,
    counters: Counters,
    platform_id: int,
    key_id: int,
    changes: KeyChanges,
    *,
    expected: KeyListRow | None = None,
) -> KeyListRow:
    """Change a key at once in all that is named, from its very next call.

    A cap that is new counts what was spent in its window before. With `expected` only a key that is
    still as it was seen.

    Raises: UsageError for what can't be; KeyChangedError when it is not as expected; NotToldError
    when Redis could not be told.
    """
    told = Guards(tuple(changes.routes or ()), tuple(changes.addresses or ()))
    guards = await check_guards(ledger, platform_id, told)

    def changed(key: KeyListRow) -> KeyFacts:
        if expected is not None and key != expected:
            raise KeyChangedError(f"key {key_id} was changed by somebody else: look at it again")
        return _changed(key, changes, guards)

    key = await ledger.change_key(platform_id, key_id, changed)
    if key is None:
        raise UsageError(f"there is no key {key_id}")
    await publish_account(ledger, counters, key.account_id, key.account_name)
    return key


async def revoke_key(ledger: Ledger, counters: Counters, platform_id: int, key: KeyListRow) -> None:
    """End a key for ever, with all that are delegated from it, from the very next call.

    Repeating it tells Redis again.

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

    It has the old one's limits, caps, guards and metadata, but has spent nothing. What was
    delegated from the old one ends with that. The new key comes first: whatever fails on the way, a
    caller is never left without one.

    Raises: UsageError when the old key is revoked or not a secret; NotToldError as for
    `revoke_key`.
    """
    if old.kind != "key":
        raise UsageError(f"key {old.key_id} has no secret that could be another: it is {old.kind}")
    if old.status == "revoked":
        raise UsageError(f'key {old.key_id} is revoked already: make one with "keys create"')
    new = await add_key(
        ledger,
        account,
        maker,
        name=old.name,
        limits=old.limits,
        caps=old.caps,
        guards=old.guards,
        metadata=old.metadata,
        in_place=not old_expires_ms,
    )
    if old_expires_ms:
        await ledger.expire_key(account.platform_id, old.key_id, old_expires_ms)
    else:
        await ledger.revoke_key(account.platform_id, old.key_id)
    await publish_account(ledger, counters, account.account_id, account.name)
    return new


def check_name(name: str) -> str:
    """Raises: UsageError for what can't be a key's name."""
    if not 0 < len(name) <= KEY_NAME_CHARACTERS_MAX or not name.isprintable():
        raise UsageError(f"a key's name is 1 to {KEY_NAME_CHARACTERS_MAX} printable characters")
    return name


def _changed(key: KeyListRow, changes: KeyChanges, guards: Guards) -> KeyFacts:
    facts = key.facts
    if changes.name is not None:
        facts = facts._replace(name=check_name(changes.name))
    if changes.expires_ms is not None:
        facts = facts._replace(expires_ms=changes.expires_ms)
    if any(value is not None for value in changes.bounds.values()):
        limits, caps = change_bounds(facts.limits, facts.caps, changes.bounds)
        facts = facts._replace(limits=limits, caps=caps)
    if changes.routes is not None:
        facts = facts._replace(guards=facts.guards._replace(routes=guards.routes))
    if changes.addresses is not None:
        facts = facts._replace(guards=facts.guards._replace(addresses=guards.addresses))
    if changes.metadata is not None:
        facts = facts._replace(metadata=check_metadata(changes.metadata))
    changeable = CHANGEABLE.get(key.kind)
    for name, before, after in zip(facts._fields, key.facts, facts, strict=True):
        if changeable is not None and name not in changeable and after != before:
            word = name.removesuffix("_ms")
            raise UsageError(f"key {key.key_id} is {key.kind}: its {word} can't be changed")
    return facts

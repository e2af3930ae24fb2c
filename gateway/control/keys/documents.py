"""Keys as documents, and what people ask of them checked field by field."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, TypeVar

from gateway.clock import now_ms
from gateway.config.bounds import contradictions
from gateway.control.api.fields import or_never
from gateway.control.api.problems import FieldError, invalid
from gateway.control.keys.models import Key, KeyCaps, KeyLimits, NewKey
from gateway.operations.errors import UsageError
from gateway.operations.guards import check_addresses, check_metadata, check_routes
from gateway.operations.keys import CHANGEABLE, check_name
from policies.catalog import Caps, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gateway.control.api.ask import Ask
    from gateway.control.keys.models import KeyPatch, KeyStatus
    from gateway.ledger.rows import KeyListRow

T = TypeVar("T")

# By a field of a patch: what `KeyFacts` calls it.
_FACTS = {"expires_at": "expires_ms", "routes": "guards", "addresses": "guards"}


def key_document(row: KeyListRow) -> Key:
    """A key's document."""
    budget = row.budget_microcredits
    return Key(
        id=row.key_id,
        account_id=row.account_id,
        account=row.account_name,
        name=row.name,
        kind=row.kind,  # type: ignore[arg-type] # the table's own check
        prefix=row.prefix,
        last4=row.last4,
        status=status_of(row),
        expires_at=or_never(row.expires_ms),
        created_at=row.created_ms,
        revoked_at=or_never(row.revoked_ms),
        limits=KeyLimits(**_or_none(asdict(row.limits))),
        caps=KeyCaps(**_or_none(asdict(row.caps))),
        routes=list(row.guards.routes),
        addresses=list(row.guards.addresses),
        metadata=dict(row.metadata),
        parent_key_id=row.parent_key_id,
        budget_credits=budget,
    )


def status_of(row: KeyListRow) -> KeyStatus:
    """What has become of a key."""
    if row.status == "revoked":
        return "revoked"
    return "expired" if 0 < row.expires_ms <= now_ms() else "active"


def told_bounds(body: NewKey | KeyPatch) -> dict[str, int]:
    """Limits and caps that a document names, by their fields' names; 0: there is to be none."""
    told = {}
    for part in (body.limits, body.caps):
        if part is not None:
            for name in part.model_fields_set:
                told[name] = getattr(part, name) or 0
    return told


async def check_key(ask: Ask, body: NewKey | KeyPatch, old: KeyListRow | None = None) -> None:
    """Everything that is wrong with a key as it would be. Raises: Problem with all of it."""
    wrong = [*_wrong_bounds(body, old)]
    if isinstance(body, NewKey) and body.expires_at is not None and body.expires_at <= now_ms():
        wrong.append(FieldError("expires_at", "This time has passed."))
    if body.name is not None:
        wrong += _wrong("name", check_name, body.name)
    wrong += await wrong_routes(ask, body.routes or ())
    for place, network in enumerate(body.addresses or ()):
        wrong += _wrong(f"addresses[{place}]", lambda each: check_addresses([each]), network)
    wrong += wrong_metadata(body.metadata or {})
    if old is not None and (changeable := CHANGEABLE.get(old.kind)) is not None:
        wrong += [
            FieldError(name, f"This can't be changed of a key that is {old.kind}.")
            for name in sorted(body.model_fields_set)
            if _FACTS.get(name, name) not in changeable
        ]
    if wrong:
        raise invalid(*wrong)


async def wrong_routes(ask: Ask, routes: Sequence[str]) -> list[FieldError]:
    """Which names of the field `routes` the platform does not have."""
    if not routes:
        return []
    known = [stored.route.name for stored in await ask.ledger.routes(ask.platform_id)]
    return [
        error
        for place, name in enumerate(routes)
        for error in _wrong(f"routes[{place}]", lambda each: check_routes([each], known), name)
    ]


def wrong_metadata(metadata: Mapping[str, str]) -> Iterator[FieldError]:
    """What of the field `metadata` can't be kept."""
    for name, value in metadata.items():
        yield from _wrong(f"metadata.{name}", check_metadata, {name: value})


def _wrong_bounds(body: NewKey | KeyPatch, old: KeyListRow | None) -> Iterator[FieldError]:
    told = told_bounds(body)
    limits = old.limits if old is not None else Limits()
    caps = old.caps if old is not None else Caps()
    limits = replace(limits, **{name: told[name] for name in asdict(limits) if name in told})
    caps = replace(caps, **{name: told[name] for name in asdict(caps) if name in told})
    for name, message in contradictions(limits, caps):
        part = "limits" if name in asdict(limits) else "caps"
        yield FieldError(f"{part}.{name}", f"This {message}.")


def _wrong(field: str, check: Callable[[T], object], value: T) -> Iterator[FieldError]:
    try:
        check(value)
    except UsageError as error:
        yield FieldError(field, str(error))


def _or_none(values: Mapping[str, int]) -> dict[str, int | None]:
    return {name: value or None for name, value in values.items()}

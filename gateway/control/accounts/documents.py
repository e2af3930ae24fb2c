"""Accounts, balances and limits as documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.accounts.models import Account, Balance, CallLimit, Limits, Lot, SpendCap
from gateway.control.api.fields import or_never
from policies.units import format_percent

if TYPE_CHECKING:
    from gateway.ledger.rows import AccountRow
    from gateway.operations import standing


def account_document(row: AccountRow) -> Account:
    """An account's document."""
    discount = row.discount_basis_points
    return Account(
        id=row.account_id,
        name=row.name,
        status=row.status,  # type: ignore[arg-type] # the table's own check
        payment_suspended=row.payment_suspended,
        plan=row.plan_slug,
        renewed_by=row.renewed_by,  # type: ignore[arg-type] # the table's own check
        discount_percent=None if discount is None else format_percent(discount),
        debt_credits=row.debt_microcredits,
        created_at=row.created_ms,
    )


def balance_document(balance: standing.Balance) -> Balance:
    """A balance's document."""
    return Balance(
        live=balance.is_live,
        available_credits=balance.available_microcredits,
        held_credits=balance.held_microcredits,
        overage_credits=balance.overage_microcredits,
        debt_credits=balance.debt_microcredits,
        lots=[_lot(lot) for lot in balance.lots],
    )


def limits_document(allowance: standing.Allowance, key_id: int | None) -> Limits:
    """The document of limits and caps."""
    return Limits(
        live=allowance.is_live,
        key_id=key_id,
        limits=[_limit(limit) for limit in allowance.limits],
        caps=[_cap(cap) for cap in allowance.caps],
    )


def _lot(lot: standing.LotBalance) -> Lot:
    grant = lot.grant
    return Lot(
        grant_id=grant.grant_id,
        source=grant.source,  # type: ignore[arg-type] # the table's own check
        granted_credits=grant.amount_microcredits,
        credited_credits=grant.credited_microcredits,
        left_credits=lot.left_microcredits,
        held_credits=lot.held_microcredits,
        effective_at=grant.effective_ms,
        expires_at=or_never(grant.expires_ms),
    )


def _limit(limit: standing.CallLimit) -> CallLimit:
    return CallLimit(
        limit_kind=limit.kind,  # type: ignore[arg-type] # of standing.CALL_LIMITS
        limit=limit.limit,
        used=limit.used,
        left=limit.left,
        resets_at=or_never(limit.resets_ms) if limit.used else None,
    )


def _cap(cap: standing.SpendCap) -> SpendCap:
    used = cap.used_microcredits
    return SpendCap(
        window=cap.window,  # type: ignore[arg-type] # of standing.CAP_WINDOWS
        limit_credits=cap.limit_microcredits,
        used_credits=used,
        left_credits=None if used is None else max(cap.limit_microcredits - used, 0),
        resets_at=or_never(cap.resets_ms),
    )

"""[[routes.price.meters]] and [routes.price.outcome]: what is counted, and what it costs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.catalog import MeterSpec, OnMissing, Source, Tier
from policies.meters import UNITS_MAX, parse_source
from policies.meters.call import BYTES_PER_UNIT
from policies.meters.presets import INPUT_PRESETS, PRESETS
from policies.meters.registry import (
    mistake_in_request_source,
    mistake_in_source,
    parse_sources,
)
from policies.units import parse_unit_price

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.config.section import Section


TIERS_MAX = 100
ESTIMATE_PER_UNIT_MAX = 1_000_000_000
OUTCOME = "outcome"
_UNIT = re.compile(r"[a-z][a-z0-9_]{0,31}")
_DEFAULTS = MeterSpec("", (), 0, 0)
_NO_ESTIMATE = (_DEFAULTS.estimate_from, _DEFAULTS.estimate_per_unit)


def read_meters(price: Section) -> tuple[MeterSpec, ...]:
    """The meters of one price, its outcome last."""
    meters: dict[str, MeterSpec] = {}
    for section in price.tables("meters", named_by="unit"):
        meter = _meter(section)
        if meter.unit and meter.unit in meters:
            section.complain("unit", f'"{meter.unit}" is already metered by this price')
        meters[meter.unit] = meter
    if "outcome" in price:
        if OUTCOME in meters:
            price.complain(OUTCOME, f'"{OUTCOME}" is already metered by this price')
        meters[OUTCOME] = _outcome(price.table("outcome"))
    return tuple(meters.values())


def _meter(section: Section) -> MeterSpec:
    tiers = _tiers(section)
    on_missing = None
    if "on_missing" in section:
        on_missing = section.choice("on_missing", OnMissing, OnMissing.RESERVED)
    sources = _sources(section, "from")
    estimate_from, estimate_per_unit = _estimate(section, on_missing, sources)
    meter = MeterSpec(
        unit=section.parsed("unit", _unit, ""),
        sources=sources,
        picocredits_per_unit=_unit_price(section),
        reserve_units=section.integer("reserve_units", least=0, most=UNITS_MAX),
        tiers=tiers,
        included_units=section.integer("included_units", 0, least=0, most=UNITS_MAX),
        reserve_from=(
            _sources(section, "reserve_from", mistake_in_request_source)
            if "reserve_from" in section
            else ()
        ),
        on_missing=on_missing,
        estimate_from=estimate_from,
        estimate_per_unit=estimate_per_unit,
    )
    section.close()
    return meter


def _outcome(section: Section) -> MeterSpec:
    """A unit that is 1 when the answer says that its work was delivered, else 0."""
    sources = _sources(section, "from")
    for source in sources:
        if "=" not in source.argument:
            section.complain(
                "from",
                f'"{source}" has to say which value means delivered, '
                'as in "response.json:/status=delivered"',
            )
    meter = MeterSpec(
        unit=OUTCOME,
        sources=sources,
        picocredits_per_unit=section.amount("credits", parse_unit_price, default=None),
        reserve_units=1,
        on_missing=section.choice("on_missing", OnMissing, OnMissing.MINIMUM),
    )
    if meter.on_missing is OnMissing.ESTIMATE:
        section.complain("on_missing", 'can\'t be "estimate": a delivery is not a matter of degree')
    section.close()
    return meter


def _unit_price(section: Section) -> int:
    if "tiers" not in section:
        return section.amount("credits_per_unit", parse_unit_price, default=None)
    if "credits_per_unit" in section:
        section.complain("credits_per_unit", "stands in its tiers; keep one of the two")
    return 0


def _tiers(section: Section) -> tuple[Tier, ...]:
    """Tiers that ascend and end with one for all units beyond; () where there are none."""
    before = section.problems_so_far()
    sections = section.tables("tiers", named_by="")
    tiers = []
    for tier in sections:
        up_to = tier.integer("up_to", least=1, most=UNITS_MAX) if "up_to" in tier else None
        price = tier.amount("credits_per_unit", parse_unit_price, default=None)
        tier.close()
        tiers.append(Tier(up_to, price))
    if section.problems_so_far() > before:
        return ()
    if "tiers" in section and not tiers:
        section.complain("tiers", "has none; say credits_per_unit instead")
    elif len(tiers) > TIERS_MAX:
        section.complain("tiers", f"are more than {TIERS_MAX}")
    else:
        _check_order(sections, [tier.up_to for tier in tiers])
    return tuple(tiers)


def _check_order(sections: list[Section], bounds: list[int | None]) -> None:
    below = 0
    for tier, bound in zip(sections[:-1], bounds, strict=False):
        if bound is None:
            tier.complain("up_to", "is missing: only the last tier has no end")
        elif bound <= below:
            tier.complain("up_to", f"must be above that of the tier before, {below}")
        below = bound or below
    if bounds and bounds[-1] is not None:
        sections[-1].complain("up_to", "must be left out: the last tier is for all units beyond")


def default_estimate(
    on_missing: OnMissing | None, sources: tuple[Source, ...]
) -> tuple[Source | None, int]:
    """What an estimate counts where the meter does not say; and how much makes a unit."""
    if on_missing in {None, OnMissing.ESTIMATE} and any(
        set(PRESETS[name]) <= set(sources) for name in INPUT_PRESETS
    ):
        return Source("request.bytes", ""), BYTES_PER_UNIT
    return _NO_ESTIMATE


def _estimate(
    section: Section, on_missing: OnMissing | None, sources: tuple[Source, ...]
) -> tuple[Source | None, int]:
    """What an estimate counts, None for the meters' own choice; and how much makes a unit."""
    source, per_unit = default_estimate(on_missing, sources)
    if "estimate_from" in section:
        before = section.problems_so_far()
        source, per_unit = parse_source(section.text("estimate_from")), 1
        mistake = mistake_in_source(source)
        if mistake is not None and section.problems_so_far() == before:
            section.complain("estimate_from", mistake)
    if "estimate_per_unit" in section:
        per_unit = section.integer("estimate_per_unit", least=1, most=ESTIMATE_PER_UNIT_MAX)
        source = source or Source("response.bytes", "")
    if on_missing not in {None, OnMissing.ESTIMATE}:
        for key in ("estimate_from", "estimate_per_unit"):
            if key in section:
                section.complain(key, f'is of no use with on_missing = "{on_missing}"')
    return source, per_unit


def _sources(
    section: Section, key: str, mistake_in: Callable[[Source], str | None] = mistake_in_source
) -> tuple[Source, ...]:
    """One source or a list of them; a preset stands for several."""
    written = section.value(key)
    texts = [written] if isinstance(written, str) else written
    if not isinstance(texts, list) or not texts:
        section.complain(
            key, 'must be a source such as "response.json:/usage/total_tokens", or a list of them'
        )
        return ()
    sources: list[Source] = []
    for text in texts:
        if not isinstance(text, str):
            section.complain(key, f'must be a list of texts; "{text}" is none')
            continue
        for source in parse_sources(text):
            mistake = mistake_in(source)
            if mistake is None and source in sources:
                mistake = f'names "{source}" twice'
            if mistake is not None:
                section.complain(key, mistake)
            sources.append(source)
    return tuple(sources)


def _unit(text: str) -> str:
    if not _UNIT.fullmatch(text):
        raise ValueError(f'"{text}" must be up to 32 of a-z, 0-9 and "_", such as "token"')
    return text

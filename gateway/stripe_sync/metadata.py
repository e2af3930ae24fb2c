"""What a product's metadata says: the plan or pack it sells, read by the config's own readers.

Metadata are texts, so numbers are texts here, lists are joined by ";", and the table of caps has a
key for each cap. All else is as in the config, mistakes and what is said of them included. What
Stripe's products have besides, for others, is let be, unless it looks like a key misspelt.

A product may also just name a plan or pack that the config or the API describes: then it says
nothing of its own, or the same.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from gateway.config.documents import read_pack_document, read_plan_document
from gateway.config.problems import Problem
from gateway.config.selling import parse_slug
from gateway.config.writing import pack_document, plan_document
from gateway.ledger.stripe_products import PACK_KIND, PLAN_KIND, UNKNOWN_KIND
from policies.catalog import Pack, Plan

if TYPE_CHECKING:
    from collections.abc import Mapping

# The slug of the platform whose product it is. Nothing without it is looked at, or touched.
TAG = "tollkeeper"
# Of a product that a push made. It only sells what is described here, and never describes it: else
# a plan that was deleted would come back by it. Without this it is as one that was made by hand.
PUSHED, PUSHED_VALUE = "tollkeeper_pushed", "yes"
FEATURES_BETWEEN = ";"
CREDITS = "credits"
# Of the value of one key of Stripe's metadata.
VALUE_CHARACTERS_MAX = 500
# Written also where it is the default.
_ALWAYS = frozenset({CREDITS, "period"})
_CAP = "cap_"
_WHOLE = frozenset(
    {
        "requests_per_second",
        "requests_per_minute",
        "burst",
        "requests_per_month",
        "concurrency",
        "rollover_periods",
        "trial_days",
        "validity_days",
    }
)
_CAPS = frozenset(f"{_CAP}{window}" for window in ("day", "month", "total", "session"))
_PLAN_TEXTS = frozenset(
    {
        CREDITS,
        "period",
        "quota_window",
        "overage",
        "overage_cap",
        "overage_price",
        "rollover",
        "low_credits",
        "refund_expired",
        "discount",
        "trial_credits",
        "features",
    }
)
_PLAN_KEYS = _PLAN_TEXTS | _CAPS | (_WHOLE - {"validity_days"})
_PACK_KEYS = frozenset({CREDITS, "validity_days"})
_OURS = frozenset({TAG, PLAN_KIND, PACK_KIND})
# A misspelt key is nearer to one of ours than this; what others keep at products is not.
_NEAR = 0.8
_DIGITS = re.compile(r"[0-9]{1,12}")


class Said(NamedTuple):
    """What metadata say. `what` is of use only where `problem` is None.

    `own`: it says more than which plan or pack it is.
    """

    kind: str
    slug: str
    what: Plan | Pack | None = None
    problem: str | None = None
    own: bool = True


def read_metadata(metadata: Mapping[str, str], name: str) -> Said:
    """The plan or pack of a product; its name is that of the pack."""
    plan, pack = metadata.get(PLAN_KIND), metadata.get(PACK_KIND)
    if (plan is None) == (pack is None):
        both = "has both a plan and a pack: a product is one of them"
        problem = "says neither plan nor pack" if plan is None else both
        return Said(UNKNOWN_KIND, "", None, f"metadata {problem}", own=False)
    kind, slug = (PLAN_KIND, plan) if plan is not None else (PACK_KIND, pack or "")
    known = _PLAN_KEYS if kind == PLAN_KIND else _PACK_KEYS
    said = {key: text for key, text in metadata.items() if key in known}
    problems = _misspelt(metadata, known)
    try:
        parse_slug(slug)
    except ValueError as error:
        return Said(UNKNOWN_KIND, "", None, _text([Problem(kind, str(error)), *problems]))
    document = _document(said) | {"slug": slug}
    read = read_plan_document(document) if kind == PLAN_KIND else _read_pack(document, name)
    what, found = read
    problems += [Problem(_key(problem.where), problem.message) for problem in found]
    problems += _without_credits(said, problems, kind)
    return Said(kind, slug, what, _text(problems) if problems else None, own=bool(said))


def is_pushed(metadata: Mapping[str, str]) -> bool:
    """Whether a push made the product."""
    return bool(metadata.get(PUSHED))


def plan_metadata(platform_slug: str, plan: Plan) -> dict[str, str]:
    """The metadata of a product that sells a plan, as it is read back; defaults go without saying.

    Raises: ValueError for what Stripe has no room for.
    """
    metadata = _plan_metadata(platform_slug, plan)
    for key, text in metadata.items():
        if len(text) > VALUE_CHARACTERS_MAX:
            raise ValueError(f"{key} is longer than Stripe's {VALUE_CHARACTERS_MAX} characters")
    return metadata


def _plan_metadata(platform_slug: str, plan: Plan) -> dict[str, str]:
    """The same, however long it is."""
    document, defaults = plan_document(plan), plan_document(Plan(plan.slug, 0))
    caps = document.pop("caps") or {}
    features = document.pop("features")
    texts = {
        key: document[key]
        for key in _PLAN_KEYS & document.keys()
        if document[key] is not None and (key in _ALWAYS or document[key] != defaults[key])
    }
    texts |= {f"{_CAP}{window}": text for window, text in caps.items() if text is not None}
    if features:
        texts["features"] = f"{FEATURES_BETWEEN} ".join(features)
    return {TAG: platform_slug, PLAN_KIND: plan.slug} | _sorted(texts)


def pack_metadata(platform_slug: str, pack: Pack) -> dict[str, str]:
    """The metadata of a product that sells a pack, as it is read back."""
    document = pack_document(pack)
    texts = {key: document[key] for key in _PACK_KEYS if document[key] is not None}
    return {TAG: platform_slug, PACK_KIND: pack.slug} | _sorted(texts)


def keys_of(kind: str) -> frozenset[str]:
    """Which keys of metadata are ours, of a plan or a pack."""
    return _OURS | (_PLAN_KEYS if kind == PLAN_KIND else _PACK_KEYS)


def difference(metadata: Mapping[str, str], what: Plan | Pack) -> str | None:
    """What a product says that its plan or pack is not; None: nothing.

    For one that the config or the API describes: by them it goes, whatever the product says.
    """
    name = what.name if isinstance(what, Pack) else ""
    said = read_metadata(metadata, name)
    if not said.own:
        return None
    if said.problem is not None:
        return said.problem
    wanted = _written(what)
    there = {} if said.what is None else _written(said.what)
    keys = [key for key in sorted(there) if key in metadata and there[key] != wanted.get(key)]
    return f"metadata say otherwise: {', '.join(keys)}" if keys else None


def _written(what: Plan | Pack) -> dict[str, str]:
    return _plan_metadata("", what) if isinstance(what, Plan) else pack_metadata("", what)


def _read_pack(document: dict[str, Any], name: str) -> tuple[Pack, list[Problem]]:
    return read_pack_document(document | {"name": name})


def _document(said: Mapping[str, str]) -> dict[str, Any]:
    """As the config would have it."""
    document: dict[str, Any] = {}
    caps: dict[str, str] = {}
    for key, text in said.items():
        if key in _CAPS:
            caps[key.removeprefix(_CAP)] = text
        elif key == "features":
            document[key] = [part.strip() for part in text.split(FEATURES_BETWEEN) if part.strip()]
        else:
            whole = key in _WHOLE and _DIGITS.fullmatch(text) is not None
            document[key] = int(text) if whole else text
    return document | ({"caps": caps} if caps else {})


def _key(where: str) -> str:
    """The key of metadata that a problem of the config's reader is about."""
    return where.replace("caps.", _CAP)


def _misspelt(metadata: Mapping[str, str], known: frozenset[str]) -> list[Problem]:
    problems = []
    for key in metadata:
        if key in known or key in _OURS:
            continue
        near = get_close_matches(key, known, n=1, cutoff=_NEAR)
        if near:
            problems.append(Problem(key, f'unknown key; did you mean "{near[0]}"?'))
    return problems


def _without_credits(said: Mapping[str, str], problems: list[Problem], kind: str) -> list[Problem]:
    """Nothing is sold that gives nothing because somebody forgot to say how much."""
    if any(problem.where == CREDITS for problem in problems):
        return []
    if CREDITS not in said:
        return [Problem(CREDITS, "is missing")]
    if kind == PLAN_KIND and said.get("overage") != "bill" and not said[CREDITS].strip("0."):
        return [Problem(CREDITS, 'gives nothing; only with overage = "bill" can that be meant')]
    return []


def _text(problems: list[Problem]) -> str:
    return "; ".join(f"metadata {problem}" for problem in problems)


def _sorted(texts: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(texts[key]) for key in sorted(texts)}

"""The [platform] table, the [[plans]] and the [[packs]]."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from gateway.config.bounds import read_caps, read_limits
from gateway.config.money import read_amounts, read_features, read_overage_price
from policies.catalog import Pack, Plan, PlanPrice, Platform, QuotaWindow, RefundExpired
from policies.periods import MONTHS
from policies.units import parse_credits, parse_percent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config.section import Section

DEFAULT_SLUG = "demo"
ROLLOVER_PERIODS_MAX = 120
TRIAL_DAYS = 3
TRIAL_DAYS_MAX = 730  # Stripe's most
VALIDITY_DAYS_MAX = 3_650
PACK_NAME_CHARACTERS_MAX = 200
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_URL = re.compile(r"https?://[!-~]+")


def read_platform(section: Section) -> Platform:
    """The [platform] table; all of it may be left out."""
    slug = section.parsed("slug", parse_slug, DEFAULT_SLUG, DEFAULT_SLUG)
    name = section.text("name", slug)
    url = section.parsed("upgrade_url", parse_url, None) if "upgrade_url" in section else None
    signup = section.parsed("signup_plan", parse_slug, None) if "signup_plan" in section else None
    trial = section.amount("trial_credits")
    trial_days = section.integer("trial_days", TRIAL_DAYS, least=1, most=TRIAL_DAYS_MAX)
    if trial and signup is None:
        section.complain("trial_credits", "is of no use without signup_plan, which gives it")
    if "trial_days" in section and not trial:
        section.complain("trial_days", "is of no use without trial_credits")
    section.close()
    return Platform(slug, name, url, signup, trial, trial_days)


def read_plans(sections: Iterable[Section]) -> tuple[Plan, ...]:
    """The [[plans]]."""
    plans: dict[str, Plan] = {}
    for section in sections:
        plan = read_plan(section)
        if plan.slug and plan.slug in plans:
            section.complain("slug", f'"{plan.slug}" is already the slug of another plan')
        plans[plan.slug] = plan
    return tuple(plans.values())


def read_packs(sections: Iterable[Section]) -> tuple[Pack, ...]:
    """The [[packs]]."""
    packs: dict[str, Pack] = {}
    for section in sections:
        pack = read_pack(section)
        if pack.slug and pack.slug in packs:
            section.complain("slug", f'"{pack.slug}" is already the slug of another pack')
        packs[pack.slug] = pack
    return tuple(packs.values())


def parse_slug(text: str) -> str:
    """A name that fits into URLs and tables.

    Raises: ValueError saying what is wrong.
    """
    if not _SLUG.fullmatch(text):
        raise ValueError(
            f'"{text}" must be up to 63 of a-z, 0-9, "-" and "_", and start and end with a-z or 0-9'
        )
    return text


def read_plan(section: Section) -> Plan:
    """One plan."""
    slug = section.parsed("slug", parse_slug, "")
    before = section.problems_so_far()
    amount = section.amount("credits")
    gives_nothing = amount == 0 and section.problems_so_far() == before
    period = section.parsed("period", _period, "month", "month")
    limits = read_limits(section)
    rollover, rollover_periods = _rollover(section, amount)
    blocks, overage_cap = _overage_cap(section)
    trial_days, trial = _trial(section)
    plan = Plan(
        slug=slug,
        credits_microcredits=amount,
        period=period,
        requests_per_minute=limits.requests_per_minute,
        requests_per_month=limits.requests_per_month,
        concurrency=limits.concurrency,
        requests_per_second=limits.requests_per_second,
        burst=limits.burst,
        quota_window=section.choice("quota_window", QuotaWindow, QuotaWindow.CALENDAR),
        caps=read_caps(section.table("caps"), sessions=True),
        overage_cap_microcredits=overage_cap,
        rollover_microcredits_max=rollover,
        rollover_periods=rollover_periods,
        low_credits_microcredits=section.amount("low_credits"),
        refund_expired=section.choice("refund_expired", RefundExpired, RefundExpired.GRANT),
        discount_basis_points=section.amount("discount", parse_percent),
        prices=_prices(section, period),
        trial_days=trial_days,
        trial_microcredits=trial,
        overage_price=read_overage_price(section),
        features=read_features(section),
    )
    if gives_nothing and blocks and plan.prices:
        section.complain(
            "credits", 'sells nothing: say how many, or overage = "bill", or leave its prices out'
        )
    if "quota_window" in section and not limits.requests_per_month:
        section.complain("quota_window", "is of no use without requests_per_month")
    section.close()
    return plan


def read_pack(section: Section) -> Pack:
    """One pack."""
    slug = section.parsed("slug", parse_slug, "")
    before = section.problems_so_far()
    amount = section.amount("credits", default=None)
    if amount == 0 and section.problems_so_far() == before:
        section.complain("credits", "sells nothing")
    days = None
    if "validity_days" in section:
        days = section.integer("validity_days", least=1, most=VALIDITY_DAYS_MAX)
    pack = Pack(
        slug=slug,
        name=section.parsed("name", _pack_name, slug, slug),
        credits_microcredits=amount,
        validity_days=days,
        prices=read_amounts(section, "price"),
    )
    section.close()
    return pack


def _pack_name(text: str) -> str:
    if not 0 < len(text) <= PACK_NAME_CHARACTERS_MAX or not text.isprintable():
        raise ValueError(f"must be 1 to {PACK_NAME_CHARACTERS_MAX} printable characters")
    return text


def _period(text: str) -> str:
    if text not in MONTHS:
        raise ValueError(f'"{text}" is not a period; there is "month" and "year"')
    return text


def _prices(section: Section, period: str) -> tuple[PlanPrice, ...]:
    """What a plan costs by the month and by the year."""
    prices = []
    for key, months in (("price_per_month", 1), ("price_per_year", 12)):
        amounts = read_amounts(section, key)
        if amounts and months < MONTHS[period]:
            section.complain(key, f'is of no use with period = "{period}": say price_per_year')
        prices += [PlanPrice(months, money.currency, money.amount_minor) for money in amounts]
    return tuple(prices)


def _trial(section: Section) -> tuple[int, int | None]:
    """How many days its subscription begins with unpaid, and what is given for them."""
    days = section.integer("trial_days", 0, least=0, most=TRIAL_DAYS_MAX)
    if "trial_credits" not in section:
        return days, None
    if not days:
        section.complain("trial_credits", "is of no use without trial_days")
    return days, section.amount("trial_credits")


def _overage_cap(section: Section) -> tuple[bool, int]:
    """Whether overage is blocked, and what a period may use beyond its grants; 0: nothing."""
    overage = section.parsed("overage", _overage, "", "block")
    before = section.problems_so_far()
    cap = section.amount("overage_cap")
    for key in ("overage_cap", "overage_price"):
        if overage == "block" and key in section:
            section.complain(key, 'is of no use without overage = "bill"')
    if overage == "bill" and "overage_cap" not in section:
        section.complain("overage_cap", 'is missing: overage = "bill" needs a most, as in "500"')
    elif overage == "bill" and cap == 0 and section.problems_so_far() == before:
        section.complain("overage_cap", 'bills nothing; write overage = "block" for that')
    return overage == "block", cap


def _overage(text: str) -> str:
    if text not in {"block", "bill"}:
        raise ValueError(f'"{text}" is unknown; there is "block" and "bill"')
    return text


def _rollover(section: Section, plan_microcredits: int) -> tuple[int | None, int]:
    """What may be left to later periods (None: all of it), and for how many."""
    nothing: int | None = 0
    most = section.parsed("rollover", _rollover_most, nothing, "none")
    periods = section.integer("rollover_periods", 1, least=1, most=ROLLOVER_PERIODS_MAX)
    if most == 0 and "rollover_periods" in section:
        section.complain("rollover_periods", 'is of no use without rollover = "all" or an amount')
    if most != 0 and plan_microcredits == 0:
        section.complain("rollover", "is of no use: the plan has no credits to leave")
    return most, periods


def _rollover_most(text: str) -> int | None:
    if text in {"none", "all"}:
        return None if text == "all" else 0
    try:
        amount = parse_credits(text)
    except ValueError as error:
        raise ValueError(f'{error}, nor "all" or "none"') from None
    if amount == 0:
        raise ValueError('leaves nothing; write "none" for that')
    return amount


def parse_url(text: str) -> str:
    """A URL that people are sent to.

    Raises: ValueError saying what is wrong.
    """
    if not _URL.fullmatch(text):
        raise ValueError(f'"{text}" must be a URL that begins with https:// or http://')
    return text

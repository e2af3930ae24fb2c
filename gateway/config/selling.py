"""The [platform] table and the [[plans]]."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policies.catalog import Plan, Platform

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.config.section import Section

DEFAULT_SLUG = "demo"
# One call each 60 microseconds: the limiter's clock counts whole microseconds.
REQUESTS_PER_MINUTE_MAX = 1_000_000
LIMIT_MAX = 1_000_000_000
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?")
_URL = re.compile(r"https?://[!-~]+")


def read_platform(section: Section) -> Platform:
    """The [platform] table; all of it may be left out."""
    slug = section.parsed("slug", parse_slug, DEFAULT_SLUG, DEFAULT_SLUG)
    name = section.text("name", slug)
    url = section.parsed("upgrade_url", _url, None) if "upgrade_url" in section else None
    section.close()
    return Platform(slug, name, url)


def read_plans(sections: Iterable[Section]) -> tuple[Plan, ...]:
    """The [[plans]]."""
    plans: dict[str, Plan] = {}
    for section in sections:
        plan = _plan(section)
        if plan.slug and plan.slug in plans:
            section.complain("slug", f'"{plan.slug}" is already the slug of another plan')
        plans[plan.slug] = plan
    return tuple(plans.values())


def parse_slug(text: str) -> str:
    """A name that fits into URLs and tables.

    Raises: ValueError saying what is wrong.
    """
    if not _SLUG.fullmatch(text):
        raise ValueError(
            f'"{text}" must be up to 63 of a-z, 0-9, "-" and "_", and start and end with a-z or 0-9'
        )
    return text


def _plan(section: Section) -> Plan:
    plan = Plan(
        slug=section.parsed("slug", parse_slug, ""),
        credits_microcredits=section.amount("credits"),
        period=section.parsed("period", _period, "month", "month"),
        requests_per_minute=section.integer(
            "requests_per_minute", 0, least=0, most=REQUESTS_PER_MINUTE_MAX
        ),
        requests_per_month=section.integer("requests_per_month", 0, least=0, most=LIMIT_MAX),
        concurrency=section.integer("concurrency", 0, least=0, most=LIMIT_MAX),
    )
    section.parsed("overage", _overage, "block", "block")
    section.close()
    return plan


def _period(text: str) -> str:
    if text != "month":
        raise ValueError(f'"{text}" is not a period of this version; there is "month"')
    return text


def _overage(text: str) -> str:
    if text == "bill":
        raise ValueError('"bill" is not part of this version; write "block" or leave it out')
    if text != "block":
        raise ValueError(f'"{text}" is unknown; there is "block"')
    return text


def _url(text: str) -> str:
    if not _URL.fullmatch(text):
        raise ValueError(f'"{text}" must be a URL that begins with https:// or http://')
    return text

"""What can be done with platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.config.selling import TRIAL_DAYS
from gateway.control.api.cursors import read_text_cursor, write_cursor
from gateway.control.api.endpoint import Endpoint
from gateway.control.api.fields import PageQuery
from gateway.control.api.roles import OPERATORS, OWNERS, Role
from gateway.control.platforms.models import NewPlatform, Platform, PlatformPatch, Platforms
from gateway.operations import platforms
from gateway.operations.documents import managed_by_config
from policies import catalog as values

if TYPE_CHECKING:
    from gateway.control.api.ask import Ask
    from gateway.ledger import Ledger
    from gateway.ledger.offerings import PlatformDetails

PATH = "/v1/platforms"
ONE = f"{PATH}/{{platform}}"


def document(row: PlatformDetails) -> Platform:
    """The platform's document."""
    return Platform(
        id=row.platform_id,
        slug=row.slug,
        name=row.name,
        upgrade_url=row.upgrade_url,
        signup_plan=row.signup_plan,
        trial_credits=row.trial_microcredits,
        trial_days=row.trial_days,
        created_at=row.created_ms,
    )


async def create(ask: Ask, body: NewPlatform) -> Platform:
    """Make one."""
    ledger = _ledger(ask)
    platform = values.Platform(
        body.slug,
        body.name or body.slug,
        body.upgrade_url,
        body.signup_plan,
        body.trial_credits,
        body.trial_days,
    )
    version = await platforms.create_platform(ledger, platform)
    await ask.services.spread.wait(version)
    return document(await platforms.find_platform(ledger, body.slug))


async def read(ask: Ask) -> Platform:
    """One of them."""
    return document(await platforms.find_platform(_ledger(ask), ask.path["platform"]))


async def read_list(ask: Ask, query: PageQuery) -> Platforms:
    """All, by slug."""
    page = await _ledger(ask).platforms_page(
        after=read_text_cursor(query.cursor), limit=query.limit
    )
    return Platforms(
        data=[document(row) for row in page],
        next_cursor=write_cursor(page[-1].slug) if len(page) == query.limit else None,
    )


async def change(ask: Ask, body: PlatformPatch) -> Platform:
    """Name it otherwise, send its clients elsewhere, or receive new accounts otherwise."""
    ledger, told = _ledger(ask), body.model_fields_set
    platform = await platforms.find_platform(ledger, ask.path["platform"])
    if platform.slug == ask.services.platform:
        raise managed_by_config("platform", platform.slug)
    days = (body.trial_days or TRIAL_DAYS) if "trial_days" in told else platform.trial_days
    changed = values.Platform(
        platform.slug,
        name=(body.name or platform.slug) if "name" in told else platform.name,
        upgrade_url=body.upgrade_url if "upgrade_url" in told else platform.upgrade_url,
        signup_plan=body.signup_plan if "signup_plan" in told else platform.signup_plan,
        trial_microcredits=(body.trial_credits or 0)
        if "trial_credits" in told
        else platform.trial_microcredits,
        trial_days=days,
    )
    version = await platforms.change_platform(ledger, platform, changed)
    await ask.services.spread.wait(version)
    return await read(ask)


def _ledger(ask: Ask) -> Ledger:
    """Operators see all platforms, owners their own."""
    return ask.deployment_ledger() if ask.caller.role is Role.OPERATOR else ask.ledger


ENDPOINTS = (
    Endpoint(
        "POST", PATH, "Make a platform", OPERATORS, create,
        body=NewPlatform, answers=Platform, status=201, creates=True,
    ),
    Endpoint(
        "GET", PATH, "List platforms", OPERATORS, read_list, query=PageQuery, answers=Platforms,
    ),
    Endpoint("GET", ONE, "Read a platform", OWNERS, read, answers=Platform),
    Endpoint(
        "PATCH", ONE, "Change a platform", OWNERS, change,
        body=PlatformPatch, answers=Platform, reads=read,
        description="That of the config file is changed there.",
    ),
)  # fmt: skip
